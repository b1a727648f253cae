package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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

// Limits bound the producer view. They decide what is forgotten, so all replicas of a partition need the same ones.
// Zero values are replaced by defaults.
type Limits struct {
	// MaxProducers is how many producers are remembered; beyond it the one that wrote longest ago is forgotten. 10,000.
	MaxProducers int

	// MaxAgeMillis is how long, in the time of the log, a producer is remembered after its last batch. 24 hours.
	MaxAgeMillis int64
}

func (l Limits) withDefaults() Limits {
	if l.MaxProducers <= 0 {
		l.MaxProducers = 10_000
	}
	if l.MaxAgeMillis <= 0 {
		l.MaxAgeMillis = 24 * 60 * 60 * 1000
	}
	return l
}

// clockStepMillis is how far one batch can move the time of the log. Timestamps are the producers' to choose: one batch from
// the far future must not make the partition forget everybody.
const clockStepMillis = 60 * 1000

// Producers is the producer view of one partition, which makes sending a batch again harmless. For each producer id it holds
// the epoch and the last five batches, in two layers:
//
//	view     fold of the batches <= applied: the same on all replicas, goes into cuts and snapshots
//	overlay  the batches above applied that are in the log but may still be truncated away
//
// A batch is checked against both: a retry of a batch that is not yet committed is recognised and waits for the original.
//
// Invariant: the overlay holds exactly the idempotent batches of the entries (applied, last index], in order.
// Invariant: the view is a function of the applied batches alone. What is forgotten is decided by the batches' timestamps
// and by counting, never by a clock, and at the moment a batch is applied.
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
	clock    int64 // time of the log, ms: see advanceClock. NoTimestamp at first
	overlay  overlay
}

// producer is one producer id: in the view, in the overlay, or in both.
type producer struct {
	id       id.Producer
	inView   bool
	view     producerState
	lastSeen int64 // time of the log at its last applied batch

	// In the view, producers form a list in the order of their last batches. Unused slots are chained by older.
	older, newer int32

	// pending is the newest of its batches in the overlay; none when there are none.
	pending position
}

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

const noSlot int32 = -1

// NewProducers returns a view without producers: that of an empty log.
func NewProducers(limits Limits) *Producers {
	p := &Producers{limits: limits.withDefaults()}
	p.clear()
	return p
}

