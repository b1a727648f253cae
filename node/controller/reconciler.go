package controller

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

// retryInterval is how long the reconciler waits before it tries again what failed.
const retryInterval = time.Second

// Replicas is what the reconciler acts on: the replicas that this node has. Each call is made until it succeeds and must do no
// harm when it is repeated. They are made by one goroutine.
type Replicas interface {
	// Open creates the replica's log unless it is there, and starts it. What was refused or deleted on this node stays away, which is
	// no error: the table may be that of before its deletion.
	Open(ctx context.Context, p placement.Placement) error
	// Change gives an open replica its new members and config.
	Change(ctx context.Context, p placement.Placement) error
	// Delete stops the replica and removes its data. The table has positive evidence that it is not wanted any more.
	Delete(ctx context.Context, g id.Group, r id.Replica) error
	// Held lists the replicas whose data is on this node, open or not, the metadata's excluded.
	Held() map[id.Group]id.Replica
}

// reconcile makes the replicas of this node what the table says, whenever it changes.
//
// A replica on the disk that the table does not know is left alone: the table may be behind, or the disk may belong to another
// time. Only positive evidence (placement.FateDeleted) deletes data: "the metadata does not mention it" has cost other systems
// whole topics.
func (c *Controller) reconcile(ctx context.Context) {
	var done *placement.View // what the node's replicas correspond to; nil: unknown, look at everything
	for {
		changed := c.Changed()
		view := c.View()
		retry := time.Duration(0)
		if view != done {
			if c.reconcileTo(ctx, view, done) {
				done = view
			} else {
				done, retry = nil, retryInterval
			}
		}
		if !waitFor(ctx, changed, retry) {
			return
		}
	}
}

// reconcileTo tells whether everything succeeded.
func (c *Controller) reconcileTo(ctx context.Context, view, since *placement.View) bool {
	ok := true
	try := func(what string, p placement.Placement, err error) {
		if err != nil && ctx.Err() == nil {
			c.logger.Warn("a replica is not as the metadata wants it; it is tried again", "step", what, "partition", p.TopicPartition(), "reason", err)
		}
		ok = ok && err == nil
	}
	held := c.replicas.Held()
	if since == nil {
		for g, r := range held {
			if view.Fate(g, r) == placement.FateDeleted {
				try("delete", placement.Placement{Group: g, Replica: r}, c.replicas.Delete(ctx, g, r))
			}
		}
	}
	changes := view.ChangesOn(c.node, since)
	for _, p := range changes.Close {
		try("delete", p, c.replicas.Delete(ctx, p.Group, p.Replica))
	}
	for _, p := range changes.Open {
		try("open", p, c.replicas.Open(ctx, p))
	}
	for _, p := range changes.Change {
		try("change", p, c.replicas.Change(ctx, p))
	}
	for _, m := range view.MetadataMembers() {
		c.group.AddMembers(raftgroup.Member(m))
	}
	return ok
}

// waitFor returns at the next change, or after retry if that is not 0; false when ctx ends.
func waitFor(ctx context.Context, changed <-chan struct{}, retry time.Duration) bool {
	var again <-chan time.Time
	if retry > 0 {
		timer := time.NewTimer(retry)
		defer timer.Stop()
		again = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-again:
	}
	return true
}
