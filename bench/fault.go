package bench

import (
	"context"
	"fmt"
	"time"
)

// inject does to the nodes what the workload asks for, during the timed part.
func (t *turn) inject(ctx context.Context) error {
	if t.Workload.Fault == FaultNone {
		return nil
	}
	f, ok := t.system.(Faults)
	if !ok || len(t.Servers) > 0 {
		return fmt.Errorf("workload %s stops nodes: that needs a target with its own cluster that can", t.Workload.Name)
	}
	third := t.Workload.Duration / 3
	switch t.Workload.Fault {
	case FaultKillLeader:
		if err := sleepFor(ctx, third); err != nil {
			return err
		}
		node, err := f.LeaderOf(ctx, t.layout, 0)
		if err != nil {
			return fmt.Errorf("cannot find the leader of partition 0: %w", err)
		}
		if err := f.Kill(node); err != nil {
			return err
		}
		t.Say("node %d, the leader of partition 0, was killed", node+1)
		if err := sleepFor(ctx, third); err != nil {
			return err
		}
		t.Say("node %d is restarted", node+1)
		return f.Restart(ctx, node)
	case FaultRollingRestart:
		return t.rollingRestart(ctx, f, t.Workload.Duration/4)
	}
	return nil
}

func (t *turn) rollingRestart(ctx context.Context, f Faults, pause time.Duration) error {
	for node := range t.result.Description.Nodes {
		if err := sleepFor(ctx, pause); err != nil {
			return err
		}
		t.Say("node %d is stopped and started", node+1)
		if err := f.Stop(ctx, node); err != nil {
			return err
		}
		if err := f.Restart(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// chill restarts all nodes and drops the kernel's caches. A system without processes has nothing to restart.
func (t *turn) chill(ctx context.Context) error {
	if t.result.Description.Nodes == 0 {
		t.Say("dropping the kernel's caches")
		return dropCaches()
	}
	f, ok := t.system.(Faults)
	if !ok || len(t.Servers) > 0 {
		return fmt.Errorf("workload %s reads cold data: that needs a target with its own cluster that can be restarted", t.Workload.Name)
	}
	t.Say("restarting the nodes and dropping the kernel's caches")
	for node := range t.result.Description.Nodes {
		if err := f.Stop(ctx, node); err != nil {
			return err
		}
	}
	if err := dropCaches(); err != nil {
		return err
	}
	errs := make(chan error, t.result.Description.Nodes)
	for node := range t.result.Description.Nodes {
		go func() { errs <- f.Restart(ctx, node) }()
	}
	for range t.result.Description.Nodes {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}