func (p *Producers) clear() {
	clear(p.ids)
	p.slots = p.slots[:0]
	p.free, p.oldest, p.newest = noSlot, noSlot, noSlot
	p.viewSize = 0
	p.clock = batch.NoTimestamp
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

// Check tells whether b may be appended at the end of the log, and changes nothing. Its errors are *SequenceError. The rules
// are Kafka's:
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

func (s *producerState) run() run {
	return run{epoch: s.epoch, last: s.batches[s.count-1].last, accepted: s.accepted}
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

func sent(index id.Index, term id.Term, b batch.Batch) sentBatch {
	return sentBatch{first: b.BaseSequence(), last: b.LastSequence(), index: index, term: term, offset: b.BaseOffset()}
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

// Apply moves b, the batch of the committed entry at index, from the overlay into the view. It wants every batch of the log in
// order, also those without a producer id, because they move the time of the log. During replay, when nothing was appended
// before, it goes straight into the view.
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
	p.advanceClock(b.MaxTimestamp())
	if b.Producer() >= 0 {
		slot := p.slot(b.Producer())
		s := &p.slots[slot]
		s.view.fold(b.ProducerEpoch(), sent(index, term, b))
		s.lastSeen = p.clock
		p.touch(slot)
	}
	p.forget()
}

// advanceClock moves the time of the log, which is the largest timestamp of the applied batches, but comes closer to that in
// steps.
func (p *Producers) advanceClock(timestamp int64) {
	switch {
	case timestamp <= p.clock:
	case p.clock == batch.NoTimestamp:
		p.clock = timestamp
	default:
		p.clock += min(timestamp-p.clock, clockStepMillis)
	}
}

// forget drops from the view who is too old or too many. The list is in the order of lastSeen, so it looks at its end only.
func (p *Producers) forget() {
	for p.oldest != noSlot {
		s := &p.slots[p.oldest]
		if p.viewSize <= p.limits.MaxProducers && p.clock-s.lastSeen <= p.limits.MaxAgeMillis {
			return
		}
		slot := p.oldest
		p.unlink(slot)
		s.inView, s.view = false, producerState{}
		p.releaseUnused(slot)
	}
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
	return slot
}

// releaseUnused gives the slot back if its producer is neither in the view nor in the overlay.
func (p *Producers) releaseUnused(slot int32) {
	s := &p.slots[slot]
	if s.inView || s.pending != none {
		return
	}
	delete(p.ids, s.id)
	*s = producer{older: p.free}
	p.free = slot
}

// The view, as it stands in cuts and snapshots. Numbers are uvarints; "from" means as a difference to.
//
//	version    byte    1
//	clock      int64   time of the log, ms, as a zigzag varint
//	producers          how many, then for each, the one with the oldest last batch first
//	  id
//	  epoch
//	  lastSeen         from clock
//	  accepted         records without a gap up to the last one
//	  batches          1 to 5, then for each, oldest first
//	    first          sequence
//	    length         last sequence from first
//	    index          from that of the batch before; 0 before the first
//	    term           likewise
//	    offset         likewise
//	crc        uint32  CRC-32C of all before, big endian
const snapshotVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBadView refuses a stored producer view that cannot be read.
var ErrBadView = errors.New("producer view is damaged")

// Snapshot appends the view, without the overlay, to dst. Equal views give equal bytes.
func (p *Producers) Snapshot(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, snapshotVersion)
	dst = binary.AppendVarint(dst, p.clock)
	dst = binary.AppendUvarint(dst, uint64(p.viewSize))
	for slot := p.oldest; slot != noSlot; slot = p.slots[slot].newer {
		s := &p.slots[slot]
		dst = binary.AppendUvarint(dst, uint64(s.id))
		dst = binary.AppendUvarint(dst, uint64(s.view.epoch))
		dst = binary.AppendUvarint(dst, uint64(p.clock-s.lastSeen))
		dst = binary.AppendUvarint(dst, uint64(s.view.accepted))
		dst = binary.AppendUvarint(dst, uint64(s.view.count))
		var before sentBatch
		for i := range s.view.count {
			b := &s.view.batches[i]
			dst = binary.AppendUvarint(dst, uint64(b.first))
			dst = binary.AppendUvarint(dst, uint64(b.records()-1))
			dst = binary.AppendUvarint(dst, uint64(b.index-before.index))
			dst = binary.AppendUvarint(dst, uint64(b.term-before.term))
			dst = binary.AppendUvarint(dst, uint64(b.offset-before.offset))
			before = *b
		}
	}
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// Restore replaces the view by one that Snapshot made, and empties the overlay: b is the state as of the applied index, above
// which nothing was appended yet. Empty b is the view of an empty log. After an error the view is empty.
func (p *Producers) Restore(b []byte) error {
	p.clear()
	if len(b) == 0 {
		return nil
	}
	if reason := p.restore(b); reason != "" {
		p.clear()
		return fmt.Errorf("partition: %w: %s: replace this replica, or restore it from another", ErrBadView, reason)
	}
	return nil
}

func (p *Producers) restore(b []byte) (reason string) {
	body := len(b) - crc32.Size
	if body < 1 {
		return "too short"
	}
	if b[0] != snapshotVersion {
		return fmt.Sprintf("version %d is not known to this release", b[0])
	}
	if crc32.Checksum(b[:body], castagnoli) != binary.BigEndian.Uint32(b[body:]) {
		return "checksum mismatch"
	}
	d := viewDecoder{b: b[1:body]}
	p.clock = d.signed()
	for range d.number(math.MaxInt32) {
		producerID := id.Producer(d.number(math.MaxInt64))
		if _, twice := p.ids[producerID]; twice || d.failed {
			return "producers do not parse"
		}
		slot := p.slot(producerID)
		s := &p.slots[slot]
		s.view.epoch = id.ProducerEpoch(d.number(math.MaxInt16))
		s.lastSeen = p.clock - int64(d.number(math.MaxInt64))
		s.view.accepted = int32(d.number(math.MaxInt32))
		d.batches(&s.view)
		if d.failed || s.view.count == 0 {
			return "producers do not parse"
		}
		p.touch(slot)
	}
	if d.failed || len(d.b) > 0 {
		return "bytes left over"
	}
	p.forget()
	return ""
}

// viewDecoder takes numbers off b. After the first that is not there, or is too large, all are 0.
type viewDecoder struct {
	b      []byte
	failed bool
}

func (d *viewDecoder) number(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.failed || n <= 0 || v > limit {
		d.failed = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *viewDecoder) signed() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.failed = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *viewDecoder) batches(s *producerState) {
	s.count = uint8(d.number(rememberedBatches))
	var before sentBatch
	for i := range s.count {
		b := &s.batches[i]
		b.first = id.Sequence(d.number(math.MaxInt32))
		b.last = b.first.Add(int32(d.number(math.MaxInt32)))
		b.index = before.index + id.Index(d.number(math.MaxUint64))
		b.term = before.term + id.Term(d.number(math.MaxUint64))
		b.offset = before.offset + id.Offset(d.number(math.MaxInt64))
		before = *b
	}
}

// overlay is a queue of batches: appended and truncated at the back, applied from the front. Each knows the one before it of
// the same producer, so the last five of a producer are found without a search.
type overlay struct {
	ring []pendingBatch // a power of two
	head position       // of the front
	tail position       // after the back
	peak int            // longest since it was last empty
}

// position names a batch in the overlay: its number since the overlay was last cleared. Only a truncation makes a position free
// to be used again, and it takes away the batches that could point there first.
type position uint64

// none is no position: the first is 1.
const none position = 0

// pendingBatch is a batch in the log above applied.
type pendingBatch struct {
	sentBatch
	before   position // of the same producer; applied, and so no longer there, when it is less than head
	slot     int32
	accepted int32 // see run
	epoch    id.ProducerEpoch
}

func (b *pendingBatch) run() run { return run{epoch: b.epoch, last: b.last, accepted: b.accepted} }

func (o *overlay) clear() { *o = overlay{head: 1, tail: 1} }

func (o *overlay) len() int { return int(o.tail - o.head) }

func (o *overlay) at(p position) *pendingBatch { return &o.ring[uint64(p)&uint64(len(o.ring)-1)] }

func (o *overlay) front() *pendingBatch { return o.at(o.head) }

func (o *overlay) back() *pendingBatch { return o.at(o.tail - 1) }

func (o *overlay) holds(p position) bool { return p >= o.head && p < o.tail }

// before is the position of the batch before b, or none.
func (o *overlay) before(b *pendingBatch) position {
	if o.holds(b.before) {
		return b.before
	}
	return none
}

func (o *overlay) push(b pendingBatch) position {
	if o.len() > 0 && o.back().index >= b.index {
		panic(fmt.Sprintf("partition: appended entry %d behind %d, which was not truncated", b.index, o.back().index))
	}
	if o.len() == len(o.ring) {
		o.resize(max(2*len(o.ring), minRing))
	}
	p := o.tail
	o.tail++
	o.peak = max(o.peak, o.len())
	*o.at(p) = b
	return p
}

func (o *overlay) popFront() pendingBatch {
	b := *o.front()
	o.head++
	o.shrink()
	return b
}

func (o *overlay) popBack() pendingBatch {
	b := *o.back()
	o.tail--
	o.shrink()
	return b
}

const minRing = 8

// shrink gives memory back after a peak: partitions are many, and most of them are idle most of the time.
func (o *overlay) shrink() {
	if o.len() > 0 {
		return
	}
	if len(o.ring) > minRing && o.peak <= len(o.ring)/8 {
		o.resize(len(o.ring) / 2)
	}
	o.peak = 0
}

func (o *overlay) resize(size int) {
	ring := make([]pendingBatch, size)
	for p := o.head; p < o.tail; p++ {
		ring[uint64(p)&uint64(size-1)] = *o.at(p)
	}
	o.ring = ring
}
