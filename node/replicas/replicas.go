package replicas

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/node/retention"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Set is the replicas that a node holds. The controller's reconciler opens and deletes them (controller.Replicas); all else may be called by
// anyone.
type Set struct {
	node   id.Node
	stores *Stores
	host   *raftgroup.Host
	tell   *leaders.Table // what the replicas know of who leads
	logger *slog.Logger
	limits partition.Limits

	logs map[id.Group]*wal.Log // the reconciler's goroutine's: what is on the disk

	mu          sync.RWMutex
	refused     map[id.Group]wal.Refusal
	offline     map[id.Group]offline
	byPartition map[partitionKey]*partition.Partition
	byGroup     map[id.Group]*partition.Partition
}

// offline is a replica whose data directory failed, or is missing: it takes part in nothing until a start with that.
type offline struct {
	replica id.Replica
	dir     string
}

// mostProducers is how many idempotent producers the partitions of a node remember together: 240 MB.
const mostProducers = 1_000_000

type partitionKey struct {
	topic     id.Topic
	partition id.Partition
}

// New returns the set for what is in the store, of which nothing is open yet. The metadata's replica is not part of it. view returns the
// metadata as this node knows it.
func New(node id.Node, stores *Stores, host *raftgroup.Host, tell *leaders.Table, logger *slog.Logger, view func() *placement.View) *Set {
	r := &Set{
		node: node, stores: stores, host: host, tell: tell, logger: logger,
		limits: partition.Limits{
			Budget: &partition.Budget{Most: mostProducers}, Internal: placement.IsInternal, Trims: &partition.Trims{},
			Next:    func() id.Producer { return view().NextProducer() },
			MayTrim: func() error { return view().MayMoveLogStarts() },
		},
		logs: make(map[id.Group]*wal.Log), refused: make(map[id.Group]wal.Refusal), offline: make(map[id.Group]offline),
		byPartition: make(map[partitionKey]*partition.Partition), byGroup: make(map[id.Group]*partition.Partition),
	}
	for _, l := range stores.Logs() {
		if l.Group() != id.MetadataGroup {
			r.logs[l.Group()] = l
		}
	}
	for _, refusal := range stores.Refused() {
		r.refused[refusal.Group] = refusal
	}
	return r
}

// Find returns the open replica of a partition, or nil.
func (r *Set) Find(topic id.Topic, p id.Partition) *partition.Partition {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byPartition[partitionKey{topic, p}]
}

// Group returns the open replica of a group, or nil.
func (r *Set) Group(g id.Group) *partition.Partition {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byGroup[g]
}

// All returns the open replicas, in no order.
func (r *Set) All() []*partition.Partition {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*partition.Partition, 0, len(r.byGroup))
	for _, p := range r.byGroup {
		list = append(list, p)
	}
	return list
}

// Trims is what the replicas did about their log starts.
func (r *Set) Trims() *partition.Trims { return r.limits.Trims }

