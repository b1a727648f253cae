package journal

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Frames from one block to more than a window, in files of several windows: what is read ahead is not overwritten while
// somebody still has to vouch for it, and what nobody vouched for stays until Restart.
func TestReplayAcrossWindows(t *testing.T) {
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 3))
		d := disksim.New(disksim.Options{Seed: seed})
		o := newOwner(t, d)
		o.opts.FileBytes, o.opts.SpareFiles = 3*windowBytes, 1
		o.mustOpen()
		var want []Record
		for i := range 40 {
			n := []int{100, 50_000, windowBytes / 3, windowBytes - 4096, windowBytes + 1}[rng.IntN(5)]
			r := entry(id.Group(i), n, byte(i+1))
			want = append(want, r)
			if i < 30 {
				o.round(r)
			} else if _, err := o.write(r); err != nil { // unvouched, all ten
				t.Fatal(err)
			}
		}
		o.close()

		o.opts.Register = o.register
		r, err := Open(d, "journal", o.infos(), o.opts)
		if err != nil {
			t.Fatal(err)
		}
		var got []Record
		res, err := r.Replay(0, func(f *StoredFrame) error {
			got = append(got, cloneFrame(f).Records...)
			return nil
		})
		if err != nil || len(res.Damage) > 0 || res.Torn {
			t.Fatalf("%+v, %v", res, err)
		}
		if len(got) != 30 {
			t.Fatalf("%d frames are vouched", len(got))
		}
		for i := range res.Unvouched {
			got = append(got, res.Unvouched[i].Records...)
		}
		if !sameRecords(got, want) {
			t.Fatalf("seed %d: %d records, or other bytes than were written", seed, len(got))
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// An error of the disk is neither a torn frame nor damage: it stops the recovery, and nothing is changed by it.
func TestReadErrorStopsRecovery(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o, places := filled(t, d, 4)
	o.close()
	cause := errors.New("medium error")
	d.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpRead {
			return cause
		}
		return nil
	})
	mustFail(t, o.open(), cause)
	d.SetHook(nil)
	o.mustOpen()
	o.expectAllBut(places)
	o.close()

	// So does an error of the visitor, and one of the write and the sync of the fresh file.
	r, err := Open(d, "journal", o.infos(), o.opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Replay(0, func(*StoredFrame) error { return io.ErrClosedPipe })
	mustFail(t, err, io.ErrClosedPipe)
	for _, kind := range []disksim.OpKind{disksim.OpWrite, disksim.OpSync, disksim.OpOpen, disksim.OpSyncDir} {
		o.round1(t, d)
		d.SetHook(func(op disksim.Op) error {
			if op.Kind == kind {
				return cause
			}
			return nil
		})
		mustFail(t, o.open(), cause)
		d.SetHook(nil)
	}
	o.mustOpen()
	o.close()
}

// round1 opens, writes a round and closes.
func (o *owner) round1(t *testing.T, d *disksim.Disk) {
	t.Helper()
	d.SetHook(nil)
	o.mustOpen()
	o.round(entry(1, 10, 'x'))
	o.close()
}

// The preparer looks again by itself when a full disk has space.
func TestSpaceComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := disksim.New(disksim.Options{})
		o := newOwner(t, d)
		o.mustOpen()
		synctest.Wait()
		for range 16 {
			o.round(entry(1, 3000, 'x'))
		}
		d.SetCapacity(1)
		o.round(entry(1, 3000, 'x'))
		synctest.Wait()
		if m := o.j.Metrics(); m.SpareFiles != 1 {
			t.Fatalf("%+v", m)
		}
		d.SetCapacity(0)
		<-time.After(2 * retryNoSpace)
		synctest.Wait()
		if m := o.j.Metrics(); m.SpareFiles != 2 {
			t.Fatalf("%+v", m)
		}
		o.close()
	})
}

// The committer, the checkpointer and those who look, at the same time (for the race detector).
func TestConcurrentUse(t *testing.T) {
	defer leaktest.AfterTest(t)()
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.mustOpen()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				o.retire(MaxSeq)
			}
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				o.j.Metrics()
				o.j.Room()
				if states := o.j.Files(); len(states) == 0 || !states[len(states)-1].Current {
					t.Error("no current file")
					return
				}
			}
		}
	})
	for i := range 300 {
		n := 6000
		if i%50 == 49 {
			n = 2 * testFileBytes
		}
		o.round(entry(id.Group(i), n, byte(i)))
	}
	close(stop)
	wg.Wait()
	if m := o.j.Metrics(); m.Frames != 300 || m.Syncs != 300 || m.PooledFiles > 7 {
		t.Fatalf("%+v", m)
	}
	last := entry(299, 2*testFileBytes, 43)
	o.reopen()
	got := o.records()
	for _, f := range o.unvouched {
		got = append(got, f.Records...)
	}
	if len(got) == 0 || !sameRecords(got[len(got)-1:], []Record{last}) || len(o.res.Damage) > 0 {
		t.Fatalf("%d records, damage %v", len(got), o.res.Damage)
	}
	o.close()
}

// A recovery that is interrupted anywhere leaves what the next one needs, and the next one finds the same.
func TestInterruptedRecoveries(t *testing.T) {
	for step := int64(1); ; step++ {
		for _, kind := range []disksim.Kind{disksim.Kill, disksim.PowerLoss} {
			d := disksim.New(disksim.Options{Seed: uint64(step)})
			o, places := filled(t, d, 7)
			o.awaitSpare()
			o.close()
			d.CrashAt(step)
			if err := o.open(); err == nil {
				o.close()
				if !d.Halted() {
					return // no step is left
				}
			}
			d = d.Crash(kind)
			o.fs = d
			o.mustOpen()
			var want []Record
			for _, p := range places {
				want = append(want, p.records...)
			}
			got := o.records()
			for _, f := range o.unvouched {
				got = append(got, f.Records...)
			}
			if !sameRecords(got, want) || len(o.res.Damage) > 0 || o.res.Torn {
				t.Fatalf("interrupted at %d, %v: %d of %d records, %+v", step, kind, len(got), len(want), o.res)
			}
			o.close()
		}
	}
}

func TestPaddingIsZero(t *testing.T) {
	var f Frame
	f.Add(KindEntry, 1, 1, slices.Repeat([]byte{0xff}, 3*disk.BlockSize))
	if err := f.Build(); err != nil {
		t.Fatal(err)
	}
	f.Reset()
	f.Add(KindEntry, 1, 1, []byte{1})
	if err := f.Build(); err != nil {
		t.Fatal(err)
	}
	b := f.finish(1, 2, 1)
	for i, c := range b[headBytes+rowBytes+1 : len(b)-headBytes-rowBytes] {
		if c != 0 {
			t.Fatalf("byte %d of the padding is %#x: memory of an earlier round leaks to the disk", i, c)
		}
	}
}
