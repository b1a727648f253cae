package wal

import (
	"fmt"
	"io"
	"sync"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// rowCacheBlocks bounds the blocks of indexes that are kept in memory, 4 KiB each.
const rowCacheBlocks = 2048

// rowCache keeps blocks of indexes, which never change once they are written. The oldest one goes first: the upper levels of
// a binary search come back soon enough, and a sequential reader needs each block for a short time only.
type rowCache struct {
	mu     sync.Mutex
	blocks map[rowBlockKey][]byte
	order  []rowBlockKey // a ring
	next   int
}

type rowBlockKey struct {
	sg    *seg
	block int64
}

// rowBlock returns a block of a segment's index. It is shared: not to be changed.
func (s *Store) rowBlock(l *Log, sg *seg, block int64) ([]byte, error) {
	key := rowBlockKey{sg, block}
	c := &s.rows
	c.mu.Lock()
	b := c.blocks[key]
	c.mu.Unlock()
	if b != nil {
		return b, nil
	}
	o, err := s.files.acquire(l, sg)
	if err != nil {
		return nil, err
	}
	defer s.files.release(o)
	b = disk.AlignedBytes(disk.BlockSize)
	n, err := o.index.ReadAt(b, block*disk.BlockSize)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("wal: index of segment %v of %v: %w", sg.key, l, err)
	}
	b = b[:n:n]
	c.add(key, b)
	return b, nil
}

// forget drops the blocks of a segment's index: the segment is gone, and the keys would keep it, or they are to be read from the disk
// again.
func (c *rowCache) forget(sg *seg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range c.order {
		if key.sg == sg {
			delete(c.blocks, key)
			c.order[i] = rowBlockKey{}
		}
	}
}

func (c *rowCache) add(key rowBlockKey, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key.sg.dropped.Load() { // before it is forgotten, or it is already
		return
	}
	if c.blocks == nil {
		c.blocks = make(map[rowBlockKey][]byte)
	}
	if _, ok := c.blocks[key]; !ok {
		if len(c.order) < rowCacheBlocks {
			c.order = append(c.order, key)
		} else {
			delete(c.blocks, c.order[c.next])
			c.order[c.next] = key
			c.next = (c.next + 1) % rowCacheBlocks
		}
	}
	c.blocks[key] = b
}