// Held implements controller.Replicas.
func (r *Set) Held() map[id.Group]id.Replica {
	held := make(map[id.Group]id.Replica, len(r.logs))
	for g, l := range r.logs {
		held[g] = l.Replica()
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for g, refusal := range r.refused {
		held[g] = refusal.Replica
	}
	for g, o := range r.offline { // some only may be; to delete one that is not there ends that it is counted
		if _, ok := held[g]; !ok {
			held[g] = o.replica
		}
	}
	return held
}

// IsRefused tells whether this node's replica of a group is refused, by recovery or since.
func (r *Set) IsRefused(g id.Group) bool {
	_, ok := r.Refusal(g)
	return ok
}

// Open implements controller.Replicas.
func (r *Set) Open(ctx context.Context, p placement.Placement) error {
	if open := r.Group(p.Group); open != nil {
		return r.Change(ctx, p)
	}
	if r.IsRefused(p.Group) {
		return nil // that was said; it must not come back under this replica id
	}
	log, err := r.log(ctx, p)
	if errors.Is(err, errMayBeMissing) {
		r.takeOffline(p.Group, offline{p.Replica, r.stores.Missing()})
		return nil
	}
	if errors.Is(err, wal.ErrDeleted) { // the metadata, which begins with its last checkpoint, will come to that
		r.logger.Info("a replica that was deleted here is not made again: the metadata is not as far as its deletion yet",
			"partition", p.TopicPartition(), "replica", p.Replica)
		return nil
	}
	if err != nil {
		return err
	}
	if log.Store().Err() != nil {
		r.takeOffline(p.Group, offline{p.Replica, log.Store().Dir()})
		return nil // that was said; another start may bring it back, under this replica id or none
	}
	log.SetSegmentBytes(p.Config.SegmentBytes) // both the topic's and the node's may be others than when the log was made
	opened, err := partition.New(log, p.TopicPartition(), configOf(p), r.limits)
	if errors.Is(err, envelope.ErrUnknown) { // nothing is lost: the release that stored it can open it
		return fmt.Errorf("cannot restore the state of its last checkpoint: %w", err)
	}
	if err != nil { // it will not be another time: waiting for it would keep the node from becoming ready
		return r.Refuse(ctx, log, fmt.Sprintf("the state of its last checkpoint cannot be read: %v", err))
	}
	hint := raftgroup.CampaignInTurn
	if p.Members[0].Node == r.node {
		hint = raftgroup.CampaignPreferred
	}
	group, err := r.host.Open(raftgroup.Spec{
		Group: p.Group, Replica: p.Replica, Members: membersOf(p.Members), Log: log, Machine: telling{opened, p.Group, r.tell},
		MinInSync: p.Config.MinInSyncReplicas, Campaign: hint,
	})
	if err != nil {
		opened.Release()
	}
	if errors.Is(err, wal.ErrCorrupt) || errors.Is(err, raftgroup.ErrUnusableLog) {
		return r.Refuse(ctx, log, fmt.Sprintf("its log cannot be used: %v", err))
	}
	if err != nil {
		return fmt.Errorf("cannot open the Raft group: %w", err)
	}
	opened.Attach(group)
	r.mu.Lock()
	r.byPartition[partitionKey{p.Topic, p.Partition}] = opened
	r.byGroup[p.Group] = opened
	r.mu.Unlock()
	if cause := log.Store().Err(); cause != nil { // StoreFailed may have looked before it was there
		r.stop(opened, cause)
	}
	return nil
}

// StoreFailed stops the replicas of a store that completes nothing any more. Others lead and serve their partitions.
func (r *Set) StoreFailed(store *wal.Store) (stopped int) {
	for _, p := range r.All() {
		if storeOf(p) == store {
			r.stop(p, store.Err())
			stopped++
		}
	}
	return stopped
}

func (r *Set) stop(p *partition.Partition, cause error) {
	g := p.Group()
	r.mu.Lock()
	if r.byGroup[g.ID()] == p { // else it is being deleted, and would be counted for ever
		r.offline[g.ID()] = offline{g.Log().(*wal.Log).Replica(), storeOf(p).Dir()}
	}
	r.mu.Unlock()
	g.Stop(fmt.Errorf("its data directory failed: %w", cause))
}

func (r *Set) takeOffline(g id.Group, o offline) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offline[g] = o
}

// IsOffline tells whether the data directory of this node's replica of a group failed, or may be one that is missing.
func (r *Set) IsOffline(g id.Group) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.offline[g]
	return ok
}

// OfflineIn is how many of the replicas in a data directory are offline; those of all that are missing count together: see Stores.Missing.
func (r *Set) OfflineIn(dir string) (count int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, o := range r.offline {
		if o.dir == dir {
			count++
		}
	}
	return count
}

// OfflineCount is how many replicas are offline.
func (r *Set) OfflineCount() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.offline)
}

func storeOf(p *partition.Partition) *wal.Store { return p.Group().Log().(*wal.Log).Store() }

// telling is a partition whose worker tells the node's table who leads.
type telling struct {
	*partition.Partition
	id    id.Group
	table *leaders.Table
}

// Leader implements raftgroup.Machine.
func (m telling) Leader(l raftgroup.LeaderChange) {
	m.table.Leads(m.id, l.Node, l.Term) // first: who wakes asks it
	m.Partition.Leader(l)
}

// InSync implements raftgroup.Machine.
func (m telling) InSync(s raftgroup.InSync) { m.table.InSync(m.id, s.Term, s.Nodes, s.Lagging) }

// Refuse takes a replica out for good. Whether its group is open and stops is the caller's business.
func (r *Set) Refuse(ctx context.Context, log *wal.Log, reason string) error {
	if err := log.Refuse(ctx, reason); err != nil {
		return fmt.Errorf("cannot refuse a replica: %w", err)
	}
	r.NoteRefused(wal.Refusal{Group: log.Group(), Replica: log.Replica(), Name: log.Name(), Reason: reason})
	return nil
}

// NoteRefused takes note of a refusal that is durable.
func (r *Set) NoteRefused(refusal wal.Refusal) {
	r.mu.Lock()
	known, ok := r.refused[refusal.Group]
	r.refused[refusal.Group] = refusal
	r.mu.Unlock()
	if !ok || known.Replica != refusal.Replica {
		LogRefusal(r.logger, refusal)
	}
}

// Refusal returns why this node's replica of a group is refused, if it is.
func (r *Set) Refusal(g id.Group) (wal.Refusal, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	refusal, ok := r.refused[g]
	return refusal, ok
}

