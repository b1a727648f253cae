package inspect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// writer fills one log of a store.
type writer struct {
	t    testing.TB
	s    *wal.Store
	l    *wal.Log
	next id.Offset
	done chan struct{}
}

func newWriter(t testing.TB, s *wal.Store, n int) *writer {
	t.Helper()
	l, err := s.Create(context.Background(), wal.Spec{
		Group: id.Group(n), Replica: id.Replica(10 + n), Name: fmt.Sprintf("orders-%d", n), HardState: wal.HardState{Term: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &writer{t: t, s: s, l: l, done: make(chan struct{}, 1)}
}

func options(dir string, fsys disk.FS) wal.Options {
	return wal.Options{
		Dir: dir, FS: fsys, JournalFileBytes: 128 << 10, CheckpointBytes: 256 << 10, CacheBytes: 8 << 20, SegmentBytes: 96 << 10, ReserveBytes: 1,
		DirectAppendBytes: 16 << 10,
	}
}

func open(t testing.TB, o wal.Options) *wal.Store {
	t.Helper()
	s, err := wal.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put appends a batch of records of so many bytes each; 0 records: a control entry. It does not wait for more than submission.
func (w *writer) put(records, size int) {
	w.t.Helper()
	e := wal.Entry{Index: w.l.LastIndex() + 1, Term: 1, Kind: wal.KindCommand, Data: []byte("a command")}
	if records > 0 {
		var b batch.Builder
		for i := range records {
			b.Append(batch.Record{Timestamp: 1_700_000_000_000 + int64(w.next) + int64(i), Key: []byte("key"), Value: bytes.Repeat([]byte{byte(w.next)}, size)})
		}
		data, err := b.Finish(nil, batch.Plain([]batch.Compression{batch.None, batch.LZ4}[w.next%2]))
		if err != nil {
			w.t.Fatal(err)
		}
		data.Stamp(w.next, 1)
		w.next += id.Offset(records)
		e.Kind, e.Data = wal.KindBatch, data
	}
	w.s.Submit([]*wal.Append{{Log: w.l, Entries: []wal.Entry{e}, Done: func(*wal.Append) { w.done <- struct{}{} }}})
	select {
	case <-w.done:
	case <-time.After(20 * time.Second):
		w.t.Fatal("an append did not complete")
	}
	w.l.SetCommit(e.Index)
}

// fill writes several segments, with control entries among them.
func (w *writer) fill() {
	for i := range 30 {
		w.put(1+i%4, 500+i%3*9000)
		if i%10 == 4 {
			w.put(0, 0)
		}
	}
}

// stopped makes a directory with two logs, and stops the store.
func stopped(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	s := open(t, options(dir, disk.NewBuffered()))
	newWriter(t, s, 1).fill()
	newWriter(t, s, 2).put(2, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func verify(t testing.TB, dir string, o Options) *Report {
	t.Helper()
	r, err := Verify(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fingerprint is of all names, lengths, contents and times below dir.
func fingerprint(t testing.TB, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, name, info.Size(), info.ModTime(), info.Mode())
		if !d.IsDir() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			h.Write(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestCleanDirectory: nothing is found where nothing is wrong, everything was read, and nothing was written.
func TestCleanDirectory(t *testing.T) {
	dir := stopped(t)
	before := fingerprint(t, dir)
	r := verify(t, dir, Options{})
	if len(r.Findings) > 0 || !r.Stopped {
		t.Errorf("%+v", r)
	}
	if len(r.Logs) != 2 || r.Logs[0].Batches != 30 || r.Logs[0].Segments < 2 || r.Logs[1].Batches != 1 || r.Logs[1].Next != 2 {
		t.Errorf("%+v", r.Logs)
	}
	if after := fingerprint(t, dir); after != before {
		t.Error("something was changed")
	}
}

// TestDamageIsNamed damages a directory in each way there is: Verify says where, and of which log and records.
func TestDamageIsNamed(t *testing.T) {
	const first, second = "logs/orders-1.11/00000000000000000000", "logs/orders-2.12/00000000000000000000"
	flip := func(name string, at int64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, name), func(b []byte) []byte {
				if at < 0 {
					at += int64(len(b))
				}
				b[at] ^= 4
				return b
			})
		}
	}
	cut := func(name string, n int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, name), func(b []byte) []byte { return b[:len(b)-n] })
		}
	}
	zero := func(name string, from, to int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, name), func(b []byte) []byte { clear(b[from:to]); return b })
		}
	}
	for _, c := range []struct {
		name     string
		damage   func(t *testing.T, dir string)
		file     string
		position int64 // -2: any
		text     string
		note     bool
		log      string
	}{
		{"bit of a batch", flip(first+".log", 200), first + ".log", 0, "checksum mismatch", false, "orders-1.11"},
		{"bit of a batch's base offset", flip(first+".log", 7), first + ".log", 0, "row says checksum", false, "orders-1.11"},
		{"bit of a batch's length", flip(first+".log", 10), first + ".log", 0, "length field", false, "orders-1.11"},
		{"zeroed block", zero(first+".log", 4096, 8192), first + ".log", -2, "", false, "orders-1.11"},
		{"sealed file cut", cut(first+".log", 1), first + ".log", -2, "file ends at", false, "orders-1.11"},
		{"sealed file longer", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, first+".log"), func(b []byte) []byte { return append(b, 0) })
		}, first + ".log", -2, "the sealed file has", false, "orders-1.11"},
		{"bit of a row", flip(first+".index", 64*2+5), first + ".index", 128, "row of entry 3", false, "orders-1.11"},
		{"index cut", cut(first+".index", 64), first + ".index", -2, "bytes of rows", false, "orders-1.11"},
		{"swapped rows", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, first+".index"), func(b []byte) []byte {
				return append(append(append([]byte{}, b[64:128]...), b[:64]...), b[128:]...)
			})
		}, first + ".index", 0, "it is of entry 2", false, "orders-1.11"},
		{"log missing", remove(first + ".log"), first + ".log", -1, "missing", false, "orders-1.11"},
		{"index missing", remove(first + ".index"), first + ".index", -1, "missing", false, "orders-1.11"},
		{"swapped files", func(t *testing.T, dir string) {
			names, _ := filepath.Glob(filepath.Join(dir, "logs/orders-1.11/*.log"))
			for _, step := range [][2]string{{names[0], names[0] + "x"}, {names[1], names[0]}, {names[0] + "x", names[1]}} {
				if err := os.Rename(step[0], step[1]); err != nil {
					t.Fatal(err)
				}
			}
		}, first + ".log", -2, "", false, "orders-1.11"},
		{"foreign file", write("logs/orders-1.11/readme"), "logs/orders-1.11/readme", -1, "foreign", false, "orders-1.11"},
		{"dropped segment", write("logs/orders-1.11/00000000000000000007.3.log"), "logs/orders-1.11/00000000000000000007.3.log", -1, "next start removes", true, "orders-1.11"},
		{"foreign directory", write("logs/other-0.99/x"), "logs/other-0.99", -1, "belongs to no log", false, ""},
		{"unfinished deletion", write("logs/other-0.99-delete/x"), "logs/other-0.99-delete", -1, "next start completes", true, ""},
		{"guard gone", remove("meta.guard"), "meta", -1, "meta.guard is gone", false, ""},
		{"pebble's log", func(t *testing.T, dir string) {
			names, _ := filepath.Glob(filepath.Join(dir, "meta", "*.log"))
			for _, name := range names {
				edit(t, name, func(b []byte) []byte {
					for i := range b {
						b[i] ^= 1
					}
					return b
				})
			}
		}, "meta", -1, "records are damaged", false, ""},
		{"end of the tail that a stop left in a file", flip(second+".log", 100), "", 0, "", true, ""}, // the cut has it
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := stopped(t)
			c.damage(t, dir)
			r := verify(t, dir, Options{})
			if c.file == "" {
				if r.Damaged() > 0 {
					t.Errorf("%+v", r.Findings)
				}
				return
			}
			for _, f := range r.Findings {
				if f.File == c.file && (c.position == -2 || f.Position == c.position) && strings.Contains(f.Text, c.text) &&
					(f.Severity == Note) == c.note && f.Log == c.log {
					return
				}
			}
			t.Errorf("%s at %d (%q) is not among %+v", c.file, c.position, c.text, r.Findings)
		})
	}
}

