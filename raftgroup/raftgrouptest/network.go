package raftgrouptest

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Receiver takes messages: a *raftgroup.Host.
type Receiver interface {
	Visit() raftgroup.Visit
	Step(from id.Node, g id.Group, m *raftpb.Message, data raftgroup.Loan)
}

// buffer is the data of a message's entries. At the last release it is overwritten, as a reuse of its memory would: whoever still
// looks at it finds something else.
type buffer struct {
	refs    atomic.Int32
	entries [][]byte
}

func newBuffer(m *raftpb.Message) *buffer {
	b := &buffer{}
	b.refs.Store(1)
	if m.GetType() == raftpb.MsgApp {
		for _, e := range m.GetEntries() {
			if e.GetType() == raftpb.EntryNormal {
				b.entries = append(b.entries, e.Data)
			}
		}
	}
	return b
}

// Retain implements raftgroup.Loan.
func (b *buffer) Retain() { b.refs.Add(1) }

// Release implements raftgroup.Loan.
func (b *buffer) Release() {
	if n := b.refs.Add(-1); n > 0 {
		return
	} else if n < 0 {
		panic("raftgrouptest: a message's data was released once too often")
	}
	for _, data := range b.entries {
		for i := range data {
			data[i] = 0xDB
		}
	}
}

// Faults is what a network does to messages. Probabilities are in [0, 1].
type Faults struct {
	Drop, Duplicate float64
	Delay           time.Duration // of each message, up to this, drawn for each: messages overtake each other
	// Lend has the data of entries that is lent kept by reference, as a lane's queue does, for up to this, and a few times twenty times as
	// long, before it is looked at. 0: it is copied at once.
	Lend time.Duration
}

// Network carries messages between nodes. The zero delay still delivers on a goroutine of the receiving node.
type Network struct {
	mu     sync.Mutex
	rng    *rand.Rand
	faults Faults
	nodes  map[id.Node]*mailbox
	cut    map[[2]id.Node]bool // from, to
	filter func(from, to id.Node, g id.Group, m *raftpb.Message) bool
	timers sync.WaitGroup
	closed bool
	lent   map[*lent]struct{}

	// Problem is told of lent data that changed. Set before the first message.
	Problem func(format string, args ...any)

	Sent, Dropped, Lent int // read after Close, or under no load
}

// lent is a message whose entries' data somebody else owns.
type lent struct {
	from, to id.Node
	group    id.Group
	message  *raftpb.Message
	sums     []uint32 // of the entries' data, as it was
	data     raftgroup.Loan
}

// Nowhere is the transport of a node that has nobody to talk to, or is not to be heard.
type Nowhere struct{}

// Send implements raftgroup.Transport.
func (Nowhere) Send(id.Node, id.Group, *raftpb.Message, raftgroup.Loan) {}

// Flush implements raftgroup.Transport.
func (Nowhere) Flush() {}

// NewNetwork returns a network without nodes whose faults follow from seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rng:     rand.New(rand.NewPCG(seed, seed)),
		nodes:   make(map[id.Node]*mailbox),
		Problem: func(format string, args ...any) { panic("raftgrouptest: " + fmt.Sprintf(format, args...)) },
		cut:     make(map[[2]id.Node]bool),
		lent:    make(map[*lent]struct{}),
	}
}

// Endpoint is one node's end of a Network: a raftgroup.Transport.
type Endpoint struct {
	network *Network
	node    id.Node
}

// Endpoint returns the transport of a node.
func (n *Network) Endpoint(node id.Node) *Endpoint { return &Endpoint{n, node} }

// Attach delivers what is sent to node to r, and Detach ends that and waits until no delivery is under way.
func (n *Network) Attach(node id.Node, r Receiver) {
	b := &mailbox{receiver: r, wake: make(chan struct{}, 1), done: make(chan struct{})}
	n.mu.Lock()
	n.nodes[node] = b
	n.mu.Unlock()
	go b.run()
}

