package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// verdict is what an answer means for its batch.
type verdict uint8

const (
	written   verdict = iota // it is in the log
	again                    // it may be written by another attempt, with the same sequence
	refused                  // it is not in the log and never will be
	restart                  // it is not in the log; the partition does not know the producer any more
	lostTrack                // whether it is in the log cannot be learned any more
	fenced                   // like lostTrack, and the producer id is of no more use
)

// maxOutOfOrder is how often a batch with nothing unanswered before it may be told to be out of order before that is believed.
const maxOutOfOrder = 4

// judgeLocked says what an answer to batch b, which is in flight, means.
func (q *queue) judgeLocked(b *pending, code kerr.Code) verdict {
	first := q.flight.head == b
	switch code {
	case kerr.None:
		return written
	case kerr.DuplicateSequence:
		// Written by an earlier attempt, so long ago that the node does not know the offset any more.
		return written
	case kerr.OutOfOrderSequence:
		if q.draining {
			return again
		}
		// Behind a batch that failed: its turn comes after that one.
		if !first || b.attempts < maxOutOfOrder {
			return again
		}
		return lostTrack
	case kerr.UnknownProducerID:
		if q.draining || first && !b.doubt {
			return restart
		}
		return lostTrack
	case kerr.InvalidProducerEpoch:
		return fenced
	case kerr.Unknown:
		return again // it says nothing about the batch, which may be in the log: "refused" would be a promise
	}
	if code.Retriable() {
		return again
	}
	return refused
}

// answered handles the answer to the attempt correlation of batch b.
func (q *queue) answered(b *pending, correlation uint64, r *rpc.ProduceResponse) {
	q.mu.Lock()
	if b.correlation != correlation {
		q.mu.Unlock() // the batch was put back since, and is or will be sent again
		return
	}
	now := time.Now()
	b.correlation = 0
	if r.Code != kerr.None {
		b.cause = &kerr.Error{Code: r.Code, Message: r.Message, Leader: r.Leader}
	}
	v := q.judgeLocked(b, r.Code)
	if !q.producer.idempotent() && v != written && v != again {
		v = refused
	}
	switch v {
	case written:
		q.delay, q.firm, q.established = 0, false, true
		offset := r.BaseOffset
		if r.Code != kerr.None {
			offset = id.NoOffset
		}
		b.endLocked(offset, nil)
	case again:
		b.doubt = b.doubt || !certain(r.Code)
		q.againLocked(now, r)
	case refused:
		switch {
		case b.doubt: // a node looks at a batch before it looks whether it has it already, by a clock and rules of its own
			b.endLocked(id.NoOffset, q.unacknowledged(b))
		case splits(r.Code):
			q.splitLocked(b, r.Oldest)
		default:
			b.endLocked(id.NoOffset, q.refusal(b))
		}
		if q.producer.idempotent() {
			q.draining, q.restart = true, true
		}
	case restart:
		q.draining, q.restart = true, true
	case lostTrack, fenced:
		b.endLocked(id.NoOffset, q.refusal(b))
		q.putBackLocked()
		if v == fenced {
			q.renounceLocked()
		}
		q.restartLocked(q.unacknowledged)
	}
	q.advanceLocked()
	q.drainedLocked(now)
	q.signalLocked()
	q.calledLocked()
	q.mu.Unlock()
}

// certain tells of a code after which the batch may come again that this attempt has not written it.
func certain(code kerr.Code) bool {
	switch code {
	case kerr.OutOfOrderSequence, kerr.ThrottlingQuotaExceeded, kerr.NotEnoughReplicas, kerr.UnknownTopicOrPartition,
		kerr.CoordinatorLoadInProgress:
		return true
	}
	return false
}

func (q *queue) refusal(b *pending) error {
	return &PartitionError{TopicPartition: q.tp, Err: b.cause}
}

// againLocked prepares another attempt of what failed with r.
func (q *queue) againLocked(now time.Time, r *rpc.ProduceResponse) {
	cache := &q.producer.client.cache
	firstFailure := q.delay == 0
	pause := q.nextDelayLocked()
	switch r.Code {
	case kerr.ThrottlingQuotaExceeded, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfter, kerr.OutOfOrderSequence,
		kerr.CoordinatorLoadInProgress: // it has not heard of the producer id yet
		// The node that leads said so: nobody else to ask.
	case kerr.NotLeaderOrFollower:
		// Nodes that are told of different leaders could send the batch back and forth: only the first hint is followed at once,
		// and a newer epoch, of which each of them can have one, changes nothing.
		q.firm = !firstFailure
		if r.Leader != q.nodeLocked() && cache.hint(q.tp, q.topicID, r.Leader, r.Epoch) && firstFailure {
			pause = 0
		} else {
			cache.requestFor(q.tp.Topic)
		}
	default:
		cache.requestFor(q.tp.Topic)
	}
	if !q.producer.idempotent() || q.draining {
		q.draining = true
		q.notBefore = now.Add(pause)
		return
	}
	q.putBackLocked()
	q.detachLocked(now, pause)
}