// LogRefusal says what a refusal means: the other replicas have everything, and this one does not come back.
func LogRefusal(logger *slog.Logger, r wal.Refusal) {
	logger.Error("a replica is refused, for good: it cannot vouch for its log. The others serve its partition, which has one copy less; check the disk",
		"partition", r.Name, "replica", r.Replica, "reason", r.Reason)
}

// RefusedCount is how many replicas are refused.
func (r *Set) RefusedCount() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.refused)
}

// log returns the replica's log, created if it is new.
func (r *Set) log(ctx context.Context, p placement.Placement) (*wal.Log, error) {
	if log := r.logs[p.Group]; log != nil {
		if log.Replica() != p.Replica {
			return nil, fmt.Errorf("the data directory has replica %d of group %d, the metadata wants replica %d", log.Replica(), p.Group, p.Replica)
		}
		return log, nil
	}
	voters := make([]id.Replica, len(p.Members))
	for i, m := range p.Members {
		voters[i] = m.Replica
	}
	// Not from 0: see controller.Start. All members of a new group begin with the same entry, as if it had been a snapshot.
	start := wal.Start{Index: 1, Term: 1}
	log, err := r.stores.Create(ctx, wal.Spec{
		Group: p.Group, Replica: p.Replica, Name: p.TopicPartition().String(), Topic: p.Topic, Start: start,
		HardState: wal.HardState{Term: start.Term, Commit: start.Index},
		State:     wal.State{Applied: start.Index, ConfState: raftgroup.EncodeConfState(voters, nil)},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot create the log: %w", err)
	}
	r.logs[p.Group] = log
	return log, nil
}

// Change implements controller.Replicas.
func (r *Set) Change(_ context.Context, p placement.Placement) error {
	open := r.Group(p.Group)
	if open == nil {
		return nil
	}
	open.SetConfig(configOf(p))
	r.logs[p.Group].SetSegmentBytes(p.Config.SegmentBytes)
	open.Group().AddMembers(membersOf(p.Members)...)
	return nil
}

// Delete implements controller.Replicas.
func (r *Set) Delete(ctx context.Context, g id.Group, replica id.Replica) error {
	if open := r.Group(g); open != nil {
		r.mu.Lock()
		delete(r.byGroup, g)
		delete(r.byPartition, partitionKey{open.Topic, open.Partition})
		r.mu.Unlock()
		open.Close()
		if storeOf(open).Err() != nil { // what is in flight never ends
			gone, cancel := context.WithCancel(ctx)
			cancel()
			_ = r.host.CloseGroup(gone, open.Group())
		} else if err := r.host.CloseGroup(ctx, open.Group()); err != nil {
			return fmt.Errorf("cannot close the Raft group: %w", err)
		}
		r.tell.Gone(g)
		open.Release()
	}
	if log := r.logs[g]; log != nil && log.Replica() == replica {
		if log.Store().Err() != nil {
			r.logger.Warn("a replica is deleted when its data directory is back and the node is started again", "partition", log.Name(), "replica", replica,
				"data_dir", log.Store().Dir())
			r.mu.Lock()
			delete(r.offline, g)
			r.mu.Unlock()
			return nil
		}
		if err := log.Store().Delete(ctx, log); err != nil {
			return fmt.Errorf("cannot delete the log: %w", err)
		}
		delete(r.logs, g)
		r.logger.Info("replica deleted", "partition", log.Name(), "replica", replica)
	}
	r.mu.Lock()
	delete(r.offline, g) // one in a directory that is missing is deleted when that is back
	r.mu.Unlock()
	return r.deleteRefused(ctx, g, replica)
}

func (r *Set) deleteRefused(ctx context.Context, g id.Group, replica id.Replica) error {
	r.mu.RLock()
	refusal, ok := r.refused[g]
	r.mu.RUnlock()
	if !ok || refusal.Replica != replica {
		return nil
	}
	for _, store := range r.stores.Working() { // those that do not have it have nothing to do
		if err := store.DeleteRefused(ctx, refusal); err != nil {
			return fmt.Errorf("cannot delete a refused replica: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.refused, g)
	return nil
}

func configOf(p placement.Placement) partition.Config {
	c := &p.Config
	return partition.Config{
		MaxMessageBytes: c.MaxMessageBytes, MinInSync: c.MinInSyncReplicas,
		Retention: retention.Limits{MS: c.RetentionMS, Bytes: c.RetentionBytes}, SegmentMS: c.SegmentMS,
		TimestampBeforeMS: c.TimestampBeforeMS, TimestampAfterMS: c.TimestampAfterMS,
	}
}

func membersOf(members []placement.Member) []raftgroup.Member {
	list := make([]raftgroup.Member, len(members))
	for i, m := range members {
		list[i] = raftgroup.Member(m)
	}
	return list
}
