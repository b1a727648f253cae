package raftgrouptest

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

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

	Sent, Dropped int // read after Close, or under no load
}

// NewNetwork returns a network without nodes whose faults follow from seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(seed, seed)),
		nodes: make(map[id.Node]*mailbox),
		cut:   make(map[[2]id.Node]bool),
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

// Detach takes a node off the network.
func (n *Network) Detach(node id.Node) {
	n.mu.Lock()
	b := n.nodes[node]
	delete(n.nodes, node)
	n.mu.Unlock()
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
func (e *Endpoint) Send(to id.Node, g id.Group, m *raftpb.Message, _ raftgroup.Loan) {
	n := e.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Sent++
	f := n.faults
	if n.closed || n.cut[[2]id.Node{e.node, to}] || f.Drop > 0 && n.rng.Float64() < f.Drop ||
		n.filter != nil && !n.filter(e.node, to, g, m) {
		n.Dropped++
		return
	}
	n.deliver(e.node, to, g, m)
	if f.Duplicate > 0 && n.rng.Float64() < f.Duplicate {
		n.deliver(e.node, to, g, m)
	}
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
