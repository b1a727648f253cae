package raftgroup

import (
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/raftgroup/insync"
	"github.com/quorumlog/quorumlog/raftgroup/waiting"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// group is one replica of a Raft group on this host, as the worker that drives it knows it. [Group] is what everybody else has.
type group struct {
	// Constant.
	env     *env
	turn    *turn
	id      id.Group
	replica id.Replica
	log     Log
	machine Machine
	vital   bool
	worker  int           // the number of the one that drives it
	report  func(error)   // tells the host's owner that the replica stopped or was refused
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
	bulkQueued   int // messages in the inbox's bulk queue. Guarded by the inbox.

	// The worker's own from here on.
	rn     *raft.RawNode
	slot   int
	dirty  bool
	closed bool
	broken error // why the replica takes part in nothing any more
	ended  bool  // who waited was told so

	term   id.Term
	role   Role
	leader id.Replica
	last   id.Index  // of the log with everything that came out of a Ready
	leo    id.Offset // after last
	commit id.Index
	// command is the last entry in the log without a batch: what a leader needs though there is no space. It may be cut off; then a leader
	// adds one at once.
	command id.Index
	// committing is a commit index that waits for the submission of the entries it covers. 0: none.
	committing id.Index
	applied    id.Index // by the machine
	// handled is what Raft was told to be applied: it is applied, or more when the replica is halted, or less when its state came with a
	// snapshot and is ahead of its log. Membership is as of the larger one.
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
	loans     loans                 // of what Raft has in memory
	lent      bool                  // the log has lent memory in this turn
	scratch   []wal.Entry           // of the storage
	behind    lagging               // followers that are served from the disk
	offers    map[id.Replica]*offer // of snapshots, to followers
	assembly  *assembly             // of a snapshot of which not all parts have come; nil: there is none
	arrivals  []arrival             // snapshots that Raft has taken since the last Ready
	anew      *wal.Reset            // what the append that is about to be queued begins with; nil: with nothing
	unsettled bool                  // the machine's state is not, or may not be, one of the log: no cut may have it
	notices   []*raftpb.Message     // MsgApps without entries that wait, one for each follower

	confState   *raftpb.ConfState
	confBytes   []byte
	confUnknown bool // a membership change failed half-way: no cut can be taken any more
	members     []member
	order       []id.Replica // who campaigns first

	minInSync int
	inSync    int    // voters in sync, as of the last refresh
	majority  bool   // a majority of the voters is alive, as of the last refresh
	judged    InSync // what the machine was told last
	samples   insync.Samples

	pending  []*Proposal     // to be proposed
	onCommit proposals       // AcksAll
	onLocal  proposals       // AcksLeader
	onApply  proposals       // WaitApplied
	charges  waiting.Charges // bytes of proposed entries

	accusation accusation
	race       election.Race
	alarm      time.Time    // the earliest of the group's timers; zero: there is none
	lost       LeaderChange // the last leader whose node went down: who, and in which term
	heardAt    time.Time    // when something last came that only a leader sends
	reads      map[uint64]*readRequest
	transfer   *transferRequest
	yieldAt    time.Time // not to hand over by itself before
	alone      int       // ticks for which it has led without a majority
	silent     int       // ticks that Raft was not told of since the leader was heard from
	change     *changeRequest
}

type (
	proposals = waiting.Queue[*Proposal]
	waiter    = waiting.Waiter[*Proposal]
)

// turn is what the turns of a worker have in common with the groups that they touch. It belongs to whoever has claimed the turn, but for
// what says otherwise.
type turn struct {
	n counters
	// draining counts closed groups of which something is in flight. Somebody waits for the end of that, so no completion waits for
	// another turn then. Read by anyone.
	draining atomic.Int32

	now    time.Time // of this turn
	ticks  int
	budget int // bytes that may still be proposed in this turn

	dirty []*group // touched in this turn
	lent  []*group // asked their logs for entries: to be released at the end of the turn
	held  []Loan   // keep the data of messages that were stepped: to be released at the end of the turn
	after []*group // have a commit index to handle after the submission
	// failing are to be stopped after the submission: what was queued of them before they broke refers to buffers that whoever waits has
	// back once he is answered.
	failing []*group
	waiting []*group // have proposals that the budget left for the next turn

	posts  []post       // leave after the submission
	sent   bool         // something went to the transport since the last Flush
	jobs   []*appendJob // free ones
	submit []*wal.Append
	// noticing are groups of which notices wait, until noticesDue; one whose notices were overtaken may still be there.
	noticing   []*group
	noticesDue time.Time

	alarms waiting.Alarms[*group]
	voters []election.Voter  // scratch of group.view
	down   map[id.Node]int64 // UnixNano of NodeDown

	condition  Condition // of the host, as of the last tick
	conditions map[id.Node]*peerCondition
	proposer   proposer
}

// env is what a group needs of the host that it lives on: it is the same for all groups.
type env struct {
	o            Options
	readers      readers
	pendingBytes atomic.Int64  // proposed and not applied, all groups
	draining     atomic.Bool   // takes no leaderships any more
	readID       atomic.Uint64 // of the last ReadIndex, or snapshot
	offered      atomic.Int64  // bytes of snapshots under way to followers, all groups
	assembling   atomic.Int64  // bytes of snapshots of which not all parts have come, all groups
	disk         disk

	// stored is called by the store when an append is durable.
	stored func(*wal.Append)
	// read brings a window, which was read, back to the group's worker.
	read func(*group, *readWindow)
	// refuse has the replica's refusal stored, and then fails it.
	refuse func(g *group, cause error)
}

// touch has the worker work on the group before the turn ends.
func (g *group) touch() {
	if !g.dirty && !g.closed {
		g.dirty = true
		g.turn.dirty = append(g.turn.dirty, g)
	}
}

// ID returns the group's id.
func (g *group) ID() id.Group { return g.id }

// Replica returns the id of this replica.
func (g *group) Replica() id.Replica { return g.replica }

// Log returns the replica's log.
func (g *group) Log() Log { return g.log }

// Leader returns the leader as this replica knows it; NoReplica and NoNode while none is known.
func (g *group) Leader() (id.Replica, id.Node, id.Term) {
	l := g.lead.Load()
	return l.Leader, l.Node, l.Term
}

// IsLeader tells whether this replica leads. By the time it returns another may lead in a later term.
func (g *group) IsLeader() bool { return g.lead.Load().Role == Leader }

// HighWatermark returns the offset after the last record known to be committed.
func (g *group) HighWatermark() id.Offset { return id.Offset(g.hw.Load()) }

// Commit returns the index of the last entry known to be committed.
func (g *group) Commit() id.Index { return id.Index(g.commitIndex.Load()) }

// Applied returns the index of the last entry applied.
func (g *group) Applied() id.Index { return id.Index(g.appliedIndex.Load()) }

// publishApplied lets everybody see what the machine's state and the log have both.
func (g *group) publishApplied() { g.appliedIndex.Store(uint64(min(g.applied, g.handled))) }

func (g *group) stands(s Standing, cause error) { g.standing.Store(&standing{s, cause}) }

// Standing returns how far the replica takes part, and why no further.
func (g *group) Standing() (Standing, error) {
	s := g.standing.Load()
	return s.Standing, s.cause
}

// Failed tells whether the replica was stopped or refused, or closed: it knows nothing of its group any more.
func (g *group) Failed() bool { return g.failed.Load() }

// whyBroken is what callers of a broken replica are told.
func (g *group) whyBroken() error {
	if s, err := g.Standing(); s == Stopped || s == Refused {
		return err
	}
	return &FailedError{Group: g.id, Replica: g.replica, Cause: g.broken} // in this very turn
}

// appendJob is one MsgStorageAppend on its way through the store. It belongs to the store from Submit until Done, then to the
// worker again.
type appendJob struct {
	append      wal.Append
	hardState   wal.HardState
	group       *group
	entries     []*raftpb.Entry // the append's, as Raft has them; until it is submitted
	first, last id.Index        // of the entries; 0: none
	term        id.Term         // of the last entry
	lazy        bool            // that it is done can wait for the worker's next turn
	responses   []*raftpb.Message
}

// post is a MsgApp that waits for the submission of the entries in it.
type post struct {
	group   *group
	message *raftpb.Message
}
