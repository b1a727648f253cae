package client

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// queue holds the batches of one partition until they have their outcome:
//
//	open ──▶ waiting ──▶ (sending) ──▶ flight ──▶ ended ──▶ callbacks
//	            ▲                        │
//	            └──── put back, in order ┘
//
// Invariant: everything in flight comes before everything in waiting, which comes before open, in the order of the records;
// sending, when set, comes between flight and waiting. Flight never spans more than MaxInFlight batches, so a node that
// remembers that many recognizes every batch which is sent again.
type queue struct {
	producer *Producer
	topic    *producerTopic
	tp       id.TopicPartition

	mu      sync.Mutex
	open    *pending    // takes records
	waiting pendingList // closed for records, not sent or put back
	sending *pending    // being encoded by the sender of stream, outside mu: nothing else is sent meanwhile
	flight  pendingList // sent; the head is the oldest without outcome
	ended   pendingList // have their outcome; callbacks are to be called
	calling pendingList // taken from ended by the caller: the head's callbacks are being called
	calls   bool        // in the list of the caller, or in its hands
	err     error       // closed, why

	stream    *stream // who sends; nil: the housekeeper looks for one when there is something to send
	recalled  bool    // sending is back in waiting, in its place: the sender may only keep what it has encoded
	listed    bool    // in the list of stream
	homeless  bool    // in the list of the housekeeper
	topicID   id.Topic
	epoch     id.Epoch      // of the leader that stream goes to
	notBefore time.Time     // no new stream before, unless a newer leader is known
	delay     time.Duration // that notBefore was made of
	firm      bool          // not before for a newer leader either

	identity     identity
	nextSequence id.Sequence
	// established: a batch of this identity is known to be written. Until then there is only one in flight: a partition that
	// does not know a producer takes any sequence for its first, so a second batch could be taken where the first one failed.
	established bool
	// draining: nothing is sent until every batch in flight is answered. Entered when a batch in flight was refused for good,
	// or, without idempotence, when one failed: what comes behind it may or may not have been written.
	draining bool
	restart  bool // with draining: sequences start anew afterwards

	late lateness // what was refused last for its timestamp
}

func newQueue(p *Producer, t *producerTopic, partition id.Partition) *queue {
	return &queue{
		producer: p,
		topic:    t,
		tp:       id.TopicPartition{Topic: t.name, Partition: partition},
		identity: noIdentity,
	}
}

// add appends a record to the open batch. pinned: the user has named the partition, it may go nowhere else.
func (q *queue) add(now time.Time, r batch.Record, charge int64, pinned bool, done recordCallback) error {
	q.mu.Lock()
	if err := q.err; err != nil {
		q.mu.Unlock()
		return err
	}
	b := q.open
	if b != nil && b.builder.LenWith(r) > q.batchLimit() {
		q.closeOpenLocked()
		b = nil
	}
	opened := b == nil
	if opened {
		b = newPending(now)
		q.open = b
	}
	b.append(r, charge, done)
	b.pinned = b.pinned || pinned
	lingers := opened && q.producer.opts.Linger > 0
	serial := b.serial
	q.signalLocked()
	q.mu.Unlock()
	if lingers {
		q.producer.house.linger(q, serial, now.Add(q.producer.opts.Linger))
	}
	q.producer.house.busy()
	return nil
}

func (q *queue) batchLimit() int {
	return min(q.producer.opts.BatchBytes, int(q.topic.maxMessageBytes.Load()))
}

// closeOpenLocked moves the open batch to those that wait.
func (q *queue) closeOpenLocked() {
	q.waiting.pushBack(q.open)
	q.open = nil
	q.topic.turn(q.producer, q.tp.Partition)
}

// hasWorkLocked tells whether there is a batch that could be sent now.
func (q *queue) hasWorkLocked() bool {
	limit := q.producer.opts.MaxInFlight
	if !q.established && q.producer.idempotent() {
		limit = 1
	}
	if q.sending != nil || q.draining || q.flight.n >= limit {
		return false
	}
	return q.waiting.head != nil || q.open != nil && (q.open.due || q.producer.opts.Linger == 0)
}

