package controller

import (
	"context"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
)

const (
	// driveInterval is how often the leader of the metadata looks whether the group should change.
	driveInterval = 500 * time.Millisecond
	// changeTimeout bounds one change of the group's configuration.
	changeTimeout = 10 * time.Second
	// learnerAlive is how recently a learner must have answered to be promoted.
	learnerAlive = 2 * time.Second
	// DefaultVoterGrace is how long a voter of the metadata may be away before a learner takes its place.
	DefaultVoterGrace = 10 * time.Minute
)

// drive runs for the life of the controller and acts while this node leads the metadata.
func (c *Controller) drive(ctx context.Context) {
	tick := time.NewTicker(driveInterval)
	defer tick.Stop()
	var w watch
	for {
		changed := c.Changed()
		if c.group.IsLeader() {
			c.bootstrap(ctx)
			c.growQuorum(ctx, &w)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
		}
	}
}

// growQuorum makes the next change of the metadata group's configuration, if one is due: the first of what placement.PlanQuorum
// asks for. It is called again, so an error is only worth a line.
func (c *Controller) growQuorum(ctx context.Context, w *watch) {
	status, err := c.group.Status(ctx)
	if err != nil || status.Role != raftgroup.Leader {
		return
	}
	watched := w.look(time.Now(), status.Term)
	if status.Joint {
		return
	}
	plan := placement.PlanQuorum(c.View(), quorumMembers(status, watched, c.voterGrace))
	if plan.Empty() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := c.group.ChangeMembers(ctx, raftgroup.ConfChange(changesOf(plan)...)); err != nil {
		c.logger.Info("the metadata group could not be changed yet", "reason", err)
		return
	}
	c.logger.Info("metadata group changed", "added", plan.Add, "promoted", plan.Promote, "demoted", plan.Demote, "removed", plan.Remove)
}

func quorumMembers(status raftgroup.Status, watched, grace time.Duration) []placement.QuorumMember {
	members := make([]placement.QuorumMember, len(status.Members))
	for i, m := range status.Members {
		q := placement.QuorumMember{Member: placement.Member{Replica: m.Replica, Node: m.Node}, Role: placement.Voter}
		q.Alive = !isAway(m, watched, grace)
		if m.Learner {
			q.Role = placement.Learner
			q.Alive = m.LastAck >= 0 && m.LastAck < learnerAlive
		}
		q.CaughtUp = m.Match >= status.Commit
		members[i] = q
	}
	return members
}

func changesOf(plan placement.QuorumChange) []raftgroup.Change {
	var changes []raftgroup.Change
	add := func(members []placement.Member, kind raftpb.ConfChangeType) {
		for _, m := range members {
			changes = append(changes, raftgroup.Change{Type: kind, Replica: m.Replica, Node: m.Node})
		}
	}
	add(plan.Add, raftpb.ConfChangeAddLearnerNode)
	add(plan.Promote, raftpb.ConfChangeAddNode)
	add(plan.Demote, raftpb.ConfChangeAddLearnerNode)
	add(plan.Remove, raftpb.ConfChangeRemoveNode)
	return changes
}
