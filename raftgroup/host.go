package raftgroup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// CampaignHint says when a replica that is opened campaigns, if it does not hear of a leader.
type CampaignHint uint8

// Hints.
const (
	// CampaignInTurn waits until a leader would have been heard, and for those who come before it. In a group that is new it waits longer.
	CampaignInTurn CampaignHint = iota
	// CampaignPreferred has the replica campaign at once, and again until there is a leader: a new group is led in a fraction of a second,
	// though other members may not be open yet.
	CampaignPreferred
)

// Member says where a replica lives.
type Member struct {
	Replica id.Replica
	Node    id.Node
}

// Spec describes a replica to be opened.
type Spec struct {
	Group   id.Group
	Replica id.Replica
	// Members says where the other members live, in the same order everywhere: when a leader's node fails, the first that is
	// left campaigns first. Voters and learners are what the log's State.ConfState says; when that is empty all Members are
	// voters.
	Members []Member
	Log     Log
	Machine Machine
	// MinInSync is min.insync.replicas; 0 is 1.
	MinInSync int
	Campaign  CampaignHint
	// Vital says that the group goes on on a disk that is full, so that space can be made: it has little to store.
	Vital bool
}

// Host runs the replicas of one node.
type Host struct {
	o       Options
	workers []*worker
	readers readers
	refuser *refuser

	condition      condition
	draining       atomic.Bool  // takes no leaderships any more
	answered       answered     // the store's goroutine's
	pendingBytes   atomic.Int64 // proposed and not applied, all groups
	droppedUnknown atomic.Uint64
	droppedInvalid atomic.Uint64
	readID         atomic.Uint64 // of the last ReadIndex

	mu     sync.RWMutex        // guards what follows; never held across a call out of the package
	groups map[id.Group]*Group // nil while it is being opened
	closed bool
}

// New starts a host without replicas.
func New(o Options) (*Host, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Host{o: o, groups: make(map[id.Group]*Group)}
	h.readID.Store(randomUint64())
	h.readers.run(o.Readers)
	h.refuser = newRefuser()
	h.answered.jobs = make([]completed, o.Workers)
	h.judge(time.Now())
	for i := range o.Workers {
		w := newWorker(h, i)
		h.workers = append(h.workers, w)
		go w.run()
	}
	o.Store.SetCutTaker(func(l *wal.Log) { h.cut(l, l.Group(), l.Replica()) })
	o.Store.SetRoundDone(h.roundDone)
	return h, nil
}

// Close stops all replicas, with a last cut of each, and waits for the workers. What waits ends with ErrClosed. The store is
// closed after it.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	h.o.Store.SetCutTaker(nil)
	for _, w := range h.workers {
		close(w.stop)
	}
	for _, w := range h.workers {
		<-w.done
	}
	h.readers.close()
	h.refuser.close()
	return nil
}

// Group returns the open replica of a group, or nil.
func (h *Host) Group(g id.Group) *Group {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.groups[g]
}

// Open starts a replica: what its log has above State.Applied is given to Machine.Append before Open returns, and what of it
// is committed is applied soon after. It may read the disk. The log and the machine belong to the group until CloseGroup
// returns.
func (h *Host) Open(s Spec) (*Group, error) {
	if s.Log == nil || s.Machine == nil {
		return nil, errors.New("raftgroup: a Spec needs a Log and a Machine")
	}
	if !ordinaryReplica(uint64(s.Replica)) || s.Log.Replica() != s.Replica || s.Log.Group() != s.Group {
		return nil, fmt.Errorf("raftgroup: replica %d of group %d cannot run on the log of replica %d of group %d",
			s.Replica, s.Group, s.Log.Replica(), s.Log.Group())
	}
	g := newGroup(h, s)
	if err := h.reserve(g.id); err != nil {
		return nil, err
	}
	if err := g.boot(s); err != nil {
		h.publish(g.id, nil)
		return nil, err
	}
	started := make(chan struct{})
	if !g.w.post(event{kind: evCall, call: func(w *worker) { w.add(g, s.Campaign); close(started) }}) {
		h.publish(g.id, nil)
		return nil, ErrClosed
	}
	h.publish(g.id, g) // after the post: whatever comes for the group finds it added
	select {
	case <-started:
		return g, nil
	case <-g.w.done:
		return nil, ErrClosed
	}
}

// reserve keeps the place of a group that is being opened.
func (h *Host) reserve(g id.Group) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	if _, ok := h.groups[g]; ok {
		return fmt.Errorf("group %d: %w", g, ErrExists)
	}
	h.groups[g] = nil
	return nil
}

// publish makes a group known, or with nil gives its place up.
func (h *Host) publish(gid id.Group, g *Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g == nil {
		delete(h.groups, gid)
		return
	}
	h.groups[gid] = g
}

// CloseGroup stops a replica and waits until the store has completed what was submitted for it, so that its log can be
// deleted. Whatever waits ends with ErrClosed.
func (h *Host) CloseGroup(ctx context.Context, g *Group) error {
	h.mu.Lock()
	if h.groups[g.id] == g {
		delete(h.groups, g.id)
	}
	h.mu.Unlock()
	if !g.w.post(event{kind: evCall, call: func(w *worker) { w.remove(g) }}) {
		return nil
	}
	select {
	case <-g.idle:
		return nil
	case <-g.w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NodeDown tells that a node cannot be reached: groups that it led, or that have no leader, elect a new one without waiting
// for their timers. A false alarm does no harm.
func (h *Host) NodeDown(n id.Node) {
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func(w *worker) { w.nodeDown(n) }})
	}
}

// NodeUp takes NodeDown back.
func (h *Host) NodeUp(n id.Node) {
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func(w *worker) { w.nodeUp(n) }})
	}
}

// Drain has the host's replicas decline to lead from now on: the node hands over what it leads, and stops.
func (h *Host) Drain() { h.draining.Store(true) }

// Cut asks the replica's worker to take a cut of its log soon.
func (h *Host) Cut(g id.Group, r id.Replica) { h.cut(nil, g, r) }

// cut passes the request on. A log whose replica is not open, or not any more, has no owner: nothing can have changed since its last
// cut, so that one stands.
func (h *Host) cut(l Log, gid id.Group, r id.Replica) {
	g := h.Group(gid)
	if g != nil && g.replica == r && g.w.post(event{kind: evCut, group: g}) {
		return
	}
	if l != nil {
		l.DeclineCut()
	}
}
