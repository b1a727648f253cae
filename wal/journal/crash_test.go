package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// model is what the journal has promised, through all crashes.
type model struct {
	rounds  []modelRound // written and not retired, in order
	highest Seq          // of all that were ever used
}

type modelRound struct {
	seq     Seq // 0: the disk halted, so the round may have been written or not
	records []Record
	done    bool // synced in time: must come back
}

// check compares what a recovery found with what was promised, and takes it for the truth about the rest.
func (m *model) check(t testing.TB, o *owner, seed uint64) {
	t.Helper()
	if len(o.res.Damage) > 0 {
		t.Fatalf("seed %d: a crash was taken for damage: %v", seed, o.res.Damage)
	}
	// A recovery writes the unvouched rounds anew, as one frame: compare records, and note which frame they are in now.
	var got []Record
	var seqs []Seq
	for _, f := range o.frames {
		got = append(got, f.Records...)
		seqs = append(seqs, slices.Repeat([]Seq{f.Seq}, len(f.Records))...)
	}
	for _, f := range o.unvouched {
		got = append(got, f.Records...)
		seqs = append(seqs, slices.Repeat([]Seq{o.completed}, len(f.Records))...)
	}
	at := 0
	keep := 0
	for i, r := range m.rounds {
		if at == len(got) && !r.done {
			break
		}
		if n := len(r.records); at+n > len(got) || !sameRecords(got[at:at+n], r.records) {
			t.Fatalf("seed %d: round %d of %d (sequence %d, done %v) did not come back; %d records of %d found",
				seed, i, len(m.rounds), r.seq, r.done, at, len(got))
		}
		if at += len(r.records); at > 0 {
			m.rounds[i].seq = seqs[at-1]
		}
		keep = i + 1
	}
	for _, r := range m.rounds[keep:] {
		if r.done {
			t.Fatalf("seed %d: a completed round after one that did not come back is lost", seed)
		}
	}
	if at != len(got) {
		t.Fatalf("seed %d: %d records came back that were never written or were dropped before", seed, len(got)-at)
	}
	m.rounds = m.rounds[:keep]
	for i := range m.rounds {
		m.rounds[i].done = true // made durable before anything else happens
	}
}

// Random rounds, crashes at any operation of the disk, also during recoveries, power losses after kills. Every completed
// round comes back, once, in order; nothing else does but the unvouched ones; no crash looks like damage; sequences grow.
func TestCrashes(t *testing.T) {
	defer leaktest.AfterTest(t)()
	seeds := uint64(200)
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		crashes(t, seed)
	}
}

func crashes(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	d := disksim.New(disksim.Options{Seed: seed})
	o := newOwner(t, d)
	o.opts.SpareFiles = 1 + rng.IntN(2)
	o.opts.PooledFiles = rng.IntN(4)
	var m model
	for range 6 {
		if rng.IntN(3) > 0 {
			d.CrashAt(1 + rng.Int64N(20)) // soon: in the recovery, or in the first rounds
		} else {
			d.CrashAt(20 + rng.Int64N(300))
		}
		for !d.Halted() {
			if err := o.open(); err != nil {
				if !errors.Is(err, disksim.ErrHalted) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				break
			}
			m.check(t, o, seed)
			m.run(t, o, rng)
			o.close()
		}
		if o.j != nil {
			o.close()
		}
		kind := disksim.Kind(rng.IntN(2))
		d = d.Crash(kind)
		if kind == disksim.Kill && rng.IntN(3) == 0 {
			d = d.Crash(disksim.PowerLoss)
		}
		o.fs = d
	}
	o.mustOpen()
	m.check(t, o, seed)
	o.reopen()
	m.check(t, o, seed)
	if o.res.Torn {
		t.Fatalf("seed %d: a second recovery found a torn frame", seed)
	}
	o.close()
}

// run commits rounds until the disk halts, or for a while.
func (m *model) run(t testing.TB, o *owner, rng *rand.Rand) {
	for range rng.IntN(60) {
		var records []Record
		for range rng.IntN(4) {
			records = append(records, randomRecord(rng))
		}
		w, err := o.write(records...)
		r := modelRound{seq: w.Seq, records: records}
		if err == nil && w.Seq <= m.highest {
			t.Fatalf("sequence %d after %d", w.Seq, m.highest)
		}
		if err == nil && rng.IntN(4) > 0 {
			err = o.j.Sync()
			if r.done = err == nil; r.done {
				o.prev = w.Seq
				for i := range m.rounds {
					m.rounds[i].done = true // those before were synced with it
				}
			}
		}
		m.rounds = append(m.rounds, r)
		m.highest = max(m.highest, w.Seq)
		if err != nil {
			if !errors.Is(err, disksim.ErrHalted) {
				t.Fatal(err)
			}
			return
		}
		if rng.IntN(12) == 0 && !m.retire(t, o) {
			return
		}
	}
}

// retire forgets rounds up to the last synced one, as after a checkpoint.
func (m *model) retire(t testing.TB, o *owner) bool {
	r := o.j.Retirable(o.prev)
	if len(r.Remove) == 0 {
		return true
	}
	o.mu.Lock()
	for _, i := range r.Remove {
		delete(o.live, i.Name)
	}
	o.completed = o.prev
	o.mu.Unlock()
	o.store(r.Put...)
	first := r.Put[0].First
	k := slices.IndexFunc(m.rounds, func(r modelRound) bool { return r.seq >= first })
	if k < 0 {
		k = len(m.rounds)
	}
	m.rounds = m.rounds[k:]
	if err := o.j.Retire(r); err != nil {
		if !errors.Is(err, disksim.ErrHalted) {
			t.Fatal(err)
		}
		return false
	}
	return true
}

func randomRecord(rng *rand.Rand) Record {
	n := rng.IntN(300)
	switch rng.IntN(12) {
	case 0:
		n = rng.IntN(3 * testFileBytes / 2)
	case 1, 2, 3:
		n = rng.IntN(20000)
	}
	r := Record{Kind: Kind(1 + rng.IntN(5)), Group: id.Group(rng.Uint64()), Replica: id.Replica(rng.Uint64()), Payload: make([]byte, n)}
	copy(r.Payload, fmt.Sprint(r.Group))
	for i := 0; i < n; i += 64 {
		r.Payload[i] = byte(rng.Uint32())
	}
	return r
}
