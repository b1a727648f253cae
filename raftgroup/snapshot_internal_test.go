package raftgroup

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

func sampleSnapshot() *snapshot {
	return &snapshot{
		start: wal.Start{Index: 40, Term: 3, Offset: 77}, applied: 50, conf: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}},
		members: []Member{{Replica: 1, Node: 11}, {Replica: 4, Node: 14}}, view: []byte("a view"),
	}
}

func TestSnapshotsComeAsTheyWere(t *testing.T) {
	for _, size := range []int{0, 1, partBytes, 3*partBytes + 5} {
		s := sampleSnapshot()
		s.view = bytes.Repeat([]byte{7}, size)
		body, err := s.encode()
		require.NoError(t, err)
		var got []byte
		for at := 0; at < len(body); {
			var data []byte
			data, at = cutPart(9, body, at)
			p, err := decodePart(data)
			require.NoError(t, err)
			require.Equal(t, part{number: 9, total: len(body), position: len(got), data: p.data}, p)
			got = append(got, p.data...)
			require.Len(t, got, at)
		}
		d, err := decodeSnapshot(got)
		require.NoError(t, err)
		require.True(t, proto.Equal(s.conf, d.conf))
		s.conf, d.conf = nil, nil
		require.Equal(t, s.members, d.members)
		require.Equal(t, s.start, d.start)
		require.Equal(t, s.applied, d.applied)
		require.True(t, bytes.Equal(s.view, d.view))
	}
	s := sampleSnapshot()
	s.view = make([]byte, maxSnapshotBytes)
	_, err := s.encode()
	require.ErrorIs(t, err, errSnapshotSize)
}

// What has a good checksum, and would have Raft panic or be led astray.
func TestSnapshotsThatNoLeaderSends(t *testing.T) {
	cases := map[string]func(*snapshot){
		"begins with nothing":    func(s *snapshot) { s.start.Index = 0 },
		"of no term":             func(s *snapshot) { s.start.Term = 0 },
		"negative offset":        func(s *snapshot) { s.start.Offset = -1 },
		"state before the start": func(s *snapshot) { s.applied = s.start.Index - 1 },
		"state of another age":   func(s *snapshot) { s.applied = 1 << 60 },
		"nobody votes":           func(s *snapshot) { s.conf.Voters = nil },
		"replica 0":              func(s *snapshot) { s.conf.Voters = []uint64{0} },
		"a storage thread":       func(s *snapshot) { s.conf.Learners = []uint64{^uint64(0)} },
		"votes twice":            func(s *snapshot) { s.conf.Voters = []uint64{1, 1} },
		"votes and learns":       func(s *snapshot) { s.conf.Learners = []uint64{1} },
		"leaves what it is not":  func(s *snapshot) { s.conf.AutoLeave = new(true) },
		"learns next, not joint": func(s *snapshot) { s.conf.LearnersNext = []uint64{5} },
		"learns next, nobody left": func(s *snapshot) {
			s.conf.VotersOutgoing, s.conf.LearnersNext = []uint64{1, 2}, []uint64{9}
		},
		"too many": func(s *snapshot) {
			for i := range uint64(maxPeers + 1) {
				s.conf.Learners = append(s.conf.Learners, 100+i)
			}
		},
		"lives nowhere": func(s *snapshot) { s.members = []Member{{Replica: 0, Node: 1}} },
	}
	for name, spoil := range cases {
		s := sampleSnapshot()
		spoil(s)
		body, err := s.encode()
		require.NoError(t, err)
		_, err = decodeSnapshot(body)
		require.ErrorIs(t, err, errSnapshotDamaged, name)
	}
	joint := sampleSnapshot()
	joint.conf = &raftpb.ConfState{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1, 2, 4}, LearnersNext: []uint64{4}, AutoLeave: new(true)}
	body, err := joint.encode()
	require.NoError(t, err)
	_, err = decodeSnapshot(body)
	require.NoError(t, err)
}

// FuzzSnapshot reads what strangers send.
func FuzzSnapshot(f *testing.F) {
	body, _ := sampleSnapshot().encode()
	f.Add(body)
	data, _ := cutPart(1, body, 0)
	f.Add(data)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePart(b); err == nil && p.position+len(p.data) > p.total {
			t.Fatal("a part beyond the end")
		}
		if s, err := decodeSnapshot(b); err == nil && !s.has(id.Replica(s.conf.Voters[0])) {
			t.Fatal("a configuration without its voter")
		}
	})
}

// cutLog counts the answers to a store that wants a cut.
type cutLog struct {
	Log
	taken, declined int
}

func (l *cutLog) TakeCut(wal.State) { l.taken++ }
func (l *cutLog) DeclineCut()       { l.declined++ }

// restorer is a machine that has a new state, or none after an error.
type restorer struct {
	Machine
	err error
}

func (r restorer) Restore([]byte, id.Index) error { return r.err }
func (r restorer) View() []byte                   { return nil }

// TestNoCutBetweenStateAndLog: a replica that has taken the state of a snapshot, and stops before the log is told to begin anew, gives the
// store no state: the old log would be committed as far as the new state says. Nor does one whose machine has lost its state.
func TestNoCutBetweenStateAndLog(t *testing.T) {
	for name, failed := range map[string]error{"stops before the append": nil, "has no state": errors.New("cannot be restored")} {
		l := &cutLog{}
		g := &group{
			env: &env{o: Options{Logger: slog.New(slog.DiscardHandler)}}, turn: &turn{}, log: l, machine: restorer{err: failed}, rn: &raft.RawNode{},
			last: 60, commit: 30, applied: 30, handled: 30, replica: 1,
		}
		none := peers{}
		g.peers.Store(&none)
		g.takeCut()
		require.Equal(t, 1, l.taken, name)
		s := sampleSnapshot()
		s.applied = s.start.Index
		g.arrivals = []arrival{{snapshot: s}}
		require.Equal(t, failed == nil, g.beginAnew(s.start.Index), name)
		g.breakDown(errors.New("an entry that does not fit"))
		g.takeCut()
		require.Equal(t, cutLog{taken: 1, declined: 1}, *l, name)
		if failed != nil {
			continue
		}
		g.queueAppend(&raftpb.Message{Responses: []*raftpb.Message{{}}})
		g.takeCut()
		require.Equal(t, cutLog{taken: 2, declined: 1}, *l, name)
	}
}
