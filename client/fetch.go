package client

import (
	"context"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc"
)

func (s *fetchStream) run() {
	ctx, cancel := context.WithTimeout(s.ctx, s.consumer.client.opts.DialTimeout)
	conn, err := s.consumer.client.dialer.DialFetch(ctx, s.addr)
	cancel()
	if err != nil {
		s.fail(fmt.Errorf("node %d at %s: %w", s.node, s.addr, err))
		return
	}
	defer conn.Close()
	if node := conn.Limits().Node; node != s.node {
		s.fail(s.consumer.client.cache.misplaced(s.addr, node, s.node))
		return
	}
	s.conn.Store(conn)
	s.consumer.wg.Go(func() {
		err := conn.Recv(s.event)
		s.fail(fmt.Errorf("node %d at %s: %w", s.node, s.addr, err))
	})
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		commands := s.mu.commands
		s.mu.commands = nil
		s.mu.Unlock()
		if len(commands) == 0 {
			continue
		}
		if err := conn.Send(commands...); err != nil {
			s.fail(fmt.Errorf("node %d at %s: %w", s.node, s.addr, err))
			return
		}
	}
}

// fail ends the stream and takes the cursors away from it.
func (s *fetchStream) fail(err error) {
	s.mu.Lock()
	if s.mu.err != nil {
		s.mu.Unlock()
		return
	}
	s.mu.err = err
	healthy := s.mu.events > 0
	s.mu.Unlock()
	s.cancel()
	if conn := s.conn.Load(); conn != nil {
		_ = conn.Close() // it is broken already, or nobody is interested any more
	}
	c := s.consumer
	if c.ctx.Err() == nil {
		c.client.opts.Logger.Info("stream to a node has ended", "node", s.node, "error", err)
		if s.conn.Load() != nil {
			c.client.cache.urgent(s.node)
		} else {
			c.client.cache.doubt(s.node)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.streams[s.node] == s {
		delete(c.mu.streams, s.node)
	}
	c.mu.backoff[s.node] = c.mu.backoff[s.node].after(err, healthy)
	for _, cur := range s.subscriptions {
		c.detachLocked(cur)
	}
	clear(s.subscriptions)
	poke(c.wake)
}

// event handles what the node sends, on the receiving goroutine. The bytes are copied and checked outside the mutex: the
// cursor's next offset can only be moved by this goroutine while the subscription lasts.
func (s *fetchStream) event(e rpc.FetchEvent) {
	c := s.consumer
	s.mu.Lock()
	s.mu.events++
	s.mu.Unlock()
	c.mu.Lock()
	cur := s.subscriptions[e.Subscription]
	if cur == nil {
		c.mu.Unlock()
		return // ended in the meantime
	}
	cur.heard = time.Now()
	want := cur.next
	c.mu.Unlock()

	if e.Code != kerr.None {
		s.ended(cur, e)
		return
	}
	next, good, err := checkBatches(e.Batches, want)
	var batches []byte
	if next > want {
		batches = c.spare.copyOf(e.Batches[:good])
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if s.subscriptions[e.Subscription] != cur {
		c.spare.put(batches)
		return
	}
	if !c.receivedLocked(cur, int64(len(e.Batches)), err == nil && next >= e.HighWatermark) {
		c.leaveLocked(cur)
		c.spare.put(batches)
		return
	}
	if err == nil || next > want {
		cur.damaged, cur.delay, cur.firm = 0, 0, false
	}
	if err != nil { // what comes before it is delivered
		defer c.damagedLocked(cur, e.HighWatermark, err)
		if batches == nil {
			return
		}
	}
	caughtUp, news := next >= e.HighWatermark, !cur.caughtUp
	cur.caughtUp = caughtUp
	defer c.allotLocked()
	defer c.refillLocked(cur)
	if batches == nil && (!caughtUp || !news) {
		return
	}
	cur.next, cur.caughtUp, cur.assigned = next, caughtUp, 0
	c.deliverLocked(&delivery{
		cursor: cur, subscription: cur.subscription, batches: batches, from: want, next: next, hw: e.HighWatermark, start: e.LogStart,
	})
}

// ended handles an event that ends its subscription.
func (s *fetchStream) ended(cur *cursor, e rpc.FetchEvent) {
	c := s.consumer
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.subscriptions[e.Subscription] != cur {
		return
	}
	delete(s.subscriptions, e.Subscription) // the node has forgotten it: nothing to unsubscribe
	c.detachLocked(cur)
	switch {
	case e.Code == kerr.OffsetOutOfRange:
		c.outOfRangeLocked(cur, e)
	case e.Code == kerr.NotLeaderOrFollower:
		// Nodes that name each other could send the subscription back and forth, in ever newer epochs: only the first hint is followed at once.
		again := cur.delay > 0
		pause := cur.nextDelay()
		hinted := e.Leader != s.node && c.client.cache.hint(cur.tp, cur.topicID, e.Leader, e.Epoch)
		switch {
		case !hinted:
			c.client.cache.requestFor(cur.tp.Topic)
		case !again:
			pause = 0
		}
		cur.firm = again
		c.unsubscribedLocked(cur, pause)
	case e.Code.Retriable():
		c.client.cache.requestFor(cur.tp.Topic)
		c.unsubscribedLocked(cur, cur.nextDelay())
	default:
		c.failLocked(cur, &PartitionError{cur.tp, &kerr.Error{Code: e.Code, Message: e.Message, Leader: e.Leader}})
	}
}
