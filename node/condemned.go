package node

import (
	"sync"

	"github.com/quorumlog/quorumlog/wal"
)

// condemned are the replicas whose logs were condemned while they were open: a read met rot, or their files cannot be made.
//
// Such a replica may not go on leading, for whoever needs the entry that rotted gets it from another replica; so it steps down at once.
// It is as good a voter and follower as before, though, whose acknowledgements are as durable: taking it out for good costs the group a
// vote and a copy until it is replaced. So that waits until a majority of the voters can vouch for what is committed without it. Until
// then, and for ever where there are no others, it serves what it can read: a partition without one record is better than none. A process
// that ends before forgets nothing that matters: the next read finds the rot again.
//
// Each voter is asked itself: its node may be alive while its replica is refused, or condemned as well. One that is condemned counts for
// nobody. So two that rot at the same time cannot both go because of each other: whichever is condemned later sees that the earlier one is,
// since that one was before it asked.
//
// A log whose files cannot be made is taken out in any case: what is appended to it would pile up in memory.
type condemned struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	waiting []*condemnedReplica
}

type condemnedReplica struct {
	log  *wal.Log
	kind wal.Condemnation
	wal.Refusal
	said string // what was logged last about its waiting
}

// add is the store's OnCondemned.
func (c *condemned) add(l *wal.Log, kind wal.Condemnation, r wal.Refusal) {
	c.mu.Lock()
	c.waiting = append(c.waiting, &condemnedReplica{log: l, kind: kind, Refusal: r})
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