func edit(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		name := filepath.Join(dir, name)
		_ = os.MkdirAll(filepath.Dir(name), 0o700)
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExchangedFilesAreNamed: files of two logs with the same offsets, of either kind or both, are good by all of their own checksums.
func TestExchangedFilesAreNamed(t *testing.T) {
	for _, suffixes := range [][]string{{".index"}, {".log"}, {".log", ".index"}} {
		t.Run(strings.Join(suffixes, " "), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, options(dir, disk.NewBuffered()))
			for n := 1; n <= 2; n++ {
				w := newWriter(t, s, n)
				for range 30 { // several segments
					w.put(1, 8999+n)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, suffix := range suffixes {
				a := filepath.Join(dir, "logs/orders-1.11/00000000000000000000"+suffix)
				b := filepath.Join(dir, "logs/orders-2.12/00000000000000000000"+suffix)
				for _, r := range [][2]string{{a, a + "x"}, {b, a}, {a + "x", b}} {
					if err := os.Rename(r[0], r[1]); err != nil {
						t.Fatal(err)
					}
				}
			}
			damaged := make(map[string]bool)
			for _, f := range verify(t, dir, Options{}).Findings {
				damaged[f.Log] = damaged[f.Log] || f.Severity == Damage
			}
			if !damaged["orders-1.11"] || !damaged["orders-2.12"] {
				t.Errorf("damaged: %v", damaged)
			}
		})
	}
}

// TestFilesOfTheRefusedStay: of a refused replica a start removes nothing.
func TestFilesOfTheRefusedStay(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, disk.NewBuffered()))
	w := newWriter(t, s, 1)
	w.fill()
	if err := s.Refuse(context.Background(), w.l, "a test"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	const name = "logs/orders-1.11/00000000000000000999.log"
	if err := os.WriteFile(filepath.Join(dir, name), []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range verify(t, dir, Options{}).Findings {
		if f.File == name {
			if f.Severity != Note || strings.Contains(f.Text, "next start") {
				t.Errorf("%+v", f)
			}
			return
		}
	}
	t.Error("the file is not named")
}

// TestCrashesLeaveNoDamage ends processes and machines anywhere, and looks at what they leave, before and after the next start.
func TestCrashesLeaveNoDamage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	sim := disksim.New(disksim.Options{Seed: seed})
	torn := false
	for boot := range 30 {
		o := options("/data", sim)
		o.PebbleFS = sim.Pebble()
		s := open(t, o)
		var w *writer
		if ls := s.Logs(); len(ls) == 0 {
			w = newWriter(t, s, 1)
		} else {
			w = &writer{t: t, s: s, l: ls[0], next: ls[0].NextOffset(), done: make(chan struct{}, 1)}
		}
		for range rng.IntN(12) {
			w.put(rng.IntN(5), 1+rng.IntN(12000))
		}
		sim.CrashAt(1 + rng.Int64N(20))
		for range 10 {
			if sim.Halted() {
				break
			}
			w.tryPut(sim, rng.IntN(5), 1+rng.IntN(30000))
		}
		if rng.IntN(3) == 0 {
			_ = s.Close()
		}
		sim.Halt()
		_ = s.Close()
		sim = sim.Crash([]disksim.Kind{disksim.Kill, disksim.PowerLoss}[rng.IntN(2)])
		before := sim.Steps()
		r := verify(t, "/data", Options{FS: sim, PebbleFS: sim.Pebble()})
		if r.Damaged() > 0 {
			t.Fatalf("boot %d: %+v", boot, r.Findings)
		}
		if sim.Steps() != before {
			t.Fatalf("boot %d: it wrote", boot)
		}
		for _, f := range r.Findings {
			torn = torn || strings.Contains(f.Text, "torn") || strings.Contains(f.Text, "beyond")
		}
	}
	if !torn {
		t.Log("no crash left anything")
	}
}