// drainedLocked ends draining when the last batch in flight has been answered.
func (q *queue) drainedLocked(now time.Time) {
	if !q.draining {
		return
	}
	for b := q.flight.head; b != nil; b = b.next {
		if b.correlation != 0 {
			return
		}
	}
	q.putBackLocked()
	if q.restart {
		q.restartLocked(q.unacknowledged)
	}
	q.draining = false
	q.stream, q.listed = nil, false
	if q.notBefore.Before(now) {
		q.notBefore = now
	}
	q.signalLocked()
}

// interruptLocked takes the batches in flight back from a stream that is not waited for any longer.
func (q *queue) interruptLocked(now time.Time, cause error) {
	for b := q.flight.head; b != nil; b = b.next {
		b.interrupt(cause)
	}
	q.drainedLocked(now)
	q.putBackLocked()
}

// expire ends the batches that have had no outcome within the delivery timeout.
func (q *queue) expire(now time.Time) {
	deadline := now.Add(-q.producer.opts.DeliveryTimeout)
	q.mu.Lock()
	if oldest := q.oldestLocked(); oldest == nil || oldest.created.After(deadline) || q.sending != nil {
		q.mu.Unlock()
		return
	}
	expired := func(b *pending) bool { return !b.created.After(deadline) }
	if sent := q.oldestSentLocked(); q.producer.idempotent() && sent != nil && expired(sent) {
		// Its sequence is taken, and nobody will ever know by what.
		q.putBackLocked()
		q.endSentLocked(expired)
		q.restartLocked(q.unacknowledged)
	} else if !q.producer.idempotent() {
		for b := q.flight.head; b != nil; b = b.next {
			if expired(b) && !b.done {
				b.endLocked(id.NoOffset, q.timeout(b))
			}
		}
	}
	q.expireWaitingLocked(expired)
	q.advanceLocked()
	q.drainedLocked(now)
	q.signalLocked()
	q.calledLocked()
	q.mu.Unlock()
}

// oldestSentLocked is the oldest batch without outcome that has a sequence; nil: none. It need not be the first one: what came from a partition
// that is gone is older than what was here before.
func (q *queue) oldestSentLocked() (oldest *pending) {
	for _, l := range []pendingList{q.flight, q.waiting} {
		for b := l.head; b != nil; b = b.next {
			if !b.done && b.sequenced && (oldest == nil || b.created.Before(oldest.created)) {
				oldest = b
			}
		}
	}
	return oldest
}

// endSentLocked ends the expired ones among the batches that wait with a sequence.
func (q *queue) endSentLocked(expired func(*pending) bool) {
	all := q.waiting.take()
	for b := all.popFront(); b != nil; b = all.popFront() {
		if b.sequenced && !b.done && expired(b) {
			b.endLocked(id.NoOffset, q.timeout(b))
			q.ended.pushBack(b)
		} else {
			q.waiting.pushBack(b)
		}
	}
}

// expireWaitingLocked ends expired batches that were never sent, or whose order nobody vouches for.
func (q *queue) expireWaitingLocked(expired func(*pending) bool) {
	if q.open != nil && expired(q.open) {
		q.closeOpenLocked()
	}
	all := q.waiting.take()
	for b := all.popFront(); b != nil; b = all.popFront() {
		if !b.done && expired(b) {
			b.endLocked(id.NoOffset, q.timeout(b))
			q.ended.pushBack(b)
		} else {
			q.waiting.pushBack(b)
		}
	}
}

func (q *queue) oldestLocked() *pending {
	for _, b := range []*pending{q.flight.head, q.waiting.head, q.open} {
		if b != nil {
			return b
		}
	}
	return nil
}

func (q *queue) timeout(b *pending) error {
	cause := b.cause
	if why := q.producer.obstacle(q.tp); cause == nil || errors.Is(why, ErrWrongCluster) {
		cause = why
	}
	if cause == nil {
		cause = q.producer.client.cache.because(errors.New("no answer from its leader"))
	}
	err := fmt.Errorf("%w: not acknowledged within %v: %w", ErrDeliveryTimeout, q.producer.opts.DeliveryTimeout, cause)
	return &PartitionError{TopicPartition: q.tp, Err: err}
}
