package raftgroup

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// yieldRetry is how long after one attempt to hand over the next one follows, and how long an attempt may take: proposals wait for it.
const yieldRetry = time.Second

// yield has a leader that can take nothing hand over, to somebody who can. It is called every tick.
func (g *group) yield() {
	if g.conditionOf(g.replica) == Good {
		return
	}
	if t := g.transfer; t != nil {
		if g.conditionOf(t.to) == Good {
			return
		}
		g.abortTransfer(fmt.Errorf("%w: the disk of replica %d is %v", ErrTransferFailed, t.to, g.conditionOf(t.to)))
	}
	if g.turn.now.Before(g.yieldAt) {
		return
	}
	g.yieldAt = g.turn.now.Add(yieldRetry)
	g.refreshInSync()
	if !g.canElect() {
		return
	}
	m := g.member(g.bestSuccessor(nil))
	if m == nil || !m.inSync || g.conditionOf(m.replica) != Good {
		return // nobody takes it: somebody has to lead, for those who read
	}
	g.startTransfer(m.replica, nil, make(chan error, 1))
	if g.transfer != nil {
		g.transfer.until = g.turn.now.Add(yieldRetry)
		g.turn.n.yields.Add(1)
	}
}

// canElect tells whether a majority can store votes. Without one nobody would lead after a transfer, and nobody could read.
func (g *group) canElect() bool {
	return g.most(func(m *member) bool { return g.alive(m) && g.conditionOf(m.replica) != Stalled })
}

// standDown has a halted leader hand over, to a voter in sync. One that is halted as well declines. It is called every tick.
func (g *group) standDown() {
	if g.halted == nil || g.transfer != nil || g.turn.now.Before(g.yieldAt) {
		return
	}
	g.yieldAt = g.turn.now.Add(yieldRetry)
	g.refreshInSync()
	m := g.member(g.bestSuccessor(nil))
	if m == nil || !m.inSync || !g.canElect() {
		return
	}
	g.startTransfer(m.replica, nil, make(chan error, 1))
	if g.transfer != nil {
		g.transfer.until = g.turn.now.Add(yieldRetry)
	}
}

// bequeath has a leader that stops in this very turn tell the best of the others to campaign. Its node is alive, so nobody is told of a dead
// peer, and without a word the others would wait for their election timeouts.
//
// It is one message, as at the end of a transfer, and nobody waits for what comes of it: who gets it late, loses the election or declines
// costs no more than that timeout. It needs nothing of the disk that failed. Its term is durable, or there had been no majority for it, and
// who campaigns gets votes by what the voters have: an entry that only this replica has is not committed.
func (g *group) bequeath() {
	if g.closed || g.broken != nil || g.role != Leader {
		return
	}
	to := g.bestSuccessor(nil)
	if g.transfer != nil { // it may have been told already: two that campaign in one term hinder each other
		to = g.transfer.to
	}
	if to == id.NoReplica {
		return
	}
	m := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: new(uint64(to)), From: new(uint64(g.replica)), Term: new(uint64(g.term))}
	if g.send(m, nil) {
		g.turn.sent = true
	}
}
