package raftgroup

import (
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Group is one replica of a Raft group on this host. Its exported methods may be called by anyone.
type Group struct {
	// Constant.
	h       *Host
	w       *worker
	id      id.Group
	replica id.Replica
	log     Log
	machine Machine
	vital   bool
	idle    chan struct{} // closed when the replica is closed and nothing is in flight

	// Read by anyone, written by the worker.
	lead         atomic.Pointer[LeaderChange]
	hw           atomic.Int64
	commitIndex  atomic.Uint64
	appliedIndex atomic.Uint64
	peers        atomic.Pointer[peers]
	failed       atomic.Bool
	standing     atomic.Pointer[standing]
	mute         atomic.Bool // it broke: nothing leaves any more, whatever was promised before

	// pendingBytes counts what is proposed and not applied, or not refused. Anyone adds, the worker subtracts.
	pendingBytes atomic.Int64
	// bulkQueued counts the group's messages in the inbox's bulk queue. Guarded by inbox.mu.
	bulkQueued int

	// The worker's own from here on.
	rn      *raft.RawNode
	storage storage
	slot    int
	dirty   bool
	closed  bool
	broken  error // why the replica takes part in nothing any more
	ended   bool  // who waited was told so

	term   id.Term
	role   Role
	leader id.Replica
	last   id.Index  // of the log with everything that came out of a Ready
	leo    id.Offset // after last
	commit id.Index
	// committing is a commit index that waits for the submission of the entries it covers. 0: none.
	committing id.Index
	applied    id.Index // by the machine
	// handled is what Raft was told to be applied: membership is as of it. It is applied, or more when the replica is halted.
	handled id.Index
	halted  *HaltedError // nil: the machine follows
	// [admitted, ...]: entries that the next Ready holds and the machine has admitted. 0: none.
	admitted    id.Index
	admittedLEO id.Offset     // after the last of them
	voted       wal.HardState // term and vote that were submitted last; its commit index is always 0
	inFlight    int           // appends in the store
	takes       bool          // a message was let in by the door that has let no other in since the last Ready
	// fresh are proposals that were stepped since the last Ready, in the order of their entries; see handle.
	fresh []*Proposal
	// unwaiting are AcksNone proposals whose batches are not submitted yet.
	unwaiting []*Proposal
	loans     []loan            // of what Raft has in memory, in the order of the entries
	notices   []*raftpb.Message // MsgApps without entries that wait, one for each follower

	confState   *raftpb.ConfState
	confBytes   []byte
	confUnknown bool // a membership change failed half-way: no cut can be taken any more
	members     []member
	order       []id.Replica // who campaigns first

	minInSync int
	inSync    int  // voters in sync, as of the last refresh
	majority  bool // a majority of the voters is alive, as of the last refresh
	samples   commitSamples

	pending  []*Proposal // to be proposed
	onCommit waiters     // AcksAll
	onLocal  waiters     // AcksLeader
	onApply  waiters     // WaitApplied
	charges  []charge    // bytes of proposed entries, in order

	accusation accusation
	race       election.Race
	alarm      time.Time    // the earliest of the group's timers; zero: there is none
	lost       LeaderChange // the last leader whose node went down: who, and in which term
	heardAt    time.Time    // when something last came that only a leader sends
	reads      map[uint64]*readRequest
	transfer   *transferRequest
	yieldAt    time.Time // not to hand over by itself before
	silent     int       // ticks that Raft was not told of since the leader was heard from
	change     *changeRequest
}

// charge is what a step's proposals weigh until they are applied.
type charge struct {
	last  id.Index
	bytes int64
}

func newGroup(h *Host, s Spec) *Group {
	g := &Group{
		h: h, id: s.Group, replica: s.Replica, log: s.Log, machine: s.Machine, vital: s.Vital,
		w:         h.workers[mix(uint64(s.Group))%uint64(len(h.workers))],
		idle:      make(chan struct{}),
		leader:    id.NoReplica,
		minInSync: max(1, s.MinInSync),
		majority:  true,
	}
	g.storage.g = g
	p := peers{}.with(s.Members...)
	delete(p, s.Replica)
	g.peers.Store(&p)
	g.lead.Store(&LeaderChange{Node: id.NoNode})
	g.stands(Working, nil)
	return g
}

// mix spreads group ids, which are given out in sequence, over the workers.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// step shows Raft a message.
func (g *Group) step(m *raftpb.Message) (err error) {
	if g.broken != nil {
		return g.broken
	}
	defer g.recovered()
	return g.rn.Step(m)
}

func (g *Group) raftTick() {
	defer g.recovered()
	g.rn.Tick()
}

func (g *Group) takeReady() raft.Ready {
	defer g.recovered()
	return g.rn.Ready()
}

// touch has the worker work on the group before the turn ends.
func (g *Group) touch() {
	if !g.dirty && !g.closed {
		g.dirty = true
		g.w.dirty = append(g.w.dirty, g)
	}
}

// more tells whether a touched group needs another round.
func (g *Group) more() bool {
	if g.closed || g.broken != nil {
		return false
	}
	waits := len(g.pending) > 0 && g.w.budget > 0 || g.change != nil && !g.change.proposed
	return g.rn.HasReady() || waits && g.canPropose()
}

// work proposes what waits and works one Ready off.
func (g *Group) work() {
	if g.closed || g.ended {
		return
	}
	if g.broken == nil {
		g.proposePending()
		g.ready()
		g.takes = false
	}
	if g.broken != nil {
		g.w.failing = append(g.w.failing, g)
	}
}

// ready takes one Ready.
func (g *Group) ready() {
	if g.broken != nil || !g.rn.HasReady() {
		return
	}
	rd := g.takeReady()
	if g.broken != nil {
		return
	}
	g.w.n.readies.Add(1)
	g.redeem(rd.Entries)
	g.handleReady(&rd)
}

// tick is called every TickInterval.
func (g *Group) tick() {
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
	if len(g.reads) > 0 && g.w.ticks%g.h.o.HeartbeatTicks == 0 {
		g.repeatReads()
	}
	if len(g.storage.windows) > 0 {
		g.storage.expireWindows(g.w.now)
	}
	if g.broken != nil || len(g.pending) > 0 || g.change != nil || g.rn.HasReady() {
		g.touch()
	}
}

// takeCut gives the store the group's state as of its applied index. A group that has none to give says so: the checkpoint waits for
// every answer.
func (g *Group) takeCut() {
	if g.closed || g.confUnknown || g.halted != nil || g.rn == nil {
		g.log.DeclineCut() // of a halted replica the last one stands, from which a release that can follow goes on
		return
	}
	g.w.n.cuts.Add(1)
	g.log.TakeCut(wal.State{Applied: g.applied, ConfState: g.confBytes, View: g.machine.View()})
}
