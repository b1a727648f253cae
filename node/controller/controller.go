package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// producerBlock is how many producer ids a node takes at once.
const producerBlock = 1000

// Options are what a controller needs. All are required but Founding.
type Options struct {
	Node     id.Node
	Host     *raftgroup.Host
	Log      *wal.Log           // of this node's replica of the metadata group; see CreateLog
	Members  []raftgroup.Member // where the other replicas live, as far as it is known besides the table
	Replicas Replicas           // what the reconciler acts on
	Logger   *slog.Logger
	// VoterGrace is how long a voter may be away before a learner takes its place. 0: DefaultVoterGrace.
	VoterGrace time.Duration
	// Found, when not nil, founds the cluster: it is proposed as soon as this node leads, until it is applied.
	Found *placement.FoundCluster
	// Fatal is told of a metadata log that this release cannot follow: the node must stop.
	Fatal func(error)
}

// Controller is a node's replica of the metadata and what acts on it.
type Controller struct {
	node     id.Node
	logger   *slog.Logger
	metadata *Metadata
	group    *raftgroup.Group
	replicas Replicas
	found    *placement.FoundCluster

	voterGrace time.Duration

	producers struct {
		sync.Mutex
		next id.Producer
		left int
	}

	stop context.CancelFunc
	done sync.WaitGroup
}

// CreateLog makes this node's replica of the metadata log, with the configuration that the founder began with: the founder's
// replica alone. Every other replica follows as a learner and takes part once the group has added it.
func CreateLog(ctx context.Context, store *wal.Store, replica id.Replica) (*wal.Log, error) {
	return store.Create(ctx, wal.Spec{
		Group: id.MetadataGroup, Replica: replica, Name: id.TopicPartition{Topic: Topic}.String(),
		Start: Start, HardState: wal.HardState{Term: Start.Term, Commit: Start.Index},
		State: wal.State{Applied: Start.Index, ConfState: raftgroup.EncodeConfState([]id.Replica{placement.FoundingReplica}, nil)},
	})
}

// Open starts the metadata replica, the reconciler and the driver.
func Open(o Options) (*Controller, error) {
	metadata, err := newMetadata(o.Log, o.Logger, o.Fatal)
	if err != nil {
		return nil, err
	}
	members := o.Members
	for _, m := range metadata.Current().MetadataMembers() {
		members = append(members, raftgroup.Member(m))
	}
	hint := raftgroup.CampaignInTurn
	if o.Log.Replica() == placement.FoundingReplica {
		hint = raftgroup.CampaignPreferred
	}
	group, err := o.Host.Open(raftgroup.Spec{
		Group: id.MetadataGroup, Replica: o.Log.Replica(), Members: members, Log: o.Log, Machine: metadata, Campaign: hint,
		Vital: true, // topics are deleted by it, to make space
	})
	if err != nil {
		if errors.Is(err, wal.ErrCorrupt) || errors.Is(err, raftgroup.ErrUnusableLog) {
			err = fmt.Errorf("%w: %s", err, startAnew)
		}
		return nil, fmt.Errorf("cannot open the metadata group: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Controller{
		node: o.Node, logger: o.Logger, metadata: metadata, group: group, replicas: o.Replicas, found: o.Found, stop: stop,
		voterGrace: cmp.Or(o.VoterGrace, DefaultVoterGrace),
	}
	c.done.Go(func() { c.reconcile(ctx) })
	c.done.Go(func() { c.drive(ctx) })
	return c, nil
}

// Close stops reconciler and driver. The group is closed with its host.
func (c *Controller) Close() {
	c.stop()
	c.done.Wait()
}

// Group returns the metadata group.
func (c *Controller) Group() *raftgroup.Group { return c.group }

// View returns the metadata as this node knows it.
func (c *Controller) View() *placement.View { return c.metadata.Current() }

// Changed returns a channel that is closed when the view, or the group's leader, changes after the call.
func (c *Controller) Changed() <-chan struct{} { return c.metadata.Changed() }

// Leader returns the node that leads the metadata, id.NoNode if none is known.
func (c *Controller) Leader() id.Node {
	_, n, _ := c.group.Leader()
	return n
}

// Await blocks until the view fulfils the condition, or ctx ends.
func (c *Controller) Await(ctx context.Context, condition func(*placement.View) bool) error {
	for {
		changed := c.Changed()
		if condition(c.View()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// bootstrap proposes the first command of the cluster until it is applied, whoever proposed it.
func (c *Controller) bootstrap(ctx context.Context) {
	if c.found == nil || c.View().ClusterID() != "" {
		return
	}
	_, err := c.Propose(ctx, *c.found)
	if err != nil && !errors.Is(err, placement.ErrFounded) {
		c.logger.Warn("founding the cluster failed; it is tried again", "reason", err)
	}
}
