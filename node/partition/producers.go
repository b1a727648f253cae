package partition

import (
	"fmt"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// defaultMaxProducers times the size of a producer, about 240 bytes in memory and 30 to 80 in a stored view, is what a partition's view
// may take: 24 MB, and 3 to 8.
const defaultMaxProducers = 100_000

// Limits bound the producers of which a leader takes batches. They are about what it admits, never about what a replica derives from
// its log: leaders of one partition may have different ones. Zero values are replaced by defaults.
type Limits struct {
	// MaxProducers is how many producers a partition remembers. A batch of yet another one is refused: whoever is remembered was
	// promised that.
	MaxProducers int
	// Budget is what the partitions of a node share; nil: as much as they like.
	Budget *Budget
	// Next returns the first producer id that was not given out, as far as this node knows; nil: all were. Only whoever is not
	// remembered is held against it: what the log has was given out, and this node may have heard less of it than its log.
	Next func() id.Producer
	// MayTrim tells whether the log start may be moved: not before all nodes of the cluster know how. nil: it may.
	MayTrim func() error
	// Internal tells whether a topic is the system's own, of which no records are deleted. nil: none is.
	Internal func(topic string) bool
	// Trims is what the partitions of a node share about log starts that they move; nil: one of its own.
	Trims *Trims
}

func (l Limits) withDefaults() Limits {
	if l.MaxProducers <= 0 {
		l.MaxProducers = defaultMaxProducers
	}
	if l.Budget == nil {
		l.Budget = &Budget{}
	}
	if l.Trims == nil {
		l.Trims = &Trims{}
	}
	return l
}

// Budget bounds the producers that all partitions of a node remember together.
type Budget struct {
	Most int64 // 0: any number
	used atomic.Int64
}

func (b *Budget) full() bool { return b.Most > 0 && b.used.Load() >= b.Most }

// Producers is the producer view of one partition, which makes sending a batch again harmless. For each producer id it holds
// the epoch and the last five batches, in two layers:
//
//	view     fold of the batches <= applied: the same on all replicas, goes into cuts and snapshots
//	overlay  the batches above applied that are in the log but may still be truncated away
//
// A batch is checked against both: a retry of a batch that is not yet committed is recognised and waits for the original.
//
// Invariant: the overlay holds exactly the idempotent batches of the entries (applied, last index], in order.
// Invariant: the view is a function of the applied entries alone. Producers are forgotten where an entry says so, which a leader proposes
// by its clock (expiry.go): never by the batches' timestamps, which are anybody's to choose, and never to make room.
//
// It is not safe for concurrent use: the group's worker owns it. In the long run no call allocates.
type Producers struct {
	limits   Limits
	ids      map[id.Producer]int32 // to slots
	slots    []producer
	free     int32 // first of the unused slots
	oldest   int32 // the producer of the view whose last batch is longest ago; noSlot: the view is empty
	newest   int32
	viewSize int
	overlay  overlay
}

// producer is one producer id: in the view, in the overlay, or in both.
type producer struct {
	id     id.Producer
	inView bool
	view   producerState

	// In the view, producers form a list in the order of their last batches. Unused slots are chained by older.
	older, newer int32

	// pending is the newest of its batches in the overlay; none when there are none.
	pending position
}

const (
	noSlot int32 = -1
	// manySlots is how many slots stay when a rush of producers is over.
	manySlots int = 1000
)

// NewProducers returns a view without producers: that of an empty log.
func NewProducers(limits Limits) *Producers {
	p := &Producers{limits: limits.withDefaults()}
	p.clear()
	return p
}

func (p *Producers) clear() {
	p.limits.Budget.used.Add(-int64(len(p.ids)))
	clear(p.ids)
	p.slots = p.slots[:0]
	p.free, p.oldest, p.newest = noSlot, noSlot, noSlot
	p.viewSize = 0
	p.overlay.clear()
}

// Len is the number of producers in the view.
func (p *Producers) Len() int { return p.viewSize }

// Pending is the number of batches in the overlay.
func (p *Producers) Pending() int { return p.overlay.len() }

// Verdict is what Check finds. The zero value says that the batch may be appended.
type Verdict struct {
	// Duplicate says that the batch is in the log already, as the entry (Index, Term). The answer to its producer is the
	// original's, once that is committed.
	Duplicate  bool
	Index      id.Index
	Term       id.Term
	BaseOffset id.Offset
}

// Check tells whether b may be appended at the end of the log, and changes nothing. Its errors are *SequenceError,
// ErrUnknownProducer and ErrTooManyProducers.
// The rules are Kafka's:
//
//   - a batch of the current epoch with first and last sequence of one of the last five batches is a duplicate;
//   - a producer that is not known may begin anywhere; a new epoch begins at 0; an older one is refused;
//   - else the first sequence must follow the last one, which wraps from 2^31-1 to 0.
//
// Of what would be out of order, batches that lie whole within an unbroken run of records known to be in the log give
// ErrDuplicateSequence. Producers take that for success, so it is never said on a guess: what came before a gap in our memory
// is out of order.
func (p *Producers) Check(b batch.Batch) (Verdict, error) {
	if b.Producer() < 0 {
		return Verdict{}, nil
	}
	slot, known := p.ids[b.Producer()]
	if !known {
		if p.limits.Next != nil && b.Producer() >= p.limits.Next() {
			return Verdict{}, ErrUnknownProducer
		}
		if len(p.ids) >= p.limits.MaxProducers || p.limits.Budget.full() {
			return Verdict{}, ErrTooManyProducers
		}
		return Verdict{}, nil
	}
	s := &p.slots[slot]
	run := p.run(s)
	epoch, first := b.ProducerEpoch(), b.BaseSequence()
	switch {
	case epoch > run.epoch && first == 0:
		return Verdict{}, nil
	case epoch > run.epoch:
		return Verdict{}, refuse(ErrOutOfOrderSequence, b, run)
	case epoch < run.epoch:
		return Verdict{}, refuse(ErrInvalidProducerEpoch, b, run)
	}
	if original := p.find(s, epoch, first, b.LastSequence()); original != nil {
		return Verdict{Duplicate: true, Index: original.index, Term: original.term, BaseOffset: original.offset}, nil
	}
	switch {
	case first == run.last.Add(1):
		return Verdict{}, nil
	case run.holds(first, b.LastOffsetDelta()):
		return Verdict{}, refuse(ErrDuplicateSequence, b, run)
	}
	return Verdict{}, refuse(ErrOutOfOrderSequence, b, run)
}

// run is where the producer stands at the end of the log.
func (p *Producers) run(s *producer) run {
	if s.pending != none {
		return p.overlay.at(s.pending).run()
	}
	return s.view.run()
}

// find looks for a batch among the last five of its epoch, newest first: the overlay's, then the view's.
func (p *Producers) find(s *producer, epoch id.ProducerEpoch, first, last id.Sequence) *sentBatch {
	left := rememberedBatches
	for at := s.pending; at != none && left > 0; left-- {
		b := p.overlay.at(at)
		if b.epoch != epoch {
			return nil
		}
		if b.first == first && b.last == last {
			return &b.sentBatch
		}
		at = p.overlay.before(b)
	}
	if !s.inView || s.view.epoch != epoch {
		return nil
	}
	for i := int(s.view.count) - 1; i >= 0 && left > 0; i, left = i-1, left-1 {
		if b := &s.view.batches[i]; b.first == first && b.last == last {
			return b
		}
	}
	return nil
}

// Append notes that b, with its base offset stamped, entered the log at index, which is behind all others there. Batches
// without a producer id are ignored.
func (p *Producers) Append(index id.Index, term id.Term, b batch.Batch) {
	if b.Producer() < 0 {
		return
	}
	slot := p.slot(b.Producer())
	s := &p.slots[slot]
	known := s.inView || s.pending != none
	var r run
	if known {
		r = p.run(s)
	}
	e := pendingBatch{sentBatch: sent(index, term, b), slot: slot, epoch: b.ProducerEpoch(), before: s.pending}
	e.accepted = r.next(known, e.epoch, &e.sentBatch).accepted
	s.pending = p.overlay.push(e)
}

// Truncate notes that the entries from index on left the log: their batches are as if they had never been there.
func (p *Producers) Truncate(from id.Index) {
	for p.overlay.len() > 0 && p.overlay.back().index >= from {
		e := p.overlay.popBack()
		s := &p.slots[e.slot]
		s.pending = p.overlay.before(&e)
		p.releaseUnused(e.slot)
	}
}

// Apply moves b, the batch of the committed entry at index, from the overlay into the view. Batches without a producer id are ignored.
// During replay, when nothing was appended before, it goes straight into the view.
func (p *Producers) Apply(index id.Index, term id.Term, b batch.Batch) {
	if p.overlay.len() > 0 && p.overlay.front().index <= index {
		e := p.overlay.popFront()
		if e.index != index || e.term != term {
			panic(fmt.Sprintf("partition: applied entry %d of term %d, but the log holds %d of term %d", index, term, e.index, e.term))
		}
		if s := &p.slots[e.slot]; !p.overlay.holds(s.pending) {
			s.pending = none
		}
	}
	if b.Producer() < 0 {
		return
	}
	slot := p.slot(b.Producer())
	p.touch(slot)
	p.slots[slot].view.fold(b.ProducerEpoch(), sent(index, term, b))
}

// Forget drops from the view the producers whose last batch in it is the entry through or one before. What the overlay has of them stays
// there, and brings them back when it is applied.
func (p *Producers) Forget(through id.Index) {
	for p.oldest != noSlot && p.Oldest() <= through {
		slot := p.oldest
		s := &p.slots[slot]
		p.unlink(slot)
		s.inView, s.view = false, producerState{}
		p.releaseUnused(slot)
	}
	if len(p.ids) == 0 && len(p.slots) > manySlots { // the memory of a rush
		p.ids, p.slots, p.free = nil, nil, noSlot
	}
}

// Oldest is the last batch of the producer of the view that has been silent for longest; 0: there is none.
func (p *Producers) Oldest() id.Index {
	if p.oldest == noSlot {
		return 0
	}
	return p.slots[p.oldest].view.last().index
}

// touch makes the producer the newest of the view.
func (p *Producers) touch(slot int32) {
	if p.newest == slot {
		return
	}
	s := &p.slots[slot]
	if s.inView {
		p.unlink(slot)
	}
	s.inView = true
	s.older, s.newer = p.newest, noSlot
	if p.newest != noSlot {
		p.slots[p.newest].newer = slot
	} else {
		p.oldest = slot
	}
	p.newest = slot
	p.viewSize++
}

// unlink takes the producer out of the list of the view.
func (p *Producers) unlink(slot int32) {
	s := &p.slots[slot]
	if s.older != noSlot {
		p.slots[s.older].newer = s.newer
	} else {
		p.oldest = s.newer
	}
	if s.newer != noSlot {
		p.slots[s.newer].older = s.older
	} else {
		p.newest = s.older
	}
	p.viewSize--
}

// slot finds the producer, or makes room for it.
func (p *Producers) slot(producerID id.Producer) int32 {
	if slot, ok := p.ids[producerID]; ok {
		return slot
	}
	slot := p.free
	if slot != noSlot {
		p.free = p.slots[slot].older
	} else {
		slot = int32(len(p.slots))
		p.slots = append(p.slots, producer{})
	}
	p.slots[slot] = producer{id: producerID, older: noSlot, newer: noSlot}
	if p.ids == nil {
		p.ids = make(map[id.Producer]int32)
	}
	p.ids[producerID] = slot
	p.limits.Budget.used.Add(1)
	return slot
}

// releaseUnused gives the slot back if its producer is neither in the view nor in the overlay.
func (p *Producers) releaseUnused(slot int32) {
	s := &p.slots[slot]
	if s.inView || s.pending != none {
		return
	}
	delete(p.ids, s.id)
	p.limits.Budget.used.Add(-1)
	*s = producer{older: p.free}
	p.free = slot
}
