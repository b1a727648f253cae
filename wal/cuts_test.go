package wal

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestDeletionEndsTheWaitForACut deletes a log whose owner was asked for a cut and will never answer.
func TestDeletionEndsTheWaitForACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := disksim.New(disksim.Options{})
		s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
		defer closeStore(t, s)
		d := newDriver(t, s, mustCreate(t, s, 1))
		s.SetCutTaker(func(*Log) {})
		d.submit(d.batchEntry(100))
		d.wait(1)
		s.checkpoints.force()
		synctest.Wait()
		begun := time.Now()
		if !d.l.awaitsCut() {
			t.Fatal("nobody was asked for a cut")
		}
		if err := s.Delete(context.Background(), d.l); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.Metrics().Checkpoints; n != 1 || time.Since(begun) != 0 {
			t.Errorf("%d checkpoints are complete after %v", n, time.Since(begun))
		}
	})
}
