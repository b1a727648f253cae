package raftgroup

import (
	"fmt"
	"time"
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
