package raftgroup

import "sync/atomic"

// Metrics are the counters of a host since it was started.
type Metrics struct {
	Groups           int    // replicas open now
	Leading          int    // of these, leading now
	Halted           int    // of these, halted
	Failed           uint64 // replicas that stopped or were refused
	Turns            uint64 // turns of all workers
	Readies          uint64 // Readies worked off
	Submissions      uint64 // calls of LogStore.Submit
	Appends          uint64 // appends in these
	Proposals        uint64 // batches proposed to Raft
	ProposalSteps    uint64 // messages they were gathered into
	ProposedBytes    uint64 // bytes of these batches
	Refused          uint64 // proposals that ended with an error before they were proposed
	Committed        uint64 // entries committed
	Applied          uint64 // entries applied
	Received         uint64 // messages taken from other nodes
	DroppedUnknown   uint64 // messages for a group or replica that is not open here
	DroppedInvalid   uint64 // messages that make no sense
	DroppedFull      uint64 // messages for which the inbox had no room
	DroppedSnapshots uint64 // snapshots received that were damaged, or of another release
	DroppedNoSpace   uint64 // messages with batches, and snapshots, for which the disk had no space
	DroppedBehind    uint64 // messages with batches of groups that had one in a store that is behind
	HeldBack         uint64 // messages with batches that were not sent, to nodes whose disk would not take them
	Yields           uint64 // leaderships given up because of the own disk: attempts
	Sent             uint64 // messages given to the transport
	Unroutable       uint64 // messages for a replica whose node is not known
	Elections        uint64 // campaigns started by hints, calls and failed nodes
	LeaderChanges    uint64 // leader, term or role of a replica changed
	BelowStart       uint64 // times a follower was found to need entries from before the log's start
	SnapshotsSent    uint64 // to these
	SnapshotsLost    uint64 // of these, not answered in time, or not delivered
	SnapshotsTaken   uint64 // times a log began anew with a snapshot from its leader
	DiskReads        uint64 // reads for lagging followers
	DiskReadBytes    uint64 // bytes of entries in these
	UncommittedBytes int64  // bytes proposed and not yet committed and applied
	Cuts             uint64 // cuts given to the store
}

// counters are a worker's. Other goroutines only add to received, dropped, refused and sent.
type counters struct {
	leading, halted                                                     atomic.Int64
	failed, turns, readies, submissions, appends                        atomic.Uint64
	proposals, proposalSteps, proposedBytes, refused                    atomic.Uint64
	committed, applied, received                                        atomic.Uint64
	droppedUnknown, droppedInvalid, droppedFull, droppedSnapshots, sent atomic.Uint64
	unroutable, elections, leaderChanges, cuts, belowStart              atomic.Uint64
	droppedNoSpace, droppedBehind, heldBack, yields                     atomic.Uint64
	snapshotsSent, snapshotsLost, snapshotsTaken                        atomic.Uint64
	_                                                                   [64]byte // workers' counters share no cache line
}

func (c *counters) addTo(m *Metrics) {
	m.Leading += int(c.leading.Load())
	m.Halted += int(c.halted.Load())
	for _, x := range []struct {
		to   *uint64
		from *atomic.Uint64
	}{
		{&m.Failed, &c.failed}, {&m.Turns, &c.turns}, {&m.Readies, &c.readies},
		{&m.Submissions, &c.submissions}, {&m.Appends, &c.appends},
		{&m.Proposals, &c.proposals}, {&m.ProposalSteps, &c.proposalSteps}, {&m.ProposedBytes, &c.proposedBytes},
		{&m.Refused, &c.refused}, {&m.Committed, &c.committed}, {&m.Applied, &c.applied}, {&m.Received, &c.received},
		{&m.DroppedUnknown, &c.droppedUnknown}, {&m.DroppedInvalid, &c.droppedInvalid}, {&m.DroppedFull, &c.droppedFull},
		{&m.DroppedSnapshots, &c.droppedSnapshots}, {&m.Sent, &c.sent}, {&m.Unroutable, &c.unroutable},
		{&m.Elections, &c.elections}, {&m.LeaderChanges, &c.leaderChanges}, {&m.Cuts, &c.cuts}, {&m.BelowStart, &c.belowStart},
		{&m.DroppedNoSpace, &c.droppedNoSpace}, {&m.DroppedBehind, &c.droppedBehind}, {&m.HeldBack, &c.heldBack}, {&m.Yields, &c.yields},
		{&m.SnapshotsSent, &c.snapshotsSent}, {&m.SnapshotsLost, &c.snapshotsLost}, {&m.SnapshotsTaken, &c.snapshotsTaken},
	} {
		*x.to += x.from.Load()
	}
}