// signalLocked tells the stream's sender that there is work, or the housekeeper when there is no stream.
func (q *queue) signalLocked() {
	if !q.hasWorkLocked() {
		return
	}
	switch {
	case q.stream != nil && !q.listed:
		q.listed = true
		q.stream.push(q)
	case q.stream == nil && !q.homeless:
		q.homeless = true
		q.producer.house.take(q)
	}
}

// takeLocked removes the batch that is to be sent next; nil: none. The caller encodes it if it has no wire.
func (q *queue) takeLocked() *pending {
	if !q.hasWorkLocked() {
		return nil
	}
	b := q.waiting.popFront()
	for b != nil && (b.done || q.tooLateLocked(b)) {
		if b.done {
			q.flight.pushBack(b)
		} else {
			q.waiting.prepend(q.cutLocked(b, b.count()))
		}
		b = q.waiting.popFront()
	}
	if b == nil {
		q.advanceLocked()
		if !q.hasWorkLocked() {
			return nil
		}
		b, q.open = q.open, nil
		q.topic.turn(q.producer, q.tp.Partition)
	}
	if b.sequenced && b.identity != q.identity {
		b.forget() // it was being encoded when the sequences started anew
	}
	if !b.sequenced && q.producer.idempotent() {
		b.sequenced = true
		b.identity, b.sequence = q.identity, q.nextSequence
		b.wire = nil
		q.nextSequence = q.nextSequence.Add(int32(b.count()))
	}
	return b
}

// attach gives the queue a stream to the leader. False: not yet, it stays homeless.
func (q *queue) attach(s *stream, l leader) bool {
	q.mu.Lock()
	ok := q.attachLocked(s, l)
	q.calledLocked()
	q.mu.Unlock()
	return ok
}

func (q *queue) attachLocked(s *stream, l leader) bool {
	if q.err != nil {
		q.homeless = false
		return true
	}
	if q.topicID != l.topic && !q.topicID.IsZero() {
		// Another topic under the same name: nothing that was sent to the old one is known to it.
		q.putBackLocked()
		q.restartLocked(q.unacknowledged)
	}
	q.topicID = l.topic
	if q.producer.idempotent() && q.identity == noIdentity {
		given := q.producer.identity.Load()
		if given == nil {
			return false
		}
		q.identity, q.nextSequence, q.established = *given, 0, false
	}
	if s.failed() {
		return false
	}
	q.homeless = false
	q.epoch = l.epoch
	q.stream = s
	q.signalLocked()
	return true
}

// detachLocked takes the stream away. The next one is looked for after a pause that grows with each failure.
func (q *queue) detachLocked(now time.Time, pause time.Duration) {
	q.stream, q.listed = nil, false
	q.notBefore = now.Add(pause)
	q.signalLocked()
}

const (
	retryDelay    = 20 * time.Millisecond
	retryDelayMax = 400 * time.Millisecond
)

// nextDelayLocked is the pause after one more failure.
func (q *queue) nextDelayLocked() time.Duration {
	q.delay = min(max(2*q.delay, retryDelay), retryDelayMax)
	return q.delay
}

// putBackLocked returns everything in flight to the head of those that wait. With idempotence that is safe at any time: the
// attempts under way, if they are written at all, are recognized when the batches come again. Answers to them are ignored from
// here on. A batch that has its outcome already keeps its place, so that the callbacks keep theirs; it is not sent again.
func (q *queue) putBackLocked() {
	flight := q.flight.take()
	var back pendingList
	for b := flight.popFront(); b != nil; b = flight.popFront() {
		b.interrupt(nil)
		back.pushBack(b)
	}
	if q.sending != nil && !q.recalled && q.producer.opts.Acks != AcksNone {
		back.pushBack(q.sending) // it comes behind those that were in flight
		q.recalled = true
	}
	q.waiting.prepend(back)
	q.advanceLocked()
}

// interrupt gives up waiting for the answer to the attempt under way, if there is one.
func (b *pending) interrupt(cause error) {
	if b.correlation == 0 {
		return
	}
	b.correlation, b.doubt = 0, true
	if cause != nil {
		b.cause = cause
	}
}

