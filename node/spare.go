package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// condemnedRetry is how often a condemned replica that could not be spared is looked at again.
	condemnedRetry = 2 * time.Second
	// stepDownTimeout bounds the handing over of a condemned replica's leadership.
	stepDownTimeout = time.Second
)

// errRefused is why the group of a refused replica has stopped.
var errRefused = errors.New("the replica is refused: its disk does not give back what was written")

// takeOutCondemned is the goroutine that sees to condemned replicas.
func (n *Node) takeOutCondemned(ctx context.Context) {
	tick := time.NewTicker(condemnedRetry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.condemned.wake:
		case <-tick.C:
		}
		n.condemned.mu.Lock()
		waiting := n.condemned.waiting
		n.condemned.waiting = nil
		n.condemned.mu.Unlock()
		done := make([]bool, len(waiting))
		var work errgroup.Group
		work.SetLimit(transferParallel)
		for i, c := range waiting {
			work.Go(func() error {
				done[i] = n.takeOut(ctx, c)
				return nil
			})
		}
		_ = work.Wait()
		n.condemned.mu.Lock()
		for i, c := range waiting {
			if !done[i] {
				n.condemned.waiting = append(n.condemned.waiting, c)
			}
		}
		n.condemned.mu.Unlock()
	}
}

// takeOut tells whether nothing is left to do about a condemned replica.
func (n *Node) takeOut(ctx context.Context, c *condemnedReplica) bool {
	if c.Group == id.MetadataGroup {
		// Nobody reads old metadata but a node that is new or far behind; and without its metadata replica this node could do nothing.
		_, _ = n.stepDown(ctx, c, n.controller.Group())
		n.say(c, "the metadata replica goes on without leading: replace this node by one with an empty data directory and an unused node id")
		return false
	}
	if n.replicas.IsRefused(c.Group) || !slices.Contains(n.stores.Logs(), c.log) {
		return true
	}
	p := n.replicas.Group(c.Group)
	if p == nil {
		return false // it is being opened, which may find the same
	}
	spared := p.Group().Failed() || c.kind == wal.CondemnedWrites
	if !p.Group().Failed() {
		status, follows := n.stepDown(ctx, c, p.Group())
		spared = spared || follows && n.canBeSpared(ctx, c, status)
	}
	if !spared {
		return false
	}
	if err := n.replicas.Refuse(ctx, c.log, c.Reason); err != nil {
		n.say(c, fmt.Sprintf("the refusal cannot be stored; it is tried again: %v", err))
		return false
	}
	p.Group().Abandon(fmt.Errorf("%w: %s", errRefused, c.Reason))
	return true
}

// stepDown hands the leadership of a condemned replica over if it has it. It returns the replica's status before, and whether it follows
// now.
func (n *Node) stepDown(ctx context.Context, c *condemnedReplica, g *raftgroup.Group) (status raftgroup.Status, follows bool) {
	ctx, cancel := context.WithTimeout(ctx, stepDownTimeout)
	defer cancel()
	status, err := g.Status(ctx)
	if err != nil {
		return status, false
	}
	if status.Role != raftgroup.Leader {
		return status, true
	}
	if status.InSync() < 2 {
		n.say(c, "it keeps leading and serves what it can read: no other replica is in sync")
		return status, false
	}
	if err := g.TransferLeader(ctx, id.NoReplica); err != nil {
		n.say(c, fmt.Sprintf("it leads until another replica takes over: %v", err))
		return status, false
	}
	return status, true
}

// canBeSpared tells whether a majority of the voters has what is committed without the replica whose status it is.
func (n *Node) canBeSpared(ctx context.Context, c *condemnedReplica, own raftgroup.Status) bool {
	t, p := n.controller.View().Partition(c.Group)
	if t == nil {
		return false // it is about to be deleted
	}
	ask := &pb.PartitionStatusRequest{Topic: t.Name, Partition: int32(p.ID)}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	voters, vouch := 0, 0
	for _, m := range own.Members {
		if m.Learner {
			if m.Replica == own.Replica {
				return true
			}
			continue
		}
		voters++
		if m.Replica == own.Replica {
			continue
		}
		address, ok := n.resolve(m.Node)
		if !ok {
			continue
		}
		s, err := n.dialer.AdminOf(address, m.Node).PartitionStatus(rpc.PassOn(ctx, nil), ask)
		if err == nil && s.GetReplica() == uint64(m.Replica) && !s.GetCondemned() && s.GetLogEndOffset() >= int64(own.HW) {
			vouch++
		}
	}
	if vouch <= voters/2 {
		n.say(c, "it follows and votes until there is a majority without it")
		return false
	}
	return true
}

// say logs what becomes of a condemned replica, when that changes.
func (n *Node) say(c *condemnedReplica, what string) {
	if c.said != what {
		c.said = what
		n.logger.Warn("a condemned replica is not taken out yet", "partition", c.Name, "replica", c.Replica, "because", what)
	}
}
