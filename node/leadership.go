package node

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// balanceLimit is how many leaderships one look hands over.
	balanceLimit = 50
	// transferTimeout bounds one transfer.
	transferTimeout = 3 * time.Second
	// transferLook is how often a transfer looks whether there is anybody left.
	transferLook = 50 * time.Millisecond
	// transferParallel is how many leaderships are handed over at once.
	transferParallel = 16
)

// drain hands over every leadership, in parallel, for as long as ctx allows. What could not be handed over is taken over by the
// others' failure detection, a little later.
func (n *Node) drain(ctx context.Context) {
	if n.replicas == nil {
		return
	}
	n.host.Drain()
	var work errgroup.Group
	work.SetLimit(transferParallel)
	groups := []*raftgroup.Group{n.controller.Group()}
	for _, p := range n.replicas.All() {
		groups = append(groups, p.Group())
	}
	for _, g := range groups {
		if g.IsLeader() {
			work.Go(func() error {
				n.handOver(ctx, g, id.NoReplica)
				return nil
			})
		}
	}
	_ = work.Wait()
}

func (n *Node) handOver(ctx context.Context, g *raftgroup.Group, to id.Replica) {
	status, err := g.Status(ctx)
	if err != nil || !n.othersAlive(status) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- g.TransferLeader(ctx, to) }()
	tick := time.NewTicker(transferLook)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				n.logger.Info("a leadership was not handed over", "group", g.ID(), "reason", err)
			}
			return
		case <-tick.C:
			if !n.othersAlive(status) { // a whole cluster is being stopped, and this is the last one
				cancel()
			}
		}
	}
}

// othersAlive tells whether anybody seems to be there to take a leadership.
func (n *Node) othersAlive(status raftgroup.Status) bool {
	return slices.ContainsFunc(status.Members, func(m raftgroup.MemberStatus) bool { return m.Node != n.options.NodeID && n.alive(m.Node) })
}

// balanceLeaders hands leaderships back to the nodes that the assignment prefers, some time after they return: each node does so for
// what it leads itself.
func (n *Node) balanceLeaders(ctx context.Context) {
	tick := time.NewTicker(n.options.Timing.BalanceInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var states []placement.LeaderState
		open := make(map[id.Group]*partition.Partition)
		for _, p := range n.replicas.All() {
			if state, ok := leaderState(ctx, p); ok {
				states = append(states, state)
				open[state.Group] = p
			}
		}
		for _, t := range placement.PlanLeaders(n.controller.View(), states, n.takesLeaderships, balanceLimit) {
			if ctx.Err() == nil {
				n.handOver(ctx, open[t.Group].Group(), t.To.Replica)
			}
		}
	}
}

// leaderState is what the leader of a group knows for the plan; false elsewhere.
func leaderState(ctx context.Context, p *partition.Partition) (placement.LeaderState, bool) {
	if !p.Group().IsLeader() {
		return placement.LeaderState{}, false
	}
	status, err := p.Group().Status(ctx)
	if err != nil || status.Role != raftgroup.Leader {
		return placement.LeaderState{}, false
	}
	state := placement.LeaderState{Group: status.Group, Leader: status.Replica}
	for _, m := range status.Members {
		if m.InSync && m.Match >= status.Commit {
			state.CaughtUp = append(state.CaughtUp, m.Replica)
		}
	}
	return state, true
}