// Detach takes a node off the network, and gives back what it has lent.
func (n *Network) Detach(node id.Node) {
	n.mu.Lock()
	b := n.nodes[node]
	delete(n.nodes, node)
	var given []*lent
	for l := range n.lent {
		if l.from == node {
			delete(n.lent, l)
			given = append(given, l)
		}
	}
	n.mu.Unlock()
	for _, l := range given {
		l.data.Release()
	}
	if b != nil {
		b.close()
	}
}

// Close detaches all nodes and waits for delayed messages.
func (n *Network) Close() {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.closed = true
	nodes := n.nodes
	n.nodes = map[id.Node]*mailbox{}
	n.mu.Unlock()
	n.timers.Wait()
	for _, b := range nodes {
		b.close()
	}
}

// SetFaults changes the faults.
func (n *Network) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// SetFilter has every message shown to keep, which says whether it goes on. It must not change it. nil ends that.
func (n *Network) SetFilter(keep func(from, to id.Node, g id.Group, m *raftpb.Message) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = keep
}

// Cut drops what from sends to to.
func (n *Network) Cut(from, to id.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]id.Node{from, to}] = true
}

// Isolate cuts a node off from all others, both ways.
func (n *Network) Isolate(node id.Node, others ...id.Node) {
	for _, o := range others {
		if o != node {
			n.Cut(node, o)
			n.Cut(o, node)
		}
	}
}

// Heal ends all cuts.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Flush implements raftgroup.Transport.
func (e *Endpoint) Flush() {}

// Send implements raftgroup.Transport.
func (e *Endpoint) Send(to id.Node, g id.Group, m *raftpb.Message, data raftgroup.Loan) {
	n := e.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Sent++
	if data != nil && n.faults.Lend > 0 && !n.closed && n.nodes[e.node] != nil {
		n.lend(e.node, to, g, m, data)
		return
	}
	n.pass(e.node, to, g, m)
}

// pass has a message go on its way, or not. n.mu is held.
func (n *Network) pass(from, to id.Node, g id.Group, m *raftpb.Message) {
	f := n.faults
	if n.closed || n.cut[[2]id.Node{from, to}] || f.Drop > 0 && n.rng.Float64() < f.Drop || n.filter != nil && !n.filter(from, to, g, m) {
		n.Dropped++
		return
	}
	n.deliver(from, to, g, m)
	if f.Duplicate > 0 && n.rng.Float64() < f.Duplicate {
		n.deliver(from, to, g, m)
	}
}

// lend keeps a message, with the data of its entries by reference, and passes it on later. n.mu is held.
func (n *Network) lend(from, to id.Node, g id.Group, m *raftpb.Message, data raftgroup.Loan) {
	l := &lent{from: from, to: to, group: g, message: CopyMessage(m), data: data}
	for i, e := range m.GetEntries() {
		l.message.Entries[i].Data = e.GetData()
		l.sums = append(l.sums, crc32.ChecksumIEEE(e.GetData()))
	}
	data.Retain()
	n.Lent++
	n.lent[l] = struct{}{}
	wait := time.Duration(n.rng.Int64N(int64(n.faults.Lend) + 1))
	if n.rng.IntN(50) == 0 {
		wait *= 20
	}
	n.timers.Add(1)
	time.AfterFunc(wait, func() {
		defer n.timers.Done()
		if n.look(l) {
			l.data.Release()
		}
	})
}

// look passes on what is lent, unless it was given back meanwhile.
func (n *Network) look(l *lent) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.lent[l]; !ok {
		return false
	}
	delete(n.lent, l)
	for i, e := range l.message.GetEntries() {
		if crc32.ChecksumIEEE(e.GetData()) != l.sums[i] {
			n.Problem("the data of entry %d of group %d changed while it was lent by node %d", e.GetIndex(), l.group, l.from)
			return true
		}
	}
	n.pass(l.from, l.to, l.group, l.message)
	return true
}

