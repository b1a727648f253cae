package raftgroup

import (
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
)

// checkMessage tells whether m can be shown to Raft, as far as that can be told without the replica's state, and the weight of
// a MsgApp. Raft trusts what it is given: it panics on a heartbeat context of four bytes and on a gap between entries.
func checkMessage(m *raftpb.Message) (bytes int64, ok bool) {
	if !ordinaryReplica(m.GetFrom()) || m.GetTerm() > maxTerm || max(m.GetIndex(), m.GetCommit()) > math.MaxUint64/2 ||
		m.Snapshot != nil && m.GetType() != raftpb.MsgSnap || len(m.GetResponses()) > 0 {
		return 0, false
	}
	switch m.GetType() {
	case raftpb.MsgReadIndex:
		return 0, m.GetTerm() == 0 && isReadContext(m)
	case raftpb.MsgReadIndexResp:
		return 0, m.GetTerm() > 0 && isReadContext(m)
	case raftpb.MsgApp:
		return checkEntries(m)
	case raftpb.MsgSnap:
		return checkSnapshot(m)
	}
	if m.GetTerm() == 0 || len(m.GetEntries()) > 0 {
		return 0, false
	}
	context := len(m.GetContext())
	switch m.GetType() {
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		return 0, context == 0 || context == 8
	case raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		return 0, true
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return 0, context <= 32
	}
	return 0, false // local messages, and what this package never sends
}

func isReadContext(m *raftpb.Message) bool {
	e := m.GetEntries()
	return len(e) == 1 && len(e[0].GetData()) == 8 && e[0].GetType() == raftpb.EntryNormal
}

// checkEntries checks a MsgApp: entries follow each other, and every batch and command is whole. A frame's checksum does not replace the
// batch's own: a leader that reads a damaged disk sends a perfect frame.
func checkEntries(m *raftpb.Message) (bytes int64, ok bool) {
	term, index, last := m.GetTerm(), m.GetIndex(), m.GetLogTerm()
	if term == 0 || last > term {
		return 0, false
	}
	bytes = smallMessageBytes // not 0: one without entries must not overtake those with entries that it builds on
	for _, e := range m.GetEntries() {
		index++
		if e == nil || e.GetIndex() != index || e.GetTerm() < last || e.GetTerm() > term {
			return 0, false
		}
		last = e.GetTerm()
		bytes += int64(len(e.GetData())) + smallMessageBytes
		if e.GetType() == raftpb.EntryNormal && !whole(e.GetData()) {
			return 0, false
		}
	}
	return bytes, true
}

// whole checks what an ordinary entry carries.
func whole(data []byte) bool {
	if command.Is(data) {
		_, err := command.Parse(data)
		return err == nil
	}
	return len(data) == 0 || batch.Check(data) == nil
}

// smallMessageBytes is what a message without entries is taken to weigh, pointers to its scalars included.
const smallMessageBytes = 400

// checkSnapshot checks a MsgSnap, as far as that is possible for one part: see assembly.
func checkSnapshot(m *raftpb.Message) (bytes int64, ok bool) {
	s := m.GetSnapshot()
	at := s.GetMetadata()
	if m.GetTerm() == 0 || len(m.GetEntries()) > 0 || at.GetIndex() == 0 || at.GetIndex() > math.MaxUint64/2 ||
		at.GetTerm() == 0 || at.GetTerm() > m.GetTerm() || len(s.GetData()) > partHead+partBytes {
		return 0, false
	}
	return int64(len(s.GetData())) + smallMessageBytes, true
}
