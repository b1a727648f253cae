package rpc

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Lane is the number of a lane between two nodes: LaneCtl, or a bulk lane from 1 up.
type Lane uint8

// LaneCtl carries heartbeats, votes, responses and reads. It never waits behind data.
const LaneCtl Lane = 0

// Health is what a node says of itself with each hello and ping of a control lane, and at once when it changes. What the numbers mean is up
// to the nodes; 0 is "well".
type Health uint8

// PeerOptions are the settings of Peers.
type PeerOptions struct {
	Self PeerHello
	// Resolve returns where a node may be, the likeliest address first. Called at each dial: after a failure the next one is tried.
	Resolve func(id.Node) []string
	// Down is called once when a node's control lane is lost, Up once when it works (again). On a goroutine of Peers, in
	// order for each node; they must not block for long and not call Close.
	Down, Up func(id.Node)
	// Refused, when not nil, is told that a node refuses this one because its identity is another process's. It is one node's word: true,
	// or not, or no longer. On a goroutine of Peers; it must not block.
	Refused func(by id.Node, err error)
	// Dropped, when not nil, is called for each message that found its queue full or its lane down, or is none for a node of an older
	// release. On the goroutine of Send.
	Dropped func(to id.Node, g id.Group, m *raftpb.Message)
	// SnapshotsLost, when not nil, is told that each MsgSnap for a node that was not dropped may be lost nevertheless: its lane broke. On a
	// goroutine of Peers; it must not block.
	SnapshotsLost func(to id.Node)
	// Teller, when not nil, has what each node is told on its control lane.
	Teller Teller
	Dialer *Dialer
	Logger *slog.Logger

	BulkLanes           int           // 2
	CtlBytes, BulkBytes int           // bounds of a lane's queue: 1 MiB, 32 MiB
	Ping                time.Duration // of the control lane, 300 ms. Five of them without a sign of life break it
}