// deliver passes a copy on, at once or later. n.mu is held.
func (n *Network) deliver(from, to id.Node, g id.Group, m *raftpb.Message) {
	l := letter{from: from, group: g, message: CopyMessage(m)}
	if n.faults.Delay <= 0 {
		n.drop(to, l)
		return
	}
	n.timers.Add(1)
	time.AfterFunc(time.Duration(n.rng.Int64N(int64(n.faults.Delay)+1)), func() {
		defer n.timers.Done()
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.cut[[2]id.Node{from, to}] {
			n.drop(to, l)
		}
	})
}

// Inject delivers m as if from had sent it.
func (n *Network) Inject(from, to id.Node, g id.Group, m *raftpb.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(to, letter{from: from, group: g, message: CopyMessage(m)})
}

// drop puts a letter into a node's mailbox.
func (n *Network) drop(to id.Node, l letter) {
	b := n.nodes[to]
	if b == nil {
		n.Dropped++
		return
	}
	b.mu.Lock()
	b.letters = append(b.letters, l)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

type letter struct {
	from    id.Node
	group   id.Group
	message *raftpb.Message
}

// mailbox delivers a node's messages in order on one goroutine, joined by close.
type mailbox struct {
	receiver Receiver
	wake     chan struct{}
	done     chan struct{}

	mu      sync.Mutex
	letters []letter
	closed  bool
}

func (b *mailbox) run() {
	defer close(b.done)
	var letters []letter
	for range b.wake {
		b.mu.Lock()
		letters, b.letters = b.letters, letters[:0]
		closed := b.closed
		b.mu.Unlock()
		if closed {
			return
		}
		step, end := b.receiver.Step, func() {}
		if len(letters)%2 == 1 { // both ways to deliver
			visit := b.receiver.Visit()
			step, end = visit.Step, visit.End
		}
		for _, l := range letters {
			step(l.from, l.group, l.message, newBuffer(l.message))
		}
		end()
		clear(letters)
	}
}

func (b *mailbox) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	<-b.done
}

// CopyMessage returns a copy of m that shares nothing with it, as a codec makes one.
func CopyMessage(m *raftpb.Message) *raftpb.Message {
	type scalars struct {
		message                                                  raftpb.Message
		kind                                                     raftpb.MessageType
		to, from, term, logTerm, index, commit, vote, rejectHint uint64
		reject                                                   bool
	}
	s := &scalars{kind: m.GetType(), to: m.GetTo(), from: m.GetFrom(), term: m.GetTerm(), logTerm: m.GetLogTerm(),
		index: m.GetIndex(), commit: m.GetCommit(), vote: m.GetVote(), rejectHint: m.GetRejectHint(), reject: m.GetReject()}
	c := &s.message
	c.Type, c.To, c.From, c.Term, c.LogTerm = &s.kind, &s.to, &s.from, &s.term, &s.logTerm
	c.Index, c.Commit, c.Vote, c.RejectHint, c.Reject = &s.index, &s.commit, &s.vote, &s.rejectHint, &s.reject
	if len(m.GetContext()) > 0 {
		c.Context = append([]byte(nil), m.GetContext()...)
	}
	if m.Snapshot != nil {
		c.Snapshot = proto.Clone(m.Snapshot).(*raftpb.Snapshot)
	}
	copyEntries(c, m.GetEntries())
	return c
}

func copyEntries(c *raftpb.Message, entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	type entry struct {
		entry       raftpb.Entry
		index, term uint64
		kind        raftpb.EntryType
	}
	slab := make([]entry, len(entries))
	c.Entries = make([]*raftpb.Entry, len(entries))
	for i, e := range entries {
		s := &slab[i]
		s.index, s.term, s.kind = e.GetIndex(), e.GetTerm(), e.GetType()
		s.entry.Index, s.entry.Term, s.entry.Type = &s.index, &s.term, &s.kind
		if len(e.GetData()) > 0 {
			s.entry.Data = append([]byte(nil), e.GetData()...)
		}
		c.Entries[i] = &s.entry
	}
}
