package disksim

import (
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// sector is the unit of tearing in bytes.
const sector = 512

// page is the content of a block. It never changes once it is in an inode; nil stands for zeros, so that preallocated and
// zero-filled files cost next to nothing.
type page [disk.BlockSize]byte

var zeroPage page

// inode is a file or a directory.
type inode struct {
	id  uint64
	dir bool

	// Of a directory: the names that the running system sees, and those that are sure to be there after a power loss.
	names, durable map[string]*inode

	// Of a file, as the running system sees it. Blocks that are not in the map are zero.
	size   int64
	blocks map[int64]*page
	// dirty holds for each block that was written since the last sync all its versions, the durable one first and the one
	// in blocks last.
	dirty map[int64][]*page
	// lost holds the durable version of blocks whose sync failed: the system takes them for clean, so that a later sync
	// leaves them alone.
	lost map[int64]*page
	// sizes are the lengths since the last sync, the durable one first; empty when the length is durable.
	sizes []int64

	taken int64 // bytes accounted for
	opens int   // handles
	links int   // names in directories, as the running system sees it
}

func (d *Disk) newInode(dir bool) *inode {
	d.inodes++
	n := &inode{id: d.inodes, dir: dir}
	if dir {
		n.names, n.durable = make(map[string]*inode), make(map[string]*inode)
	} else {
		n.blocks = make(map[int64]*page)
		n.dirty = make(map[int64][]*page)
		n.lost = make(map[int64]*page)
		n.sizes = []int64{0}
	}
	return n
}

// walk visits n and everything under it, each once, in an order that depends on names only.
func (n *inode) walk(visit func(*inode)) {
	seen := make(map[*inode]bool)
	var rec func(*inode)
	rec = func(n *inode) {
		if seen[n] {
			return
		}
		seen[n] = true
		visit(n)
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			rec(n.names[name])
		}
	}
	rec(n)
}

// set gives block b new content, unsynced.
func (n *inode) set(b int64, p *page) {
	if _, ok := n.dirty[b]; !ok {
		old := n.blocks[b]
		if durable, ok := n.lost[b]; ok {
			old = durable
			delete(n.lost, b)
		}
		n.dirty[b] = append(make([]*page, 0, 2), old)
	}
	n.dirty[b] = append(n.dirty[b], p)
	n.put(b, p)
}

func (n *inode) put(b int64, p *page) {
	if p == nil {
		delete(n.blocks, b)
	} else {
		n.blocks[b] = p
	}
}

func (n *inode) write(p []byte, off int64) {
	for at := 0; at < len(p); at += disk.BlockSize {
		src := (*page)(p[at:])
		var q *page
		if *src != zeroPage {
			q = new(page)
			*q = *src
		}
		n.set((off+int64(at))/disk.BlockSize, q)
	}
	if end := off + int64(len(p)); end > n.size {
		n.resize(end)
	}
}

func (n *inode) resize(size int64) {
	if len(n.sizes) == 0 {
		n.sizes = append(n.sizes, n.size)
	}
	n.sizes = append(n.sizes, size)
	n.size = size
}

// truncate zeroes what is cut off, in the last block too: that block is written again as a whole.
func (n *inode) truncate(size int64) {
	if size < n.size {
		first := disk.RoundUp(size) / disk.BlockSize
		for _, b := range slices.Sorted(maps.Keys(n.blocks)) {
			if b >= first {
				n.set(b, nil)
			}
		}
		if in := size % disk.BlockSize; in != 0 {
			b := size / disk.BlockSize
			if p := n.blocks[b]; p != nil {
				q := new(page)
				copy(q[:in], p[:in])
				n.set(b, q)
			}
		}
	}
	if size != n.size {
		n.resize(size)
	}
}