func (o PeerOptions) withDefaults() PeerOptions {
	o.Self = o.Self.withDefaults()
	if o.Self.Session == 0 {
		o.Self.Session = rand.Uint64()
	}
	if o.Dialer == nil {
		o.Dialer = &Dialer{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BulkLanes <= 0 {
		o.BulkLanes = 2
	}
	if o.CtlBytes <= 0 {
		o.CtlBytes = 1 << 20
	}
	if o.BulkBytes <= 0 {
		o.BulkBytes = 32 << 20
	}
	if o.Ping <= 0 {
		o.Ping = 300 * time.Millisecond
	}
	return o
}

// Peers holds the lanes from this node to all others: for each one control lane, and a few bulk lanes among which the groups
// are divided.
//
//	ctl    heartbeats, votes, read-index, responses to appends
//	bulk   MsgApp and MsgSnap of the groups with group % BulkLanes == lane-1
//
// An empty MsgApp, which only moves the commit index, goes with the full ones: ahead of them it would be refused for the gap
// that they are about to fill, and the leader would send everything in flight again.
type Peers struct {
	o      PeerOptions
	byNode atomic.Pointer[map[id.Node]*peer] // replaced under mu, never changed
	wg     sync.WaitGroup
	health atomic.Uint32

	mu struct {
		sync.Mutex
		closed bool
	}
	counts struct {
		messages, bytes, trains, dropped, unencodable, connects, breaks atomic.Uint64
	}
	complain sync.Once
}

// NewPeers returns Peers without any lane: lanes are opened by the first Send or Reset of a node.
func NewPeers(o PeerOptions) (*Peers, error) {
	if o.Resolve == nil {
		return nil, kerr.Errorf(kerr.InvalidRequest, "rpc: PeerOptions.Resolve is missing")
	}
	p := &Peers{o: o.withDefaults()}
	p.byNode.Store(&map[id.Node]*peer{})
	return p, nil
}

// peer returns the lanes to a node and opens them the first time; nil after Close, and for this node itself.
func (p *Peers) peer(n id.Node) *peer {
	if found := (*p.byNode.Load())[n]; found != nil {
		return found
	}
	if n == p.o.Self.Node {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := (*p.byNode.Load())[n]; found != nil || p.mu.closed {
		return found
	}
	fresh := &peer{peers: p, node: n}
	fresh.ctx, fresh.cancel = context.WithCancel(context.Background())
	fresh.ctl = newLane(fresh, LaneCtl, p.o.CtlBytes, p.o.Ping)
	for i := range p.o.BulkLanes {
		fresh.bulk = append(fresh.bulk, newLane(fresh, Lane(i+1), p.o.BulkBytes, bulkPing*p.o.Ping))
	}
	next := maps.Clone(*p.byNode.Load())
	next[n] = fresh
	p.byNode.Store(&next)
	p.wg.Go(fresh.ctl.run)
	for _, b := range fresh.bulk {
		p.wg.Go(b.run)
	}
	return fresh
}

// Send packs m into the queue of its lane before it returns. It never blocks; beyond the queue's bound, or while the node
// cannot be reached, m is dropped and counted. Nothing leaves before Flush. Any goroutine.
//
// Data, when not nil, keeps the data of m's entries: Send takes a reference of its own and gives it back when it is written.
func (p *Peers) Send(to id.Node, g id.Group, m *raftpb.Message, data Loan) {
	size, ok := messageSize(m)
	if !ok {
		p.counts.unencodable.Add(1)
		p.complain.Do(func() {
			p.o.Logger.Error("a Raft message has no place on the wire: too large, or of a local type; dropped, as will be others of its kind",
				"type", m.GetType().String(), "bytes", size, "group", uint64(g))
		})
		return
	}
	target := p.peer(to)
	if target == nil {
		return
	}
	l := target.ctl
	if t := m.GetType(); t == raftpb.MsgApp || t == raftpb.MsgSnap {
		l = target.bulk[uint64(g)%uint64(len(target.bulk))]
	}
	if !l.put(size, g, m, data) {
		p.counts.dropped.Add(1)
		if p.o.Dropped != nil {
			p.o.Dropped(to, g, m)
		}
		return
	}
	p.counts.messages.Add(1)
}

// Flush has written what lanes got since the last Flush: a little of it at once, where that is possible without waiting, and the
// rest by the lanes' own goroutines. Any goroutine.
func (p *Peers) Flush() {
	for _, target := range *p.byNode.Load() {
		target.ctl.flush()
		for _, b := range target.bulk {
			b.flush()
		}
	}
}

// Reset opens the lanes to a node, at once if they were waiting to try again. For when gossip says that it lives, or it has
// dialed us.
func (p *Peers) Reset(n id.Node) {
	target := p.peer(n)
	if target == nil {
		return
	}
	target.ctl.kickNow()
	for _, b := range target.bulk {
		b.kickNow()
	}
}

// SetHealth has all nodes told what this one says of itself from now on.
func (p *Peers) SetHealth(h Health) {
	if p.health.Swap(uint32(h)) == uint32(h) {
		return
	}
	for _, target := range *p.byNode.Load() { // one that is added now says it in its hello
		select {
		case target.ctl.news <- struct{}{}:
		default:
		}
	}
}

// Tell has all nodes told what the Teller has, in a moment: changes gather meanwhile. It never blocks. Any goroutine.
func (p *Peers) Tell() {
	for _, target := range *p.byNode.Load() {
		target.ctl.tale.wake()
	}
}

// Lost says that the node's own control lane to us broke. A node that died closes both lanes at the same moment, so ours
// mostly knows; where it was never open, Down is reported now, and otherwise the node is asked for a sign of life. It is not
// closed for that: each side would take the other's closing for a reason to close again.
func (p *Peers) Lost(n id.Node) {
	target := p.peer(n)
	if target == nil {
		return
	}
	select {
	case target.ctl.notice <- struct{}{}:
	default:
	}
}

// Remove closes the lanes to a node that has left the cluster, without a report.
func (p *Peers) Remove(n id.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := (*p.byNode.Load())[n]
	if old == nil {
		return
	}
	next := maps.Clone(*p.byNode.Load())
	delete(next, n)
	p.byNode.Store(&next)
	old.close()
}

// Close closes all lanes and waits for their goroutines. What is queued is dropped.
func (p *Peers) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	all := *p.byNode.Load()
	p.byNode.Store(&map[id.Node]*peer{})
	p.mu.Unlock()
	for _, target := range all {
		target.close()
	}
	p.wg.Wait()
	return nil
}

// PeerMetrics counts what the lanes have done since the start.
type PeerMetrics struct {
	Messages, Bytes, Trains uint64 // Raft messages queued; bytes and drpc messages written
	Dropped                 uint64 // Raft messages that found a full queue or a lane that was down
	Unencodable             uint64 // Raft messages that have no place on the wire (a bug above)
	Connects, Breaks        uint64
}

// Metrics returns the counts.
func (p *Peers) Metrics() PeerMetrics {
	c := &p.counts
	return PeerMetrics{
		Messages: c.messages.Load(), Bytes: c.bytes.Load(), Trains: c.trains.Load(),
		Dropped: c.dropped.Load(), Unencodable: c.unencodable.Load(),
		Connects: c.connects.Load(), Breaks: c.breaks.Load(),
	}
}
