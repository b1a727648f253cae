package raftgroup

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

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
	broken  error // why the replica stopped for good

	term   id.Term
	role   Role
	leader id.Replica
	last   id.Index  // of the log with everything that came out of a Ready
	leo    id.Offset // after last
	commit id.Index
	// committing is a commit index that waits for the submission of the entries it covers. 0: none.
	committing id.Index
	applied    id.Index
	// [admitted, ...]: entries that the next Ready holds and the machine has admitted. 0: none.
	admitted    id.Index
	admittedLEO id.Offset // after the last of them
	// unready says that a membership change was proposed since the last Ready, so that the next index is not known.
	unready  bool
	voted    wal.HardState // term and vote that were submitted last; its commit index is always 0
	inFlight int           // appends in the store
	takes    bool          // a message was let in by the door that has let no other in since the last Ready
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

	hurry    hurry
	reads    map[uint64]*readRequest
	transfer *transferRequest
	yieldAt  time.Time // not to hand over by itself before
	silent   int       // ticks that Raft was not told of since the leader was heard from
	change   *changeRequest
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
	return g
}

// mix spreads group ids, which are given out in sequence, over the workers.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// boot makes the RawNode from what the log recovered. It runs on the goroutine of Host.Open: no worker knows the group yet.
//
// Raft panics unless first-1 <= applied <= commit <= last and term >= that of the last entry. Commit is a hint in the log's
// hard state: raising it to what was applied is safe since only committed entries are, and lowering it to last is safe since
// it need not be durable.
func (g *Group) boot(s Spec) error {
	state, hs := g.log.State(), g.log.HardState()
	g.confState = &raftpb.ConfState{}
	if err := proto.Unmarshal(state.ConfState, g.confState); err != nil {
		return fmt.Errorf("raftgroup: group %d: %w: decode configuration: %w", g.id, ErrUnusableLog, err)
	}
	if len(state.ConfState) == 0 {
		for _, m := range s.Members {
			g.confState.Voters = append(g.confState.Voters, uint64(m.Replica))
		}
	}
	g.confBytes = mustMarshal(g.confState)
	g.order = orderOf(s.Members, votersOf(g.confState))

	first, last := g.log.FirstIndex(), g.log.LastIndex()
	lastTerm, ok := g.log.Term(last)
	if !ok {
		return fmt.Errorf("raftgroup: group %d: %w: it does not know the term of its last entry %d", g.id, ErrUnusableLog, last)
	}
	g.applied = min(max(state.Applied, first-1), last)
	g.commit = min(max(hs.Commit, g.applied), last)
	g.term = max(hs.Term, lastTerm)
	vote := hs.Vote
	if g.term != hs.Term {
		vote = id.NoReplica
	}
	g.last, g.leo = last, g.log.NextOffset()
	g.voted = wal.HardState{Term: hs.Term, Vote: hs.Vote}
	g.storage.hardState = &raftpb.HardState{Term: new(uint64(g.term)), Vote: new(uint64(vote)), Commit: new(uint64(g.commit))}
	g.storage.confState = g.confState
	if err := g.replay(); err != nil {
		return err
	}
	return g.newRawNode()
}

func (g *Group) newRawNode() (err error) {
	o := &g.h.o
	g.guard(func() {
		g.rn, err = raft.NewRawNode(&raft.Config{
			ID:                        uint64(g.replica),
			ElectionTick:              o.ElectionTicks,
			HeartbeatTick:             o.HeartbeatTicks,
			Storage:                   &g.storage,
			Applied:                   uint64(g.applied),
			AsyncStorageWrites:        true,
			MaxSizePerMsg:             uint64(o.MaxMessageBytes),
			MaxCommittedSizePerReady:  8 * mib,
			MaxUncommittedEntriesSize: 0,  // Propose counts
			MaxInflightMsgs:           64, // of up to MaxMessageBytes: what counts, since Raft sees the size of handles
			MaxInflightBytes:          uint64(o.MaxInflightBytes),
			CheckQuorum:               true,
			PreVote:                   true,
			ReadOnlyOption:            raft.ReadOnlySafe,
			DisableProposalForwarding: true,
			StepDownOnRemoval:         true,
			Logger:                    newRaftLogger(o.Logger, g.id, g.replica),
		})
	})
	if g.broken != nil {
		err = g.broken
	}
	if err != nil {
		return fmt.Errorf("raftgroup: group %d: start raft: %w", g.id, err)
	}
	return nil
}

// replay shows the machine what the log has above applied.
func (g *Group) replay() error {
	for i := g.applied + 1; i <= g.last; {
		entries, err := g.log.ReadEntries(i, g.last+1, mib)
		if err != nil {
			return fmt.Errorf("raftgroup: group %d: replay from %d: %w", g.id, i, err)
		}
		if len(entries) == 0 {
			return fmt.Errorf("raftgroup: group %d: replay from %d: %w", g.id, i, wal.ErrUnavailable)
		}
		for _, e := range entries {
			if e.Kind == wal.KindBatch {
				g.machine.Append(e.Index, e.Term, e.Data)
			}
		}
		i += id.Index(len(entries))
	}
	return nil
}