// tryPut is put for a disk that may end meanwhile.
func (w *writer) tryPut(sim *disksim.Disk, records, size int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b batch.Builder
		for range records + 1 {
			b.Append(batch.Record{Timestamp: 1, Value: bytes.Repeat([]byte("x"), size)})
		}
		data, err := b.Finish(nil, batch.Plain(batch.None))
		if err != nil {
			panic(err)
		}
		data.Stamp(w.next, 1)
		w.next += id.Offset(records + 1)
		e := wal.Entry{Index: w.l.LastIndex() + 1, Term: 1, Kind: wal.KindBatch, Data: data}
		w.s.Submit([]*wal.Append{{Log: w.l, Entries: []wal.Entry{e}, Done: func(*wal.Append) { w.done <- struct{}{} }}})
		select {
		case <-w.done:
			w.l.SetCommit(e.Index)
		case <-sim.Done():
		}
	}()
	<-done
}

// TestLockIsSeen: who looks at a directory keeps stores away, and is kept away by one, without writing to the file.
func TestLockIsSeen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, options(dir, disk.NewBuffered()))
	name := filepath.Join(dir, "wal.lock")
	if _, err := disk.LockShared(name); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("while a store is open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := disk.LockShared(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Open(context.Background(), options(dir, disk.NewBuffered())); err == nil {
		t.Error("a store was opened while somebody looks at it")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
