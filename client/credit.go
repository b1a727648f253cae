package client

import (
	"time"

	"github.com/quorumlog/quorumlog/rpc"
)

// ConsumerOptions.MaxBytes is one budget for all partitions. What Poll has not taken yet (held) and what nodes may be about to send (reserved)
// are together below it:
//
//	MaxBytes ≥ held + Σ over the partitions from which something is expected: (credit that is out + one piece more)
//
// A node sends a piece as long as there is credit, so one piece more than the credit may come. Each partition may have an equal share; if that is
// less than a piece, partitions have one piece at a time, in turn. Credit costs something only while data is expected for it: not of a
// partition that has caught up, or whose node is silent. If many of these have news at once, what would be more than MaxBytes is not
// kept: the subscription is left, and taken up again at the same offset when there is room. One piece is always taken if there is no other.
const (
	// firstPiece is how much a node is expected to send of a partition at a time, before it has sent any.
	firstPiece = 256 << 10
	// silentCredit is for how long credit is expected to be used.
	silentCredit = 500 * time.Millisecond
)

// targetLocked is how much credit a cursor has when it has its share.
func (c *Consumer) targetLocked(cur *cursor) int64 {
	return max(c.opts.MaxBytes/int64(max(len(c.mu.cursors), 1))-cur.piece, 1)
}

// reserveLocked sets what is kept for a cursor.
func (c *Consumer) reserveLocked(cur *cursor, n int64) {
	c.mu.reserved += n - cur.reserved
	cur.reserved = n
}

// roomLocked tells whether n bytes may be reserved for a cursor. One piece may always come, however large.
func (c *Consumer) roomLocked(cur *cursor, n int64) bool {
	others := c.mu.held + c.mu.reserved - cur.reserved
	return others == 0 || others+n <= c.opts.MaxBytes
}

// admitLocked tells whether a cursor may subscribe now. It has to wait for its turn otherwise.
func (c *Consumer) admitLocked(cur *cursor) bool {
	if cur.piece == 0 {
		cur.piece = firstPiece
	}
	need := c.targetLocked(cur) + cur.piece
	switch {
	case cur.admitted:
	case cur.queued:
		return false
	case len(c.mu.thirsty) > 0 || !c.roomLocked(cur, need):
		c.queueLocked(cur)
		return false
	default:
		c.reserveLocked(cur, need)
	}
	cur.admitted = false
	return true
}

func (c *Consumer) queueLocked(cur *cursor) {
	if !cur.queued {
		cur.queued = true
		c.mu.thirsty = append(c.mu.thirsty, cur)
	}
}

// receivedLocked takes what has come out of what was expected. False: there is no room for it, and the subscription has to be left; what it
// brought comes again in its turn.
func (c *Consumer) receivedLocked(cur *cursor, n int64, caughtUp bool) bool {
	cur.granted -= n
	if n > 0 {
		cur.piece = max(n, cur.piece-cur.piece/8)
	}
	if c.mu.held > 0 && c.mu.held+n > c.opts.MaxBytes {
		c.queueLocked(cur)
		return false
	}
	c.expectLocked(cur, caughtUp)
	return true
}

// expectLocked sets what is reserved for a cursor by its credit.
func (c *Consumer) expectLocked(cur *cursor, idle bool) {
	if idle || cur.granted <= 0 {
		c.reserveLocked(cur, 0)
	} else {
		c.reserveLocked(cur, cur.granted+cur.piece)
	}
}

// thirstyLocked tells whether it is worth a message to give a subscription more credit.
func (c *Consumer) thirstyLocked(cur *cursor) bool {
	target := c.targetLocked(cur)
	return cur.stream != nil && target-cur.granted >= max(target/4, 1)
}

// refillLocked gives a cursor its share again, now or in its turn.
func (c *Consumer) refillLocked(cur *cursor) {
	switch {
	case cur.queued || !c.thirstyLocked(cur):
	case len(c.mu.thirsty) > 0 || !c.grantLocked(cur):
		c.queueLocked(cur)
	}
}

// grantLocked is refillLocked if there is room.
func (c *Consumer) grantLocked(cur *cursor) bool {
	target := c.targetLocked(cur)
	if !cur.caughtUp && !c.roomLocked(cur, target+cur.piece) {
		return false
	}
	cur.stream.command(rpc.FetchCommand{Kind: rpc.Credit, Subscription: cur.subscription, Credit: target - cur.granted})
	cur.granted = target
	c.expectLocked(cur, cur.caughtUp)
	return true
}

// allotLocked gives room to those that wait for it, in the order in which they came. Called when there may be more.
func (c *Consumer) allotLocked() {
	for len(c.mu.thirsty) > 0 {
		cur := c.mu.thirsty[0]
		switch {
		case c.mu.cursors[cur.tp] != cur || cur.failed: // it is over
		case cur.stream == nil:
			need := c.targetLocked(cur) + cur.piece
			if !c.roomLocked(cur, need) {
				return
			}
			c.reserveLocked(cur, need)
			cur.admitted = true
			poke(c.wake) // the housekeeper subscribes
		case c.thirstyLocked(cur) && !c.grantLocked(cur):
			return
		}
		cur.queued = false
		c.mu.thirsty[0] = nil
		c.mu.thirsty = c.mu.thirsty[1:]
	}
}

// detachLocked notes that a cursor has no subscription any more.
func (c *Consumer) detachLocked(cur *cursor) {
	cur.stream, cur.admitted = nil, false
	c.reserveLocked(cur, 0)
}

// discardLocked forgets what was delivered for a cursor and is not taken yet.
func (c *Consumer) discardLocked(cur *cursor) {
	kept := c.mu.deliveries[:0]
	for _, d := range c.mu.deliveries {
		if d.cursor != cur {
			kept = append(kept, d)
			continue
		}
		c.returnLocked(d)
	}
	clear(c.mu.deliveries[len(kept):])
	c.mu.deliveries = kept
}

// returnLocked takes back the bytes of a delivery.
func (c *Consumer) returnLocked(d *delivery) {
	c.mu.held -= int64(len(d.batches))
	c.spare.put(d.batches)
	d.batches = nil
}
