package client

import (
	"time"

	"github.com/quorumlog/quorumlog/rpc"
)

// subscribeLocked asks the leader for everything from the cursor on. The cursor was admitted.
func (c *Consumer) subscribeLocked(cur *cursor, s *fetchStream, l leader, now time.Time) {
	c.mu.subscriptions++
	cur.stream, cur.subscription, cur.epoch, cur.topicID, cur.heard = s, c.mu.subscriptions, l.epoch, l.topic, now
	cur.granted, cur.caughtUp = c.targetLocked(cur), false
	c.expectLocked(cur, false)
	s.subscriptions[cur.subscription] = cur
	s.command(rpc.FetchCommand{
		Kind: rpc.Subscribe, Subscription: cur.subscription, Topic: l.topic, Partition: cur.tp.Partition,
		Offset: cur.next, Credit: cur.granted,
	})
}

// unsubscribedLocked handles the end of a subscription that the node ended, or whose answers are of no use.
func (c *Consumer) unsubscribedLocked(cur *cursor, pause time.Duration) {
	c.leaveLocked(cur)
	cur.notBefore = time.Now().Add(pause)
	poke(c.wake)
}

// leaveLocked ends a subscription, if there is one.
func (c *Consumer) leaveLocked(cur *cursor) {
	if s := cur.stream; s != nil {
		delete(s.subscriptions, cur.subscription)
		s.command(rpc.FetchCommand{Kind: rpc.Unsubscribe, Subscription: cur.subscription})
	}
	c.detachLocked(cur)
}

// dropLocked ends an assignment.
func (c *Consumer) dropLocked(cur *cursor) {
	c.leaveLocked(cur)
	delete(c.mu.cursors, cur.tp)
	c.discardLocked(cur)
	c.allotLocked()
}

// failLocked reports an error of a partition and stops it.
func (c *Consumer) failLocked(cur *cursor, err error) {
	c.leaveLocked(cur)
	cur.failed = true
	c.deliverLocked(&delivery{cursor: cur, err: err})
}

// finishLocked takes back what Poll had given out: there is room for more.
func (c *Consumer) finishLocked(d *delivery) {
	c.returnLocked(d)
	c.allotLocked()
}
