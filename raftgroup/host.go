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

// Host runs the replicas of one node.
type Host struct {
	env
	workers []*worker
	refuser *refuser

	hearsay        hearsay
	round          *round // the store's goroutine's
	droppedUnknown atomic.Uint64
	droppedInvalid atomic.Uint64

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
	h := &Host{groups: make(map[id.Group]*Group)}
	h.o = o
	h.round = &round{env: &h.env, jobs: make([]completed, o.Workers)}
	h.stored, h.read, h.refuse = h.round.stored, h.readDone, h.refusalOf
	h.readID.Store(randomUint64())
	h.readers.run(o.Readers)
	h.refuser = newRefuser()
	h.disk.judge(&h.o, time.Now())
	for i := range o.Workers {
		w := newWorker(&h.env, i)
		h.workers = append(h.workers, w)
		go w.run()
	}
	o.Store.SetCutTaker(func(l *wal.Log) { h.cut(l, l.Group(), l.Replica()) })
	h.round.workers = h.workers
	o.Store.SetRoundDone(h.round.end)
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
	g := h.newGroup(s)
	if err := h.reserve(g.id); err != nil {
		return nil, err
	}
	if err := g.boot(s); err != nil {
		h.publish(g.id, nil)
		return nil, err
	}
	started := make(chan struct{})
	if !g.w.post(event{kind: evCall, call: func() { g.w.add(&g.group, s.Campaign); close(started) }}) {
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

func (h *Host) newGroup(s Spec) *Group {
	g := &Group{}
	g.worker = int(mix(uint64(s.Group)) % uint64(len(h.workers)))
	g.w = h.workers[g.worker]
	g.report = func(err error) { h.o.OnGroupFailed(g, err) }
	g.init(&h.env, &g.w.turn, s)
	return g
}

// mix spreads group ids, which are given out in sequence, over the workers.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// readDone brings a read for lagging followers back.
func (h *Host) readDone(g *group, w *readWindow) {
	h.workers[g.worker].post(event{kind: evRead, group: g, read: w})
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
	if !g.w.post(event{kind: evCall, call: func() { g.w.remove(&g.group) }}) {
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
		w.post(event{kind: evCall, call: func() { w.nodeDown(n) }})
	}
}

// NodeUp takes NodeDown back.
func (h *Host) NodeUp(n id.Node) {
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func() { w.nodeUp(n) }})
	}
}

// SnapshotLost tells that a message with a snapshot (raftpb.MsgSnap) for a replica could not be sent, and SnapshotsLost that all those for a
// node may be lost. A false alarm has them sent again.
func (h *Host) SnapshotLost(g id.Group, to id.Replica) {
	if g := h.Group(g); g != nil {
		g.post(func() { g.snapshotLost(to) })
	}
}

// SnapshotsLost: see SnapshotLost.
func (h *Host) SnapshotsLost(n id.Node) {
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func() { w.snapshotsLost(n) }})
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
	if g != nil && g.replica == r && g.w.post(event{kind: evCut, group: &g.group}) {
		return
	}
	if l != nil {
		l.DeclineCut()
	}
}

// Metrics returns the counters since New.
func (h *Host) Metrics() Metrics {
	m := Metrics{
		UncommittedBytes: h.pendingBytes.Load(),
		DiskReads:        h.readers.reads.Load(),
		DiskReadBytes:    h.readers.bytes.Load(),
	}
	h.mu.RLock()
	m.Groups = len(h.groups)
	h.mu.RUnlock()
	for _, w := range h.workers {
		w.n.addTo(&m)
	}
	m.DroppedUnknown += h.droppedUnknown.Load()
	m.DroppedInvalid += h.droppedInvalid.Load()
	return m
}

// refusalOf has a replica's refusal stored, and the replica failed then.
func (h *Host) refusalOf(g *group, cause error) {
	h.refuser.add(refusal{group: g, cause: cause, stored: func() {
		h.workers[g.worker].post(event{kind: evCall, call: func() { g.fail(Refused, cause) }})
	}})
}
