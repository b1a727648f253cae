package wal

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// limitedFS has no more than limit files of segments open, like a process.
type limitedFS struct {
	disk.FS
	limit, open, most atomic.Int64
}

type limitedFile struct {
	disk.File
	fs *limitedFS
}

func (f *limitedFS) Create(name string) (disk.File, error) { return f.count(name, f.FS.Create) }
func (f *limitedFS) Open(name string) (disk.File, error)   { return f.count(name, f.FS.Open) }

func (f *limitedFS) count(name string, open func(string) (disk.File, error)) (disk.File, error) {
	if !strings.Contains(name, "/logs/") {
		return open(name)
	}
	n := f.open.Add(1)
	if limit := f.limit.Load(); n > limit {
		f.open.Add(-1)
		return nil, syscall.EMFILE
	}
	x, err := open(name)
	if err != nil {
		f.open.Add(-1)
		return nil, err
	}
	f.most.Store(max(f.most.Load(), n))
	return &limitedFile{x, f}, nil
}

func (f *limitedFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

// TestManyLogsFewFiles has several times as many logs as may have open files: appends, reads, checkpoints and a restart stay below the
// limit.
func TestManyLogsFewFiles(t *testing.T) {
	const logs = 150
	sim := disksim.New(disksim.Options{})
	files := &limitedFS{FS: sim}
	o := testOptions(files, sim.Pebble(), "/data")
	o.DirectAppendBytes, o.MaxOpenFiles, o.CacheBytes = 1, LeastOpenFiles, 8*mib
	// Those in use may come on top: of the workers of rounds, the preparers and the flushers. Nothing here has more than that at once.
	files.limit.Store(leastSegmentFiles + 2*(preparers+flushers+1))
	s := mustOpen(t, o)
	drivers := make([]*driver, logs)
	for i := range drivers {
		drivers[i] = newDriver(t, s, mustCreate(t, s, i))
	}
	for range 4 {
		for _, d := range drivers {
			d.submit(d.batchEntry(9 << 10))
		}
		for _, d := range drivers {
			d.wait(1)
			d.commitAll()
		}
	}
	for range 2 {
		for _, d := range drivers {
			d.check()
		}
		if n := s.Metrics().OpenFiles; n > o.openSegments() {
			t.Errorf("%d segments are open, at most %d may be", n, o.openSegments())
		}
		closeStore(t, s)
		if n := files.open.Load(); n != 0 {
			t.Errorf("%d files are left open", n)
		}
		s = mustOpen(t, o)
		for i, d := range drivers {
			d.s, d.l = s, findLog(t, s, d.l.Group())
			if i%10 == 0 { // and the next start finds something that is not committed
				d.submit(d.batchEntry(9 << 10))
				d.wait(1)
			}
		}
	}
	closeStore(t, s)
	if files.most.Load() < leastSegmentFiles {
		t.Errorf("at most %d files were open: the test tests nothing", files.most.Load())
	}
}

// TestFilesInUseAreNotClosed opens more segments than the bound while all are in use; once they are not, the bound holds again.
func TestFilesInUseAreNotClosed(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes, o.MaxOpenFiles = 1, LeastOpenFiles
	s := mustOpen(t, o)
	defer closeStore(t, s)
	var used []*openSeg
	for i := range 2 * o.openSegments() {
		d := withFiles(t, s, Spec{Group: 1, Replica: id.Replica(1 + i), Name: "topic-1"})
		got, err := s.files.acquire(d.l, d.l.segs[0])
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, got)
	}
	b := disk.AlignedBytes(disk.BlockSize)
	for _, o := range used {
		if _, err := o.log.ReadAt(b, 0); err != nil {
			t.Error(err)
		}
	}
	for _, o := range used {
		s.files.release(o)
	}
	if n := s.Metrics().OpenFiles; n > o.openSegments() {
		t.Errorf("%d segments are open, at most %d may be", n, o.openSegments())
	}
}

// TestSegmentBytesChange changes the size of segments of a log while it is open.
func TestSegmentBytesChange(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	put := func(n int) (segments int) {
		for range n {
			d.submit(d.batchEntry(9 << 10))
			d.wait(1)
		}
		d.l.mu.Lock()
		defer d.l.mu.Unlock()
		return len(d.l.segs)
	}
	if n := put(5); n != 1 {
		t.Errorf("%d segments of 45 KiB when they may have 64 MiB", n)
	}
	d.l.SetSegmentBytes(20 << 10)
	if n := put(4); n != 3 {
		t.Errorf("%d segments after 36 KiB more when they may have 20 KiB", n)
	}
	d.l.SetSegmentBytes(0)
	if n := put(5); n != 3 {
		t.Errorf("%d segments with the store's size again", n)
	}
	d.check()
}

// TestSpaceOfSegments: a segment gets the space of a whole one in steps, and no more than that unless a batch is larger. A start prepares
// files that nothing vouches for anew, whatever they have: it must not double the space of one that has enough.
func TestSpaceOfSegments(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	const whole = 32 * mib
	for _, tt := range []struct{ allocated, end, need, want int64 }{
		{0, 0, 0, mib},
		{4 * mib, 3 * mib, 0, 8 * mib},
		{24 * mib, 23 * mib, 0, whole},
		{whole, mib, 0, whole + disk.BlockSize},
		{whole + disk.BlockSize, mib, 0, whole + 2*disk.BlockSize},
		{whole, 40 * mib, 40 * mib, 72 * mib}, // one batch is larger
	} {
		if got, err := s.targetOf(tt.allocated, tt.end, tt.need, whole); err != nil || got != tt.want {
			t.Errorf("%d bytes, of %d with data, %d needed: %d, %v; want %d", tt.allocated, tt.end, tt.need, got, err, tt.want)
		}
	}
}
