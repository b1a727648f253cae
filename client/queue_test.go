package client

import (
	"math"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// newTestQueue returns a queue whose producer has no goroutines: what would be sent is taken by hand.
func newTestQueue(t *testing.T) *queue {
	t.Helper()
	c, err := New(Options{Servers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p := &Producer{client: c, opts: ProducerOptions{}.withDefaults()}
	p.budget.init(1 << 20)
	p.topics.Store(&map[string]*producerTopic{})
	p.house.init(p)
	p.caller.init()
	p.ctx, p.cancel = c.ctx, c.cancel
	topic := &producerTopic{name: "test"}
	topic.maxMessageBytes.Store(DefaultMaxMessageBytes)
	q := newQueue(p, topic, 0)
	topic.queues.Store(&[]*queue{q})
	q.identity = identity{producer: 7}
	q.established = true
	return q
}

func (q *queue) addForTest(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := q.add(time.Now(), batch.Record{Value: []byte("v")}, 10, true, recordCallback{}); err != nil {
			t.Fatal(err)
		}
	}
}

// sendForTest does what a stream does with the next batch.
func (q *queue) sendForTest() *pending {
	b := q.takeLocked()
	if b != nil {
		b.attempts++
		b.correlation = q.producer.correlation.Add(1)
		q.flight.pushBack(b)
	}
	return b
}

func TestSequences(t *testing.T) {
	q := newTestQueue(t)
	var sent []*pending
	for i := range 3 {
		q.addForTest(t, i+1)
		sent = append(sent, q.sendForTest())
	}
	for i, want := range []id.Sequence{0, 1, 3} {
		if sent[i].sequence != want {
			t.Errorf("batch %d has sequence %d, want %d", i, sent[i].sequence, want)
		}
	}
	// What is put back comes again in order with the same sequences, before what is new.
	q.putBackLocked()
	q.addForTest(t, 1)
	for i, want := range []id.Sequence{0, 1, 3, 6} {
		if b := q.sendForTest(); b == nil || b.sequence != want || i < 3 && b != sent[i] {
			t.Fatalf("batch %d came back as %+v, want sequence %d", i, b, want)
		}
	}
}

func TestFlightIsBounded(t *testing.T) {
	q := newTestQueue(t)
	for range maxInFlight + 1 {
		q.addForTest(t, 1)
		q.sendForTest()
	}
	if q.flight.n != maxInFlight {
		t.Errorf("%d batches in flight", q.flight.n)
	}
	// An acknowledgement out of order frees no place: the node must still remember the oldest one.
	second := q.flight.head.next
	q.answered(second, second.correlation, &rpc.ProduceResponse{BaseOffset: 1})
	if b := q.sendForTest(); b != nil {
		t.Error("sent a batch that pushes the oldest one out of the node's memory")
	}
	first := q.flight.head
	q.answered(first, first.correlation, &rpc.ProduceResponse{BaseOffset: 0})
	if q.flight.n != maxInFlight-2 {
		t.Errorf("%d batches in flight", q.flight.n)
	}
}

func TestOldAnswersAreIgnored(t *testing.T) {
	q := newTestQueue(t)
	q.addForTest(t, 1)
	b := q.sendForTest()
	old := b.correlation
	q.putBackLocked()
	q.sendForTest()
	q.answered(b, old, &rpc.ProduceResponse{Code: kerr.InvalidRecord})
	if b.done {
		t.Error("the answer to an attempt that was given up ended the batch")
	}
}

func TestEpochsRunOut(t *testing.T) {
	q := newTestQueue(t)
	given := &identity{producer: 7}
	q.producer.identity.Store(given)
	q.identity.epoch = math.MaxInt16 - 1
	q.restartLocked(q.unacknowledged)
	if q.identity != (identity{producer: 7, epoch: math.MaxInt16}) {
		t.Errorf("identity %+v", q.identity)
	}
	q.restartLocked(q.unacknowledged)
	if q.identity != noIdentity || q.producer.identity.Load() != nil {
		t.Errorf("after the last epoch: identity %+v, the producer has %+v", q.identity, q.producer.identity.Load())
	}
}

// A restart keeps what was certainly not written, in order, and ends what may have been.
func TestRestart(t *testing.T) {
	q := newTestQueue(t)
	for range 3 {
		q.addForTest(t, 2)
		q.sendForTest()
	}
	first, second, third := q.flight.head, q.flight.head.next, q.flight.head.next.next
	first.correlation, second.correlation = 0, 0 // told to be out of order
	q.putBackLocked()                            // the third was never answered
	q.restartLocked(q.unacknowledged)
	if first.done || second.done || !third.done || third.err == nil {
		t.Fatalf("ended: %v %v %v", first.done, second.done, third.done)
	}
	if b := q.sendForTest(); b != first || b.sequence != 0 || b.identity.epoch != 1 {
		t.Errorf("first comes again as %+v", b)
	}
	if q.sendForTest() != nil {
		t.Error("a second batch is in flight before the first of the epoch is acknowledged")
	}
}

func TestPendingList(t *testing.T) {
	var l, front pendingList
	a, b, c, d := new(pending), new(pending), new(pending), new(pending)
	l.pushBack(c)
	l.pushBack(d)
	front.pushBack(b)
	front.pushFront(a)
	l.prepend(front)
	l.prepend(pendingList{})
	for i, want := range []*pending{a, b, c, d, nil} {
		if got := l.popFront(); got != want {
			t.Errorf("element %d is wrong", i)
		}
	}
	if l.n != 0 || l.tail != nil {
		t.Errorf("an empty list of %d", l.n)
	}
}

// TestExpiryOfAnOlderBatchBehind: what came from a partition that is gone is older than what was sent before it. No sequence may be left out.
func TestExpiryOfAnOlderBatchBehind(t *testing.T) {
	q := newTestQueue(t)
	now := time.Now()
	old := now.Add(-2 * q.producer.opts.DeliveryTimeout)
	var sent []*pending
	for _, created := range []time.Time{old, now, old} {
		q.addForTest(t, 1)
		b := q.sendForTest()
		b.created = created
		sent = append(sent, b)
	}
	q.putBackLocked()
	sent[0].endLocked(0, nil) // as a record that was refused alone
	if q.sendForTest() != sent[1] || q.flight.head != sent[0] || q.waiting.head != sent[2] {
		t.Fatal("the test is not what it seems")
	}
	q.expire(now)
	if q.identity.epoch != 1 {
		t.Error("what follows the batch that has expired is out of order for ever")
	}
}
