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
