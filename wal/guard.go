package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// guard notices that Pebble does not give back what was stored.
//
// Pebble takes a bad record at the end of its log, or anywhere in its manifest, for one that was being written when the process died, and
// goes on with what stands before: after one flipped bit there it opens without a word, some time ago. Cuts, refusals, live journal files
// and the completed sequence would be older than what this node has acknowledged.
//
// So each batch carries a generation, which grows by one, and a digest of everything that is stored as of that batch. The digest tells
// whether the rest is what it was at that generation; and the newest generation that was synced stands a second time in a file beside
// Pebble, in one of two blocks in turn, written when the batch is durable and before anybody is told. What a crash may take of Pebble is
// younger than that. Generations that were not synced lie in between, so it is not the generation that says which block is next.
//
//	meta.guard, each block:          magic uint32 | version uint32 | generation uint64 | CRC-32C uint32 of these
//	key 'g' in Pebble:               generation uint64 | digest uint64, as of the batch that holds it
type guard struct {
	s    *Store
	file disk.File

	mu     sync.Mutex // held across Pebble's sync: it orders the batches
	block  []byte     // aligned
	newest int64      // which of the two blocks holds the newest generation: the other one is next
	gen    uint64     // of the last batch
	digest uint64     // the sum of all values of sums
	sums   map[string]uint64
	stale  bool // a batch failed: what is stored is to be read again before the next one
}

const (
	guardName    = "meta.guard"
	guardMagic   = 'Q' | 'L'<<8 | 'M'<<16 | 'G'<<24
	guardVersion = 1
	guardBytes   = 20
	guardBlocks  = 2
)

var guardKey = []byte("g")

// ErrDamagedRecords says that what Pebble holds cannot be read, or is not what was stored last. There is no going on: term, vote and
// acknowledged entries of any replica of this node may be among what is lost.
var ErrDamagedRecords = errors.New("this node's records are damaged: start it with an empty data directory and an unused node id; " +
	"its replicas are rebuilt from the others")

// damagedRecords gives an error its remedy.
func (s *Store) damagedRecords(err error) error {
	return fmt.Errorf("wal: %s: %w: %w", path.Join(s.o.Dir, "meta"), err, ErrDamagedRecords)
}

// open reads the newest generation that is vouched for; 0 when the store is new. Pebble is not open yet.
func (g *guard) open() error {
	fsys, name := g.s.fs, path.Join(g.s.o.Dir, guardName)
	g.block = disk.AlignedBytes(disk.BlockSize)
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wal: %w", shortage(err))
	}
	g.file = f
	for i := range int64(guardBlocks) {
		n, err := f.ReadAt(g.block, i*disk.BlockSize)
		switch {
		case err != nil && err != io.EOF && !disk.Unreadable(err): // one block is enough
			return fmt.Errorf("wal: read %s: %w", name, err)
		case (err == nil || err == io.EOF) && n >= guardBytes:
			if gen := parseGuard(g.block); gen > g.gen {
				g.gen, g.newest = gen, i
			}
		}
	}
	return nil
}

// create makes the file, before the first batch. One that is there already was left by a start that died before it stored anything.
func (g *guard) create() error {
	fsys, name := g.s.fs, path.Join(g.s.o.Dir, guardName)
	if g.file == nil {
		f, err := fsys.Create(name)
		if err != nil {
			return fmt.Errorf("wal: %w", err)
		}
		g.file = f
	}
	err := errors.Join(g.file.Preallocate(guardBlocks*disk.BlockSize), g.file.Sync(), fsys.SyncDir(g.s.o.Dir))
	if err != nil {
		return fmt.Errorf("wal: make %s: %w", name, err)
	}
	return nil
}

func (g *guard) close() error {
	if g.file == nil {
		return nil
	}
	return g.file.Close()
}

func putGuard(b []byte, gen uint64) {
	le := binary.LittleEndian
	clear(b)
	le.PutUint32(b, guardMagic)
	le.PutUint32(b[4:], guardVersion)
	le.PutUint64(b[8:], gen)
	le.PutUint32(b[16:], segment.Checksum(b[:16]))
}