func (n *inode) read(p []byte, off int64) int {
	done := 0
	for done < len(p) && off < n.size {
		k := int(min(disk.BlockSize, n.size-off))
		if q := n.blocks[off/disk.BlockSize]; q != nil {
			copy(p[done:done+k], q[:k])
		} else {
			clear(p[done : done+k])
		}
		done, off = done+k, off+int64(k)
	}
	return done
}

func (n *inode) sync() {
	clear(n.dirty)
	n.sizes = n.sizes[:0]
}

// failSync is a sync that returned an error: some blocks are on the medium, of the others the system forgets that they are not.
func (n *inode) failSync(rng *rand.Rand, direct bool) {
	for _, b := range slices.Sorted(maps.Keys(n.dirty)) {
		if rng.IntN(2) == 0 {
			n.lost[b] = n.dirty[b][0]
		}
		delete(n.dirty, b)
	}
	if direct {
		for b, p := range n.lost {
			n.put(b, p)
		}
		clear(n.lost)
	}
}

// dropLost lets the cache forget blocks that it takes for clean: the medium's version is read next.
func (n *inode) dropLost(rng *rand.Rand) {
	for _, b := range slices.Sorted(maps.Keys(n.lost)) {
		if rng.IntN(2) == 0 {
			n.put(b, n.lost[b])
			delete(n.lost, b)
		}
	}
}

// losePower decides the fate of each block; keep is the percentage of them that get their newest content.
func (n *inode) losePower(rng *rand.Rand, keep int) {
	if n.dir {
		return
	}
	for _, b := range slices.Sorted(maps.Keys(n.lost)) {
		n.put(b, n.lost[b])
	}
	clear(n.lost)
	for _, b := range slices.Sorted(maps.Keys(n.dirty)) {
		n.put(b, survivor(rng, n.dirty[b], keep))
	}
	if len(n.sizes) > 0 {
		switch {
		case keep == 0:
			n.size = n.sizes[0]
		case keep < 100:
			n.size = n.sizes[rng.IntN(len(n.sizes))]
		}
	}
	n.sync()
	n.trim()
	n.taken = disk.RoundUp(n.size)
}

// trim drops what lies beyond the length.
func (n *inode) trim() {
	for b, p := range n.blocks {
		switch in := n.size - b*disk.BlockSize; {
		case in <= 0:
			delete(n.blocks, b)
		case in < disk.BlockSize:
			q := new(page)
			copy(q[:in], p[:in])
			n.blocks[b] = q
		}
	}
}

// survivor picks what a block holds after a power loss, from all the versions since the last sync.
func survivor(rng *rand.Rand, versions []*page, keep int) *page {
	last := versions[len(versions)-1]
	switch {
	case keep == 100:
		return last
	case keep == 0 && rng.IntN(8) != 0:
		return versions[0]
	case rng.IntN(100) < keep:
		return last
	}
	switch r := rng.IntN(10); {
	case r < 4:
		return versions[0]
	case r < 5:
		return versions[rng.IntN(len(versions))]
	case r < 8:
		return torn(rng, versions)
	default:
		return garbage(rng)
	}
}

// torn mixes versions sector by sector.
func torn(rng *rand.Rand, versions []*page) *page {
	q := new(page)
	for at := 0; at < disk.BlockSize; at += sector {
		if p := versions[rng.IntN(len(versions))]; p != nil {
			copy(q[at:at+sector], p[at:at+sector])
		}
	}
	return q
}

func garbage(rng *rand.Rand) *page {
	q := new(page)
	for i := range q {
		q[i] = byte(rng.Uint32())
	}
	return q
}

func (n *inode) flip(off int64, mask byte) {
	b := off / disk.BlockSize
	change := func(p *page) *page {
		q := new(page)
		if p != nil {
			*q = *p
		}
		q[off%disk.BlockSize] ^= mask
		return q
	}
	n.put(b, change(n.blocks[b]))
	if versions := n.dirty[b]; versions != nil {
		for i := range versions {
			versions[i] = change(versions[i])
		}
	}
}
