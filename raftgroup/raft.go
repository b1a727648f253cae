package raftgroup

import (
	"fmt"
	"runtime/debug"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// step shows Raft a message.
func (g *group) step(m *raftpb.Message) (err error) {
	if g.broken != nil {
		return g.broken
	}
	defer g.recovered()
	return g.rn.Step(m)
}

func (g *group) raftTick() {
	defer g.recovered()
	g.rn.Tick()
}

func (g *group) takeReady() raft.Ready {
	defer g.recovered()
	return g.rn.Ready()
}

// guard calls into Raft, and turns a panic there into the end of this replica.
func (g *group) guard(call func()) {
	defer g.recovered()
	call()
}

func (g *group) recovered() {
	switch p := recover().(type) {
	case nil:
	case raftPanic:
		g.breakDown(p)
	default:
		g.env.o.Logger.Error("panic in raft", "group", uint64(g.id), "replica", uint64(g.replica), "panic", p, "stack", string(debug.Stack()))
		g.breakDown(fmt.Errorf("panic in raft: %v", p))
	}
}

// breakDown notes that the replica cannot go on; work finishes it off. From now on nothing leaves it.
func (g *group) breakDown(cause error) {
	if g.broken == nil {
		g.broken = cause
		g.mute.Store(true)
		if g.rn != nil {
			g.touch()
		}
	}
}

func (g *group) forgetLeader() { g.guard(func() { _ = g.rn.ForgetLeader() }) }

func (g *group) unreachable(r id.Replica) { g.guard(func() { g.rn.ReportUnreachable(uint64(r)) }) }
