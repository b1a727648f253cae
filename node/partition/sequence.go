package partition

import (
	"errors"
	"fmt"
	"math"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

var (
	// ErrOutOfOrderSequence refuses a batch that would leave a gap: an earlier one is missing. Kafka's
	// OUT_OF_ORDER_SEQUENCE_NUMBER. The producer sends what is missing first, or gives up its epoch.
	ErrOutOfOrderSequence = errors.New("out of order sequence number")

	// ErrDuplicateSequence says that all records of the batch are in the log, but so far back that their offset is not
	// known any more. Kafka's DUPLICATE_SEQUENCE_NUMBER: success without an offset.
	ErrDuplicateSequence = errors.New("duplicate sequence number")

	// ErrInvalidProducerEpoch refuses a batch of a producer that was replaced by a newer incarnation. Kafka's
	// INVALID_PRODUCER_EPOCH.
	ErrInvalidProducerEpoch = errors.New("invalid producer epoch")

	// ErrUnknownProducer refuses a batch of a producer id that was never given out: a partition remembers each producer for a day, and
	// has no room for made-up ones, whose ids others get later. The node may hear of an id a little later than its producer, which sends
	// the batch again then.
	ErrUnknownProducer = errors.New("the producer id was not given out, as far as this node knows: they come from InitProducerId")

	// ErrTooManyProducers refuses a batch of a producer that the partition does not know. Nothing was written, and it may come again.
	ErrTooManyProducers = errors.New("as many idempotent producers are remembered as there may be: a new one gets its place when another " +
		"has been silent for a day; share producers among what is written, or write without idempotence")
)

// SequenceError is why a batch of an idempotent producer was refused. It wraps one of the errors above.
type SequenceError struct {
	Err      error
	Producer id.Producer
	Epoch    id.ProducerEpoch // of the batch
	Sequence id.Sequence      // first of the batch
	Current  id.ProducerEpoch // of the producer, in the log
	Expected id.Sequence      // the next one to come in Current
}

func (e *SequenceError) Error() string {
	return fmt.Sprintf("partition: %v: producer %d sent sequence %d of epoch %d, expected is %d of epoch %d",
		e.Err, e.Producer, e.Sequence, e.Epoch, e.Expected, e.Current)
}

func (e *SequenceError) Unwrap() error { return e.Err }

// rememberedBatches is how many batches of a producer can be recognised when they are sent again. Kafka's number, and the
// reason why its clients have at most five requests in flight.
const rememberedBatches = 5

// producerState is the fold of a producer's batches.
type producerState struct {
	epoch    id.ProducerEpoch
	count    uint8                        // of batches; not 0 in the view
	accepted int32                        // see run
	batches  [rememberedBatches]sentBatch // oldest first
}

// sentBatch is a batch that is in the log.
type sentBatch struct {
	first, last id.Sequence
	index       id.Index
	term        id.Term
	offset      id.Offset // of the first record
}

func (b *sentBatch) records() int64 { return (int64(b.last)-int64(b.first))&math.MaxInt32 + 1 }

func sent(index id.Index, term id.Term, b batch.Batch) sentBatch {
	return sentBatch{first: b.BaseSequence(), last: b.LastSequence(), index: index, term: term, offset: b.BaseOffset()}
}

func refuse(err error, b batch.Batch, r run) error {
	return &SequenceError{
		Err: err, Producer: b.Producer(), Epoch: b.ProducerEpoch(), Sequence: b.BaseSequence(),
		Current: r.epoch, Expected: r.last.Add(1),
	}
}

// run is where a producer stands: the last sequence of its epoch, and how many records up to that one are known to be in the
// log without a gap.
type run struct {
	epoch    id.ProducerEpoch
	last     id.Sequence
	accepted int32
}

// holds tells whether the delta+1 sequences from first on are all among the accepted ones. Sequences wrap, so at most half of
// their range is taken for the past.
func (r run) holds(first id.Sequence, delta int32) bool {
	back := (int64(r.last.Add(1)) - int64(first)) & math.MaxInt32 // how many from first to the last one
	return back <= min(int64(r.accepted), 1<<30) && int64(delta) < back
}

// next is the run after b.
func (r run) next(known bool, epoch id.ProducerEpoch, b *sentBatch) run {
	accepted := b.records()
	if known && epoch == r.epoch && b.first == r.last.Add(1) {
		accepted += int64(r.accepted)
	}
	return run{epoch: epoch, last: b.last, accepted: int32(min(accepted, math.MaxInt32))}
}

func (s *producerState) last() *sentBatch { return &s.batches[s.count-1] }

func (s *producerState) run() run {
	return run{epoch: s.epoch, last: s.last().last, accepted: s.accepted}
}

// fold adds a batch to the state.
func (s *producerState) fold(epoch id.ProducerEpoch, b sentBatch) {
	known := s.count > 0
	var r run
	if known {
		r = s.run()
	}
	if known && epoch != s.epoch {
		s.count = 0
	}
	if s.count == rememberedBatches {
		copy(s.batches[:], s.batches[1:])
		s.count--
	}
	s.batches[s.count] = b
	s.count++
	s.epoch = epoch
	s.accepted = r.next(known, epoch, &b).accepted
}
