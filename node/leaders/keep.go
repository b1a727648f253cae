package leaders

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/wal/id"
)

// sweepGap is how soon one Sweep follows another.
const sweepGap = time.Second

// Keep sweeps the table after changes of the metadata, until ctx ends. Changed returns a channel that is closed at the next one.
func (t *Table) Keep(ctx context.Context, changed func() <-chan struct{}) {
	gap := time.NewTicker(sweepGap)
	defer gap.Stop()
	for {
		next := changed()
		t.Sweep()
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
		select {
		case <-gap.C:
		case <-ctx.Done():
			return
		}
	}
}

// Await returns once somebody is known to lead a partition, or ctx ends.
func (t *Table) Await(ctx context.Context, p *placement.Partition) error {
	for t.Leader(p).Node == id.NoNode {
		changed := t.Changed()
		if t.Leader(p).Node != id.NoNode {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
