package limit

import (
	"fmt"
	"path/filepath"
	"sync"
)

// Layout says what is written where.
type Layout string

const (
	// Journal is one file of journalBytes for all partitions, written over and over through the page cache.
	Journal Layout = "journal"
	// Log is a file for each partition that grows, allocated ahead, written with O_DIRECT.
	Log Layout = "log"
)

const (
	journalBytes = 256 << 20
	aheadBytes   = 64 << 20
)

// filesOf is how many files hold the partitions.
func (l Layout) filesOf(partitions int) int {
	if l == Journal {
		return 1
	}
	return partitions
}

func fileName(dir string, file int) string { return filepath.Join(dir, fmt.Sprintf("%d.log", file)) }

// committer writes the frames of one file: while it syncs, the next ones gather, and are written and synced together.
type committer struct {
	file   int
	disk   *diskFile
	synced func(file int, sequence uint64)
	failed func(error)

	mu     sync.Mutex
	wake   sync.Cond
	queue  []*buffer
	spare  []*buffer
	closed bool
}

func newCommitter(disk *diskFile, file int, synced func(int, uint64), failed func(error)) *committer {
	c := &committer{file: file, disk: disk, synced: synced, failed: failed}
	c.wake.L = &c.mu
	return c
}

// push hands over a frame, with a reference.
func (c *committer) push(b *buffer) {
	c.mu.Lock()
	c.queue = append(c.queue, b)
	if len(c.queue) == 1 {
		c.wake.Signal()
	}
	c.mu.Unlock()
}

func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.wake.Signal()
	c.mu.Unlock()
}

func (c *committer) run() {
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.closed {
			c.wake.Wait()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		frames := c.queue
		c.queue, c.spare = c.spare[:0], frames
		c.mu.Unlock()
		if err := c.disk.commit(frames); err != nil {
			c.failed(fmt.Errorf("limit: cannot write: %w", err))
			return
		}
		last := headerOf(frames[len(frames)-1].b).sequence
		for _, b := range frames {
			b.release()
		}
		c.synced(c.file, last)
	}
}
