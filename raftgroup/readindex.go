package raftgroup

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"

	"github.com/quorumlog/quorumlog/wal/id"
)

// repeatReads asks again: a request or its answer may have been lost on the way to or from the leader.
func (g *group) repeatReads() {
	for _, r := range g.reads {
		g.guard(func() { g.rn.ReadIndex(r.context) })
	}
}

func (g *group) readState(rs raft.ReadState) {
	if len(rs.RequestCtx) != 8 {
		return
	}
	// Raft asks no majority where there is one voter, and answers before anything of the term is committed: after a restart its commit index may
	// be from before what it has answered since.
	if t, ok := g.log.Term(id.Index(rs.Index)); g.role == Leader && (!ok || t != g.term) {
		return // it is asked again
	}
	key := binary.LittleEndian.Uint64(rs.RequestCtx)
	if r := g.reads[key]; r != nil {
		delete(g.reads, key)
		r.index = id.Index(rs.Index)
		r.result <- nil
	}
}