// start is the group's first act on its worker.
func (g *Group) start(hint CampaignHint) {
	g.rebuildMembers()
	g.commitIndex.Store(uint64(g.commit))
	g.appliedIndex.Store(uint64(g.applied))
	g.log.SetCommit(g.commit)
	g.hw.Store(int64(g.log.OffsetAt(g.commit + 1)))
	g.lead.Store(&LeaderChange{Term: g.term, Node: id.NoNode})
	g.machine.Leader(*g.lead.Load())
	g.machine.Committed(g.HighWatermark())
	if hint != CampaignPreferred || !g.isVoter(g.replica) {
		return
	}
	every := 2 * g.h.o.TickInterval
	if g.conditionOf(g.replica) != Good || g.log.Condemned() != 0 {
		g.hurryUp(time.Duration(len(g.members)+1)*failoverStep, every) // behind all others
		return
	}
	g.campaign()
	g.hurryUp(every, every)
}

// guard calls into Raft, and turns a panic there into the end of this replica.
func (g *Group) guard(call func()) {
	defer g.recovered()
	call()
}

func (g *Group) recovered() {
	switch p := recover().(type) {
	case nil:
	case raftPanic:
		g.breakDown(p)
	default:
		g.breakDown(fmt.Errorf("panic in raft: %v\n%s", p, debug.Stack()))
	}
}

// breakDown notes that the replica cannot go on; work finishes it off.
func (g *Group) breakDown(cause error) {
	if g.broken == nil {
		g.broken = cause
		if g.rn != nil {
			g.touch()
		}
	}
}

// errLostEntries says that a leader counts on entries that the replica does not have.
type errLostEntries struct{ commit, last id.Index }

// Error implements error.
func (e errLostEntries) Error() string {
	return fmt.Sprintf("the leader knows entry %d to be stored here, but the log ends at %d: acknowledged data was lost", e.commit, e.last)
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
	return g.rn.HasReady() || g.change != nil && !g.change.proposed && g.canPropose()
}

// work proposes what waits and works one Ready off.
func (g *Group) work() {
	if g.closed || g.failed.Load() {
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
	if g.clockRuns() {
		g.raftTick()
	} else {
		g.doubtLeader()
	}
	if g.role == Leader {
		g.leaderTick()
		g.yield()
	}
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

// fail stops the replica for good. It stays in the worker's list so that cuts of its log can still be taken: without them the
// journal could not let go of what it holds for it.
func (g *Group) fail(cause error) {
	if g.closed || g.failed.Load() {
		return
	}
	g.breakDown(cause)
	g.failed.Store(true)
	g.w.n.failed.Add(1)
	err := &FailedError{Group: g.id, Replica: g.replica, Cause: cause}
	g.h.o.Logger.Error("replica stopped", "group", uint64(g.id), "replica", uint64(g.replica), "error", cause)
	g.endWaiting(0, err)
	g.failPending(err)
	g.answerUnwaiting()
	g.endRequests(err)
	g.setLeader(LeaderChange{Term: g.term, Node: id.NoNode})
	g.h.o.OnGroupFailed(g, err)
}

// Failed tells whether the replica was stopped for good, or closed: it knows nothing of its group any more.
func (g *Group) Failed() bool { return g.failed.Load() }

// close ends the group's life on its worker.
func (g *Group) close(err error) {
	if g.closed {
		return
	}
	g.closed = true
	g.failed.Store(true)
	if g.role == Leader {
		g.w.n.leading.Add(-1)
		g.role = Follower
	}
	g.lead.Store(&LeaderChange{Term: g.term, Node: id.NoNode})
	g.endWaiting(0, err)
	g.failPending(err)
	g.answerUnwaiting()
	g.endRequests(err)
	for _, l := range g.loans {
		l.data.Release()
	}
	g.loans = nil
	for i := len(g.storage.windows) - 1; i >= 0; i-- {
		if g.storage.windows[i].entries != nil {
			g.storage.drop(i)
		}
	}
	g.storage.windows = nil
	if g.inFlight == 0 {
		close(g.idle)
		return
	}
	g.w.draining.Add(1)
	if g.w.in.waiting.Load() { // perhaps the last completion, by a round that ended before it could know
		g.w.turns.ask()
	}
}

// takeCut gives the store the group's state as of its applied index. A group that has none to give says so: the checkpoint waits for
// every answer.
func (g *Group) takeCut() {
	if g.closed || g.confUnknown || g.rn == nil {
		g.log.DeclineCut()
		return
	}
	g.w.n.cuts.Add(1)
	g.log.TakeCut(wal.State{Applied: g.applied, ConfState: g.confBytes, View: g.machine.View()})
}
