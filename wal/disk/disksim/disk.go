package disksim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// ErrHalted is returned by every call on a disk whose boot has ended. ErrCrashed is another name for it.
var (
	ErrHalted  = errors.New("disksim: the machine has crashed")
	ErrCrashed = ErrHalted
)

// Kind is a kind of crash.
type Kind uint8

// The kinds of crash.
const (
	Kill      Kind = iota // the process dies, the page cache lives on
	PowerLoss             // only what was synced is safe
)

func (k Kind) String() string {
	if k == Kill {
		return "kill"
	}
	return "power loss"
}

// Options make a Disk. The zero value is a disk without bounds that never fails.
type Options struct {
	Seed     uint64
	Capacity int64 // bytes of all files, Pebble's included; 0: no bound. No name is made without a block to spare
	// OpenFiles is how many files may be open at a time, Pebble's included; 0: no bound.
	OpenFiles int
	// Direct says that there is no page cache. It makes a difference after a failed sync: without a cache, what the medium has
	// lost is not read any more; with one it is, until the cache parts with it, and later syncs leave it alone.
	Direct bool
	// Hook is asked before each operation; its error is injected, and it may block to delay the operation or call Halt.
	// It runs on the goroutine of the caller, at the same time as others, without a lock held.
	Hook func(Op) error
	// After is told how each operation ended.
	After func(Op, error)
}

// Disk is one boot of a simulated machine's disk. It is a disk.FS.
type Disk struct {
	mu       sync.Mutex
	rng      *rand.Rand
	hook     func(Op) error
	after    func(Op, error)
	capacity int64
	direct   bool

	openFiles int // the bound of handles
	handles   int // that are open

	used     int64 // bytes taken
	root     *inode
	pending  []change // names that changed and were not synced, oldest first
	locks    map[string]bool
	steps    int64
	crashAt  int64 // the step that is the last one; 0: none
	halted   bool
	haltedCh chan struct{}

	pebble      *vfs.MemFS
	pebbleFiles map[string]*inode // what its files take
	scratch     *vfs.MemFS        // what the dead process writes through Pebble
	inodes      uint64
}

// New returns an empty disk.
func New(o Options) *Disk {
	d := &Disk{
		rng: rand.New(rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)), hook: o.Hook, after: o.After, capacity: o.Capacity, direct: o.Direct,
		openFiles: o.OpenFiles, pebble: vfs.NewCrashableMem(),
	}
	d.root = d.newInode(true)
	d.boot()
	return d
}

func (d *Disk) boot() {
	d.locks = make(map[string]bool)
	d.scratch = vfs.NewMem()
	d.pebbleFiles = make(map[string]*inode)
	d.haltedCh = make(chan struct{})
}

// Direct is for disk.IsDirect.
func (d *Disk) Direct() bool { return d.direct }

// SetHook replaces Options.Hook; nil removes it.
func (d *Disk) SetHook(hook func(Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = hook
}

// SetAfter replaces Options.After; nil removes it.
func (d *Disk) SetAfter(after func(Op, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = after
}

// SetCapacity replaces Options.Capacity. What is above Used is free: set to it, somebody else has filled the disk.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// SetOpenFiles replaces Options.OpenFiles.
func (d *Disk) SetOpenFiles(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.openFiles = n
}

// Used returns the bytes that all files take, as Capacity counts them.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used
}

// Steps returns the number of operations so far that change something, those of Pebble included.
func (d *Disk) Steps() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// CrashAt halts the disk at the n-th operation from now that changes something, which is done, not done, or done in part.
// n < 1 takes the order back.
func (d *Disk) CrashAt(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashAt = 0
	if n >= 1 {
		d.crashAt = d.steps + n
	}
}

// Halt ends this boot: every later call fails.
func (d *Disk) Halt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.halt()
}

func (d *Disk) halt() {
	if !d.halted {
		d.halted = true
		close(d.haltedCh)
	}
}

// Halted tells whether this boot has ended. What the process above learned before Halted turned true, it learned in time.
func (d *Disk) Halted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.halted
}

// Done is closed when this boot ends.
func (d *Disk) Done() <-chan struct{} { return d.haltedCh }