// endLocked gives a batch its outcome.
func (b *pending) endLocked(offset id.Offset, err error) {
	b.done, b.offset, b.err, b.correlation = true, offset, err, 0
}

// advanceLocked moves the batches that have their outcome, and none without one before them, to those whose callbacks are
// called.
func (q *queue) advanceLocked() {
	for q.flight.head != nil && q.flight.head.done {
		q.ended.pushBack(q.flight.popFront())
	}
	if q.flight.head != nil || q.sending != nil {
		return
	}
	for q.waiting.head != nil && q.waiting.head.done {
		q.ended.pushBack(q.waiting.popFront())
	}
}

// restartLocked makes the sequences of what waits start anew under the next epoch, which fences every attempt of the old one.
// A batch in doubt cannot be sent under a new sequence, or it might be written twice, nor under its old one, which has a hole
// before it now: it ends with a reason.
func (q *queue) restartLocked(reason func(*pending) error) {
	all := q.waiting.take()
	for b := all.popFront(); b != nil; b = all.popFront() {
		if b.doubt && !b.done {
			b.endLocked(id.NoOffset, reason(b))
		}
		if !b.done {
			b.forget()
		}
		q.waiting.pushBack(b) // also with an outcome: callbacks keep their order
	}
	q.advanceLocked()
	q.draining, q.restart = false, false
	q.nextSequence, q.established = 0, false
	switch {
	case q.identity == noIdentity:
	case q.identity.epoch < math.MaxInt16:
		q.identity.epoch++
	default:
		q.renounceLocked()
	}
}

// unacknowledged is the usual reason.
func (q *queue) unacknowledged(b *pending) error {
	err := ErrUnacknowledged
	if b.cause != nil {
		err = fmt.Errorf("%w: %w", err, b.cause)
	}
	return &PartitionError{TopicPartition: q.tp, Err: err}
}

// renounceLocked gives up the producer id: it is used up, or the partition does not take it any more.
func (q *queue) renounceLocked() {
	q.producer.renewIdentity(q.identity.producer)
	q.identity = noIdentity
	q.detachLocked(time.Now(), 0)
}

// flush makes everything in the queue due, and f wait for it.
func (q *queue) flush(f *flush) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range []pendingList{q.calling, q.ended, q.flight, q.waiting} {
		for b := l.head; b != nil; b = b.next {
			f.add(b)
		}
	}
	for _, b := range []*pending{q.sending, q.open} {
		if b != nil && !(b == q.sending && q.recalled) {
			f.add(b)
		}
	}
	if q.open != nil {
		q.open.due = true
		q.signalLocked()
	}
}

// makeDue ends the linger of the open batch, if it is still the one with this serial. 0: whichever it is.
func (q *queue) makeDue(serial uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open != nil && (serial == 0 || q.open.serial == serial) {
		q.open.due = true
		q.signalLocked()
	}
}

// close ends everything in the queue with err, and refuses more.
func (q *queue) close(err error) {
	q.mu.Lock()
	q.err = err
	q.stream, q.listed = nil, false
	q.putBackLocked()
	if q.open != nil {
		q.waiting.pushBack(q.open)
		q.open = nil
	}
	all := q.waiting.take()
	for b := all.popFront(); b != nil; b = all.popFront() {
		if !b.done {
			b.endLocked(id.NoOffset, err)
		}
		q.ended.pushBack(b)
	}
	q.calledLocked()
	q.mu.Unlock()
}

func (q *queue) callBackOne(b *pending) {
	ack := Ack{TopicPartition: q.tp, Offset: b.offset, Err: b.err}
	for _, c := range b.callbacks {
		if b.offset != id.NoOffset {
			ack.Offset = b.offset + id.Offset(c.record)
		}
		ack.Timestamp, ack.Opaque = c.timestamp, c.opaque
		c.call(ack)
	}
	if f := q.producer.opts.OnBatch; f != nil {
		f(BatchAck{TopicPartition: q.tp, BaseOffset: b.offset, Count: b.count(), Latency: time.Since(b.created), Err: b.err})
	}
	q.producer.budget.release(b.charge)
}