// parseGuard returns 0 for a block that does not check.
func parseGuard(b []byte) uint64 {
	le := binary.LittleEndian
	if le.Uint32(b) != guardMagic || le.Uint32(b[4:]) != guardVersion || le.Uint32(b[16:]) != segment.Checksum(b[:16]) {
		return 0
	}
	return le.Uint64(b[8:])
}

// check compares what Pebble holds with what it should hold.
func (g *guard) check() error {
	vouched := g.gen
	gen, digest, err := g.read()
	if err != nil {
		return g.s.damagedRecords(err)
	}
	switch {
	case gen == 0 && vouched == 0:
		if len(g.sums) > 0 {
			return g.s.damagedRecords(fmt.Errorf("there are %d records, and not the one that counts them", len(g.sums)))
		}
		return g.create()
	case g.s.o.Fsync == FsyncNone: // whoever drops syncs has been told that a power failure may do this
		if g.file == nil {
			err = g.create()
		}
	case gen == 1 && vouched == 0 && g.file != nil && g.digest == digest:
		// The very first start died between its first batch, the format, and the block that vouches for it. Nothing else was stored.
	case gen < vouched:
		return g.s.damagedRecords(fmt.Errorf("the newest record is number %d, but number %d was stored", gen, vouched))
	case vouched == 0:
		return g.s.damagedRecords(fmt.Errorf("%s is gone or cannot be read, and nothing else says which record is the newest", guardName))
	case g.digest != digest:
		return g.s.damagedRecords(fmt.Errorf("the digest of all records is %016x instead of %016x: some are lost, or old", g.digest, digest))
	}
	g.gen = max(gen, vouched)
	return err
}

// read takes down what is stored, and returns generation and digest as Pebble has them. Called with mu, or by the start.
func (g *guard) read() (gen, digest uint64, err error) {
	it, err := g.s.meta.NewIter(nil)
	if err != nil {
		return 0, 0, err
	}
	g.sums, g.digest = make(map[string]uint64), 0
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()) == string(guardKey) {
			if v := it.Value(); len(v) == 16 {
				gen, digest = binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[8:])
			}
			continue
		}
		g.set(it.Key(), sumOf(it.Key(), it.Value()))
	}
	return gen, digest, it.Close()
}

// sumOf is never 0, which stands for "not stored".
func sumOf(key, value []byte) uint64 {
	d := xxhash.New()
	_, _ = d.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(key))))
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64() | 1
}

// set notes the sum of a key's new value; 0: it is deleted.
func (g *guard) set(key []byte, sum uint64) {
	g.digest += sum - g.sums[string(key)]
	if sum == 0 {
		delete(g.sums, string(key))
		return
	}
	g.sums[string(key)] = sum
}

// commit adds generation and digest to a batch and commits it. A batch that is synced is vouched for when commit returns.
func (g *guard) commit(b *pebble.Batch, o *pebble.WriteOptions) (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stale {
		gen, _, err := g.read()
		if err != nil {
			return err
		}
		g.gen = max(g.gen, gen)
	}
	g.stale = true
	for r := b.Reader(); ; {
		kind, key, value, ok, err := r.Next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch kind {
		case pebble.InternalKeyKindSet:
			g.set(key, sumOf(key, value))
		case pebble.InternalKeyKindDelete:
			g.set(key, 0)
		default:
			return fmt.Errorf("wal: broken invariant: a batch with an operation of kind %v", kind)
		}
	}
	v := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, g.gen+1), g.digest)
	if err := b.Set(guardKey, v, nil); err != nil {
		return err
	}
	if err := b.Commit(o); err != nil {
		return err
	}
	g.gen++
	g.stale = false
	if !o.Sync || g.s.failed() {
		return nil
	}
	putGuard(g.block, g.gen)
	next := (g.newest + 1) % guardBlocks
	if _, err := g.file.WriteSyncAt(g.block, next*disk.BlockSize); err != nil {
		err = fmt.Errorf("wal: write %s: %w", guardName, err)
		g.s.fail(err)
		return err
	}
	g.newest = next
	return nil
}