// Crash ends this boot, if it has not ended, and returns the next one. It is called once: the content moves over.
// Hook, After and Capacity stay; a pending CrashAt does not.
func (d *Disk) Crash(k Kind) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.halt()
	next := &Disk{
		rng: d.rng, hook: d.hook, after: d.after, capacity: d.capacity, direct: d.direct, openFiles: d.openFiles,
		root: d.root, pending: d.pending, steps: d.steps, pebble: d.pebble, inodes: d.inodes,
	}
	d.root, d.pending, d.rng = nil, nil, nil
	next.boot()
	if k == PowerLoss {
		next.losePower()
	} else {
		next.forgetUnnamed()
	}
	next.count()
	return next
}

// losePower decides what of the unsynced is left. How much survives is drawn first, so that everything, nothing and all
// between happen often.
func (d *Disk) losePower() {
	keepNames := [...]int{0, 50, 50, 100}[d.rng.IntN(4)]
	for _, c := range d.pending {
		if d.rng.IntN(100) < keepNames {
			c.apply(func(dir *inode) map[string]*inode { return dir.durable })
		}
	}
	d.pending = nil
	keepBytes := [...]int{0, 50, 50, 100}[d.rng.IntN(4)]
	d.root.walk(func(n *inode) {
		if n.dir {
			clear(n.names)
			for name, child := range n.durable {
				n.names[name] = child
			}
		}
	})
	d.root.walk(func(n *inode) {
		keep := keepBytes
		if d.rng.IntN(3) == 0 { // files fare differently
			keep = [...]int{0, 50, 100}[d.rng.IntN(3)]
		}
		n.opens = 0
		n.losePower(d.rng, keep)
	})
	// All or nothing: Pebble relies on a marker not being there without the manifest it names, although it syncs the
	// directory only once for both. (Some of both is also not reproducible, since CrashClone walks maps.)
	keepPebble := [...]int{0, 0, 100}[d.rng.IntN(3)]
	d.pebble = d.pebble.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: keepPebble, RNG: rand.New(rand.NewPCG(d.rng.Uint64(), 0)),
	})
}

// forgetUnnamed is what a kill does beside ending the process: handles are gone, and with pages that a failed sync left
// clean the cache may part at any time.
func (d *Disk) forgetUnnamed() {
	d.root.walk(func(n *inode) {
		n.opens = 0
		n.dropLost(d.rng)
	})
}

// count takes stock of links and space after a crash.
func (d *Disk) count() {
	d.used = 0
	d.root.walk(func(n *inode) {
		d.used += n.taken
		n.links = 0
	})
	d.root.walk(func(n *inode) {
		for _, child := range n.names {
			child.links++
		}
	})
	d.countPebble("/")
}

// Flip changes bits of a byte of a file as bit rot does: on the medium and in the cache.
func (d *Disk) Flip(name string, off int64, mask byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root == nil {
		return ErrHalted // the content has moved to the next boot
	}
	n, err := d.find("flip", name)
	if err != nil {
		return err
	}
	if n.dir || off < 0 || off >= n.size {
		return fmt.Errorf("disksim: flip %s: no byte %d", name, off)
	}
	n.flip(off, mask)
	return nil
}

// FreeBytes returns what Capacity leaves.
func (d *Disk) FreeBytes(string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return 0, ErrHalted
	}
	if d.capacity == 0 {
		return 1 << 50, nil
	}
	return max(d.capacity-d.used, 0), nil
}

// take accounts for n to hold at least bytes, or says that there is no room.
func (d *Disk) take(n *inode, bytes int64) error {
	bytes = disk.RoundUp(bytes)
	if bytes <= n.taken {
		return nil
	}
	if d.capacity != 0 && d.used+bytes-n.taken > d.capacity {
		return disk.ErrNoSpace
	}
	d.used += bytes - n.taken
	n.taken = bytes
	return nil
}

func (d *Disk) giveBack(n *inode, bytes int64) {
	if bytes = disk.RoundUp(bytes); bytes < n.taken {
		d.used -= n.taken - bytes
		n.taken = bytes
	}
}

// Lock implements disk.FS. The lock ends with the boot.
func (d *Disk) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return nil, ErrHalted
	}
	name = clean(name)
	if d.locks[name] {
		return nil, &disk.LockedError{Name: name}
	}
	d.locks[name] = true
	return &lock{d: d, name: name}, nil
}

type lock struct {
	d    *Disk
	name string
}

func (l *lock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if !l.d.locks[l.name] {
		return fs.ErrClosed
	}
	delete(l.d.locks, l.name)
	return nil
}
