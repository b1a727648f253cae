package wal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// pebbleFault fails the n-th operation of Pebble that changes something, and each one for some time after it.
type pebbleFault struct {
	err        error
	from, most int64
	seen       atomic.Int64
	hit        atomic.Int64
}

func (f *pebbleFault) hook(op disksim.Op) error {
	if !op.Pebble || op.Kind > disksim.OpSyncDir || op.Kind == disksim.OpSync && f.err == syscall.ENOSPC {
		return nil
	}
	if f.seen.Add(1) >= f.from && f.hit.Add(1) <= f.most {
		return f.err
	}
	return nil
}

// churn makes Pebble do everything it does: logs, tables and manifests.
func churn(s *Store, rounds int) error {
	value := make([]byte, 20*kib)
	for i := range rounds {
		for j := range value {
			value[j] = byte(i * j)
		}
		if err := s.Set(fmt.Sprint("key", i%7), value); err != nil {
			return err
		}
	}
	return nil
}

// TestPebbleFindsNoSpace at each of its operations, twice in a row: nobody notices.
func TestPebbleFindsNoSpace(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for from := int64(1); ; from += 1 + from/8 {
		sim := disksim.New(disksim.Options{Seed: uint64(from)})
		fault := &pebbleFault{err: syscall.ENOSPC, from: from, most: 2}
		sim.SetHook(fault.hook)
		o := testOptions(sim, sim.Pebble(), "/data")
		o.OnFatal = func(err error) { t.Errorf("operation %d: fatal: %v", from, err) }
		s := mustOpen(t, o)
		d := newDriver(t, s, must(s.Create(context.Background(), Spec{Group: id.MetadataGroup, Replica: 11, Name: "m"})))
		d.submit(d.batchEntry(100))
		d.wait(1)
		if err := churn(s, 80); err != nil {
			t.Fatalf("operation %d: %v", from, err)
		}
		closeStore(t, s)
		if fault.hit.Load() == 0 {
			t.Logf("%d operations", fault.seen.Load())
			return
		}
		s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
		d.s, d.l = s, findLog(t, s, id.MetadataGroup)
		d.check()
		closeStore(t, s)
	}
}

// TestPebbleFails at each of its operations, from then on: the store fails with the error, Pebble does not panic, and the next start finds
// all that was stored.
func TestPebbleFails(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for from := int64(1); ; from += 1 + from/8 {
		sim := disksim.New(disksim.Options{Seed: uint64(from)})
		fault := &pebbleFault{err: syscall.EIO, from: from, most: 1 << 40}
		sim.SetHook(fault.hook)
		o := testOptions(sim, sim.Pebble(), "/data")
		fatal := make(chan error, 1)
		o.OnFatal = func(err error) { fatal <- err }
		s, err := Open(context.Background(), o)
		last := -1
		for i := 0; err == nil && i < 80; i++ {
			if err = s.Set("last", fmt.Appendf(nil, "%020d%020480d", i, i)); err == nil {
				last = i
			}
		}
		if s != nil {
			err = errors.Join(err, s.Close())
		}
		if fault.hit.Load() == 0 {
			t.Logf("%d operations", fault.seen.Load())
			return
		}
		if !errors.Is(err, syscall.EIO) || s != nil && !errors.Is(<-fatal, syscall.EIO) {
			t.Fatalf("operation %d: the store says %v", from, err)
		}
		sim = sim.Crash(disksim.Kind(from % 2))
		sim.SetHook(nil)
		s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
		if have := storedNumber(t, s); have < last || have > last+1 {
			t.Fatalf("operation %d: the store holds value %d, %d was stored", from, have, last)
		}
		closeStore(t, s)
	}
}

func storedNumber(t *testing.T, s *Store) (n int) {
	v, err := s.Get("last")
	if errors.Is(err, ErrNotFound) {
		return -1
	}
	if err == nil {
		_, err = fmt.Sscanf(string(v[:20]), "%d", &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}
