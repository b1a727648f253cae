package raftgroup

import "github.com/quorumlog/quorumlog/wal"

// more tells whether a touched group needs another round.
func (g *group) more() bool {
	if g.closed || g.broken != nil {
		return false
	}
	waits := len(g.pending) > 0 && g.turn.budget > 0 || g.change != nil && !g.change.proposed
	return g.rn.HasReady() || waits && g.canPropose()
}

// work proposes what waits and works one Ready off.
func (g *group) work() {
	if g.closed || g.ended {
		return
	}
	if g.broken == nil {
		g.proposePending()
		g.ready()
		g.takes = false
	}
	if g.broken != nil {
		g.turn.failing = append(g.turn.failing, g)
	}
}

// ready takes one Ready.
func (g *group) ready() {
	if g.broken != nil || !g.rn.HasReady() {
		return
	}
	rd := g.takeReady()
	if g.broken != nil {
		return
	}
	g.turn.n.readies.Add(1)
	g.redeem(rd.Entries)
	g.handleReady(&rd)
}

// tick is called every TickInterval.
func (g *group) tick() {
	if g.broken != nil {
		return
	}
	if g.clockRuns() && !g.accused() {
		g.raftTick()
	} else {
		g.doubtLeader()
	}
	if g.role == Leader {
		g.leaderTick()
		g.yield()
		g.standDown()
	}
	g.expire()
	if g.transfer != nil {
		g.transferTick()
	}
	if len(g.reads) > 0 && g.turn.ticks%g.env.o.HeartbeatTicks == 0 {
		g.repeatReads()
	}
	if len(g.behind.windows) > 0 {
		g.expireWindows(g.turn.now)
	}
	if len(g.offers) > 0 {
		g.offerTick()
	}
	if a := g.assembly; a != nil && g.turn.now.Sub(a.touched) > assemblyIdle {
		g.dropAssembly()
	}
	if g.broken != nil || len(g.pending) > 0 || g.change != nil || g.rn.HasReady() {
		g.touch()
	}
}

// takeCut gives the store the group's state as of its applied index. A group that has none to give says so: the checkpoint waits for
// every answer.
func (g *group) takeCut() {
	if g.closed || g.confUnknown || g.halted != nil || g.rn == nil || g.handled < g.applied || g.unsettled {
		// Of a halted replica the last one stands, from which a release that can follow goes on. While the state is ahead of the log it is the
		// one that the log has. A replica that stopped between both has the state of a log that it did not get: with it, what nobody committed
		// would be committed at the next start, up to the index of that state.
		g.log.DeclineCut()
		return
	}
	g.turn.n.cuts.Add(1)
	g.log.TakeCut(wal.State{Applied: g.applied, ConfState: g.confBytes, View: g.machine.View()})
}
