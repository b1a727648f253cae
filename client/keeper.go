package client

import (
	"fmt"
	"maps"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// watchInterval is how often the consumer looks after its streams and partitions.
	watchInterval = 250 * time.Millisecond
	// silentAfter is after how long without an event of a partition it asks although the node lives, and has word from a majority: the
	// partition's other replicas may be those that it does not reach.
	silentAfter = 5 * time.Second
)

// keepHouse is the goroutine that subscribes cursors without a stream, and looks after silent ones.
func (c *Consumer) keepHouse() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		changed := c.client.cache.changed()
		timer.Reset(c.subscribeAll(time.Now()))
		select {
		case <-c.ctx.Done():
			return
		case <-changed:
		case <-c.wake:
		case <-timer.C:
		}
	}
}

// subscribeAll subscribes what can be subscribed and returns after how long to look again.
func (c *Consumer) subscribeAll(now time.Time) time.Duration {
	known := c.client.cache.current.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := watchInterval
	for _, s := range c.mu.streams {
		if len(s.subscriptions) > 0 && s.doubtful(now) {
			c.client.cache.doubt(s.node)
		}
	}
	var resolve []*cursor
	for _, cur := range c.mu.cursors {
		switch {
		case cur.failed || cur.resolving:
		case cur.stream != nil:
			c.watchLocked(cur, known, now)
		case cur.next < 0:
			resolve = append(resolve, cur)
		default:
			next = min(next, c.findStreamLocked(cur, known, now))
		}
		if cur.stream == nil && cur.admitted { // others may have the room meanwhile
			c.detachLocked(cur)
		}
	}
	if len(resolve) > 0 {
		next = min(next, c.resolveLocked(resolve, known, now))
	}
	c.allotLocked()
	return next
}

// watchLocked leaves a node that does not lead any more, and asks about one that has been silent. The node of a newer epoch has all that this
// one can still send.
func (c *Consumer) watchLocked(cur *cursor, known *metadata, now time.Time) {
	l, ok := known.leader(cur.tp)
	moved := ok && l.supersedes(cur.stream.node, cur.stream.addr, cur.epoch)
	recreated := ok && l.topic != cur.topicID
	switch silent := now.Sub(cur.heard); {
	case recreated, moved:
		c.unsubscribedLocked(cur, 0)
	case silent > silentCredit && cur.reserved > 0:
		c.reserveLocked(cur, 0)
	case silent > silentAfter && now.Sub(c.mu.asked) > silentAfter:
		c.mu.asked = now
		c.client.cache.requestFor(cur.tp.Topic)
	}
}

// findStreamLocked subscribes one cursor, or returns after how long to try again.
func (c *Consumer) findStreamLocked(cur *cursor, known *metadata, now time.Time) time.Duration {
	l, ok := known.leader(cur.tp)
	if !ok {
		c.noLeaderLocked(cur, known)
		return watchInterval // or when the cache has news
	}
	if cur.topicID != l.topic && !cur.topicID.IsZero() && cur.next > 0 {
		c.recreatedLocked(cur)
		return 0
	}
	if pause := cur.notBefore.Sub(now); pause > 0 && (cur.firm || l.epoch <= cur.epoch) {
		return pause
	}
	s, wait := c.streamToLocked(l, now)
	if s == nil {
		c.client.cache.requestFor(cur.tp.Topic)
		return min(wait, refreshInterval)
	}
	if c.admitLocked(cur) {
		c.subscribeLocked(cur, s, l, now)
	}
	return watchInterval
}

