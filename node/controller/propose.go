package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// NotControllerError says that this node does not lead the metadata, and who does as far as it knows.
type NotControllerError struct{ Leader id.Node }

// Error implements error.
func (e *NotControllerError) Error() string {
	if e.Leader == id.NoNode {
		return "the metadata group has no leader at the moment: more than half of its voters must be up"
	}
	return fmt.Sprintf("this node is not the controller, node %d is", e.Leader)
}

// Propose brings a command into the metadata log and returns what applying it returned: the result that the command's type
// names, or a *placement.Refusal. It works on the node that leads the group; elsewhere it fails with a *NotControllerError and
// nothing is proposed. When ctx ends first, whether the command takes effect is not known.
func (c *Controller) Propose(ctx context.Context, command placement.Command) (any, error) {
	return c.ProposeFrom(ctx, func(*placement.View) (placement.Command, error) { return command, nil })
}

// ProposeFrom is Propose for a command that is made from the leader's view. Nothing is made elsewhere.
func (c *Controller) ProposeFrom(ctx context.Context, plan func(*placement.View) (placement.Command, error)) (any, error) {
	if err := c.CheckLeads(); err != nil {
		return nil, err
	}
	view := c.metadata.Current()
	command, err := plan(view)
	if err != nil {
		return nil, err
	}
	// The rules of this release, and the cluster's level, are asked here and nowhere else: a committed command is held against neither.
	// One that passes may still be refused when it is applied, for what came between.
	if err := view.Check(command); err != nil && !errors.Is(err, placement.ErrNotFounded) {
		return nil, err
	}
	key, value, err := placement.Encode(command, view.Level())
	if err != nil {
		return nil, err
	}
	var builder batch.Builder
	builder.Append(batch.Record{Timestamp: time.Now().UnixMilli(), Key: key, Value: value})
	b, err := builder.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		return nil, err
	}
	done := make(chan raftgroup.Result, 1)
	c.group.Propose(&raftgroup.Proposal{
		Batch: b, Acks: raftgroup.AcksAll, Wait: raftgroup.WaitApplied,
		Done: func(p *raftgroup.Proposal) { done <- p.Result },
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("the metadata command was not confirmed: %w", ctx.Err())
	case r := <-done:
		return c.outcome(r)
	}
}

func (c *Controller) outcome(r raftgroup.Result) (any, error) {
	var notLeader *raftgroup.NotLeaderError
	switch {
	case errors.As(r.Err, &notLeader):
		return nil, c.notController()
	case r.Err != nil:
		return nil, r.Err
	}
	out, ok := r.Value.(placement.Outcome)
	if !ok {
		return nil, fmt.Errorf("the metadata command at index %d was applied without an outcome", r.Index)
	}
	return out.Result, out.Err
}

// CheckLeads returns nil on the node that leads the group, elsewhere a *NotControllerError.
func (c *Controller) CheckLeads() error {
	if c.group.IsLeader() {
		return nil
	}
	return c.notController()
}

func (c *Controller) notController() error {
	_, leader, _ := c.group.Leader()
	if leader == c.node {
		leader = id.NoNode // we were, a moment ago
	}
	return &NotControllerError{Leader: leader}
}

// AllocateProducer returns a producer id that nobody else gets. Ids come in blocks, so that most calls propose nothing; what is
// left of a block when the node stops is never used.
func (c *Controller) AllocateProducer(ctx context.Context, allocate func(context.Context, placement.AllocateProducerIDs) (placement.ProducerIDs, error)) (id.Producer, error) {
	c.producers.Lock()
	defer c.producers.Unlock()
	if c.producers.left == 0 {
		block, err := allocate(ctx, placement.AllocateProducerIDs{Node: c.node, Count: producerBlock})
		if err != nil {
			return id.NoProducer, err
		}
		c.producers.next, c.producers.left = block.First, block.Count
	}
	p := c.producers.next
	c.producers.next++
	c.producers.left--
	return p, nil
}
