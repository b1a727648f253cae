package raftgroup

// Metrics are the counters of a host since it was started.
type Metrics struct {
	Groups           int    // replicas open now
	Leading          int    // of these, leading now
	Failed           uint64 // replicas stopped for good
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
	DroppedSnapshots uint64 // snapshots received
	Sent             uint64 // messages given to the transport
	Unroutable       uint64 // messages for a replica whose node is not known
	Elections        uint64 // campaigns started by hints and failed nodes
	LeaderChanges    uint64 // leader, term or role of a replica changed
	DiskReads        uint64 // reads for lagging followers
	DiskReadBytes    uint64 // bytes of entries in these
	UncommittedBytes int64  // bytes proposed and not committed now
	CutsTaken        uint64 // cuts given to the store
}
