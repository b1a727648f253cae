package bench

import (
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TestLedgerFindsEachFault builds a good history and then one history for each fault that the ledger is for.
func TestLedgerFindsEachFault(t *testing.T) {
	t.Parallel()
	type saw struct {
		offset id.Offset
		number int64
		sum    uint64
	}
	good := []saw{{0, 0, 11}, {1, 1, 13}, {2, 2, 15}, {3, 3, 17}}
	tests := []struct {
		name string
		read []saw
		want Report
	}{
		{"good", good, Report{Acked: 3, Read: 4, Unacknowledged: 1, ChecksumOK: true}},
		{"tail without a promise is missing", good[:3], Report{Acked: 3, Read: 3, ChecksumOK: true}},
		{"lost", []saw{{0, 0, 11}, {1, 1, 13}}, Report{Acked: 3, Read: 2, Lost: 1}},
		{"duplicate at another offset", append(good[:4:4], saw{4, 1, 13}), Report{Acked: 3, Read: 5, Duplicated: 1, Unacknowledged: 1, ChecksumOK: true}},
		{"reordered", []saw{{0, 0, 11}, {1, 2, 15}, {2, 1, 13}}, Report{Acked: 3, Read: 3, Reordered: 2, ChecksumOK: true}},
		{"changed bytes", []saw{{0, 0, 11}, {1, 1, 99}, {2, 2, 15}}, Report{Acked: 3, Read: 3, wrong: 1}},
		{"foreign", append(good[:3:3], saw{3, -1, 1}), Report{Acked: 3, Read: 4, Foreign: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := NewLedger(4)
			for n, sum := range []uint64{11, 13, 15, 17} {
				l.Sent(int64(n), sum)
			}
			for n := range int64(3) {
				l.Acked(n, 0, id.Offset(n))
			}
			for _, r := range tt.read {
				l.Saw(id.TopicPartition{Topic: "t"}, r.offset, r.number, r.sum)
			}
			got := l.Report()
			got.First = ""
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if good := tt.want.Lost+tt.want.Duplicated+tt.want.Reordered+tt.want.Foreign+tt.want.wrong == 0; got.OK() != good {
				t.Errorf("OK() is %v", got.OK())
			}
		})
	}
}

// TestLedgerSkips lets records go that are below the log start, and nothing else.
func TestLedgerSkips(t *testing.T) {
	t.Parallel()
	tp := id.TopicPartition{Topic: "t"}
	for _, tt := range []struct {
		name          string
		skip          [2]id.Offset
		offset        id.Offset // of the acknowledgement of the record that is not read
		lost, skipped int64
	}{
		{"below the start", [2]id.Offset{1, 3}, 2, 0, 1},
		{"the first one", [2]id.Offset{1, 3}, 1, 0, 1},
		{"at the start", [2]id.Offset{1, 3}, 3, 1, 0},
		{"before what was skipped", [2]id.Offset{1, 3}, 0, 1, 0},
		{"without an offset", [2]id.Offset{1, 3}, id.NoOffset, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := NewLedger(1)
			l.Sent(0, 11)
			l.Acked(0, 0, tt.offset)
			l.Skipped(tp, tt.skip[0], tt.skip[1])
			if r := l.Report(); r.Lost != tt.lost || r.Skipped != tt.skipped || r.OK() != (tt.lost == 0) {
				t.Errorf("%+v", r)
			}
		})
	}
	l := NewLedger(1)
	l.Sent(0, 11)
	l.Saw(tp, 5, 0, 11)
	l.Skipped(tp, 3, 7)
	if r := l.Report(); r.Duplicated != 1 {
		t.Errorf("an offset that was read was skipped: %+v", r)
	}
}

// TestLedgerChecks compares what is read again.
func TestLedgerChecks(t *testing.T) {
	t.Parallel()
	l := NewLedger(2)
	l.Sent(0, 11)
	l.Acked(0, 0, 7)
	tp := id.TopicPartition{Topic: "t"}
	if err := l.Check(tp, 7, 0, 11); err != nil {
		t.Error(err)
	}
	for _, err := range []error{l.Check(tp, 7, 0, 13), l.Check(tp, 8, 0, 11), l.Check(tp, 7, 1, 11), l.Check(tp, 7, -1, 11),
		l.Check(id.TopicPartition{Topic: "t", Partition: 1}, 7, 0, 11)} {
		if err == nil {
			t.Error("another record was taken for it")
		}
	}
}
