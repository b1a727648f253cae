package client

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// watchInterval is how often the consumer looks after its streams and partitions.
	watchInterval = 250 * time.Millisecond
	// frozenAfter is after how long without a sign of life from a node, which is asked for one twice a second, the consumer asks others
	// whether it still leads.
	frozenAfter = time.Second
	// silentAfter is after how long without an event of a partition it asks although the node lives, and has word from a majority: the
	// partition's other replicas may be those that it does not reach.
	silentAfter = 5 * time.Second
	// maxDamaged is how many unusable answers in a row it takes before Poll reports them.
	maxDamaged = 5
)

// fetchStream is one connection of a consumer to one node, from the dial to the first error. It has two goroutines: run dials
// and sends, the other one only receives.
type fetchStream struct {
	consumer *Consumer
	node     id.Node
	addr     string
	began    time.Time
	ctx      context.Context
	cancel   context.CancelFunc
	wake     chan struct{}
	conn     atomic.Pointer[rpc.FetchConn]

	subscriptions map[uint32]*cursor // guarded by the consumer's mutex

	mu struct {
		sync.Mutex
		commands []rpc.FetchCommand // to be sent
		events   int
		err      error
	}
}

func newFetchStream(c *Consumer, node id.Node, addr string) *fetchStream {
	s := &fetchStream{consumer: c, node: node, addr: addr, began: time.Now(), wake: make(chan struct{}, 1), subscriptions: make(map[uint32]*cursor)}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// command queues a command. There is at most one of each kind for a quarter of the credit, so the list stays short.
func (s *fetchStream) command(cmd rpc.FetchCommand) {
	s.mu.Lock()
	s.mu.commands = append(s.mu.commands, cmd)
	s.mu.Unlock()
	poke(s.wake)
}

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

// doubtful tells whether the node may be frozen or cut off: then others have to be asked who leads. It is not left for that alone, since it
// may be this process that was frozen, or there is nobody else.
func (s *fetchStream) doubtful(now time.Time) bool {
	conn := s.conn.Load()
	if conn == nil {
		return now.Sub(s.began) > dialDoubt
	}
	return conn.Silent() > frozenAfter || stale(conn.Age())
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
	b := c.mu.backoff[s.node]
	if healthy {
		b.delay = 0
	}
	b.delay = min(max(2*b.delay, nodeBackoffMin), nodeBackoffMax)
	b.until = time.Now().Add(b.delay/2 + rand.N(b.delay/2))
	b.cause = err
	c.mu.backoff[s.node] = b
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

func (c *Consumer) outOfRangeLocked(cur *cursor, e rpc.FetchEvent) {
	wanted := cur.next
	switch c.opts.OnOutOfRange {
	case ResetEarliest:
		cur.next = e.LogStart
	case ResetLatest:
		cur.next = e.HighWatermark
	default:
		c.failLocked(cur, &OutOfRangeError{TopicPartition: cur.tp, Offset: wanted, Start: e.LogStart, End: e.HighWatermark})
		return
	}
	c.client.opts.Logger.Info("offset out of range, reset", "partition", cur.tp.String(), "offset", wanted, "to", cur.next)
	c.unsubscribedLocked(cur, cur.nextDelay())
}

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