// noLeaderLocked asks for the leader, or reports that there will not be one.
func (c *Consumer) noLeaderLocked(cur *cursor, known *metadata) {
	cache := &c.client.cache
	switch t := known.topics[cur.tp.Topic]; {
	case t != nil && int(cur.tp.Partition) >= len(t.partitions) && !cache.answeredSince(cur.tp.Topic, cur.born):
		cache.requestFor(cur.tp.Topic) // it may have been created again, or have more partitions since
	case t != nil && int(cur.tp.Partition) >= len(t.partitions):
		err := fmt.Errorf("%w %s: the topic has partitions 0 to %d", ErrUnknownPartition, cur.tp, len(t.partitions)-1)
		if cur.topicID != t.id && !cur.topicID.IsZero() {
			err = fmt.Errorf("%w (%w)", err, ErrTopicRecreated)
		}
		c.failLocked(cur, err)
	default:
		if err := cache.absent(cur.tp.Topic); t == nil && err != nil {
			c.failLocked(cur, &PartitionError{cur.tp, err})
			return
		}
		cache.want(cur.tp.Topic) // it may have been given up
		cache.requestFor(cur.tp.Topic)
	}
}

// streamToLocked returns the stream to a node and opens it if need be; nil: not before wait has passed.
func (c *Consumer) streamToLocked(l leader, now time.Time) (s *fetchStream, wait time.Duration) {
	if s := c.mu.streams[l.node]; s != nil && s.addr == l.addr {
		return s, 0
	} else if s != nil {
		delete(c.mu.streams, l.node)
		c.wg.Go(func() { s.fail(fmt.Errorf("node %d is at %s now", l.node, l.addr)) }) // which takes the consumer's mutex
	}
	if b := c.mu.backoff[l.node]; now.Before(b.until) {
		return nil, b.until.Sub(now)
	}
	if c.ctx.Err() != nil {
		return nil, time.Hour
	}
	s = newFetchStream(c, l.node, l.addr)
	c.mu.streams[l.node] = s
	c.wg.Go(s.run)
	return s, 0
}

// resolveLocked starts to ask what Beginning and End are, of the partitions whose leaders are known.
func (c *Consumer) resolveLocked(cursors []*cursor, known *metadata, now time.Time) time.Duration {
	next := watchInterval
	var ask []*cursor
	var tps []id.TopicPartition
	for _, cur := range cursors {
		pause := cur.notBefore.Sub(now)
		if l, ok := known.leader(cur.tp); !ok {
			c.noLeaderLocked(cur, known)
		} else if pause > 0 {
			next = min(next, pause)
		} else {
			// The answer is taken for one about this topic. If it is about the next one of the name already, the offset is dropped with the
			// topic's id.
			cur.resolving, cur.topicID = true, l.topic
			ask, tps = append(ask, cur), append(tps, cur.tp)
		}
	}
	if len(ask) > 0 {
		c.wg.Go(func() { c.resolve(ask, tps) })
	}
	return next
}

func (c *Consumer) resolve(ask []*cursor, tps []id.TopicPartition) {
	found, failed := c.client.listOffsets(c.ctx, tps)
	timed := c.resolveTimes(ask, failed)
	for tp := range failed {
		c.client.cache.requestFor(tp.Topic)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cur := range ask {
		cur.resolving = false
		r, at := found[cur.tp], timed[cur.tp]
		err := failed[cur.tp]
		switch {
		case err != nil && isFinal(err) && c.mu.cursors[cur.tp] == cur:
			c.failLocked(cur, &PartitionError{cur.tp, err})
		case err != nil:
			cur.notBefore = time.Now().Add(cur.nextDelay())
		case cur.next == Beginning:
			cur.next = r.Start
		case cur.next == End, at.Offset == End:
			cur.next = r.End
		default:
			cur.next = at.Offset
		}
	}
	poke(c.wake)
}

// resolveTimes asks for the offsets of those that begin at a time, once it is known where their partitions end: a record that comes in
// between is not left out where there is none of that time.
func (c *Consumer) resolveTimes(ask []*cursor, failed map[id.TopicPartition]error) map[id.TopicPartition]TimeOffset {
	times := make(map[id.TopicPartition]int64)
	c.mu.Lock()
	for _, cur := range ask {
		if cur.next == AtTime && failed[cur.tp] == nil {
			times[cur.tp] = cur.time
		}
	}
	c.mu.Unlock()
	if len(times) == 0 {
		return nil
	}
	found, missing := c.client.offsetsForTimes(c.ctx, times)
	maps.Copy(failed, missing)
	return found
}
