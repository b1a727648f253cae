package wal

import (
	"path"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestStalled: a store says for how long the disk has kept a round waiting, and nothing while no round does.
func TestStalled(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	d.submit(d.batchEntry(3000))
	d.wait(1)
	eventually(t, "nothing to be under way", func() bool { return s.Stalled() == 0 })
	hung := make(chan struct{})
	sim.SetHook(func(op disksim.Op) error {
		if !op.Pebble && op.Kind == disksim.OpWrite && path.Dir(op.Name) == "/data/journal" {
			<-hung
		}
		return nil
	})
	d.submit(d.batchEntry(3000))
	eventually(t, "the round to be seen", func() bool { return s.Stalled() > 0 })
	before := s.Stalled()
	eventually(t, "time to pass", func() bool { return s.Stalled() > before })
	sim.SetHook(nil)
	close(hung)
	d.wait(1)
	eventually(t, "the round to be over", func() bool { return s.Stalled() == 0 })
	d.check()
}
