package partition

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/quorumlog/quorumlog/wal/id"
)

// The section of producers. Numbers are uvarints; "from" means as a difference to.
//
//	producers          how many, then for each, the one with the oldest last batch first
//	  id
//	  epoch
//	  accepted         records without a gap up to the last one
//	  batches          1 to 5, then for each, oldest first
//	    first          sequence
//	    length         last sequence from first
//	    index          from that of the batch before; 0 before the first
//	    term           likewise
//	    offset         likewise

// Snapshot appends the view, without the overlay, to dst. Equal views give equal bytes.
func (p *Producers) Snapshot(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.viewSize))
	for slot := p.oldest; slot != noSlot; slot = p.slots[slot].newer {
		s := &p.slots[slot]
		dst = binary.AppendUvarint(dst, uint64(s.id))
		dst = binary.AppendUvarint(dst, uint64(s.view.epoch))
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
	return dst
}

// Restore replaces the view by one that Snapshot made, and empties the overlay: b is the state as of the applied index, above
// which nothing was appended yet. After an error the view is empty.
func (p *Producers) Restore(b []byte) error {
	p.clear()
	if reason := p.restore(b); reason != "" {
		p.clear()
		return fmt.Errorf("%w: %s", ErrBadView, reason)
	}
	return nil
}

func (p *Producers) restore(b []byte) (reason string) {
	d := viewDecoder{b: b}
	newest := id.Index(0)
	for range d.number(math.MaxInt32) {
		producerID := id.Producer(d.number(math.MaxInt64))
		if _, twice := p.ids[producerID]; twice || d.failed {
			return "producers do not parse"
		}
		slot := p.slot(producerID)
		s := &p.slots[slot]
		s.view.epoch = id.ProducerEpoch(d.number(math.MaxInt16))
		s.view.accepted = int32(d.number(math.MaxInt32))
		d.batches(&s.view)
		if d.failed || s.view.count == 0 {
			return "producers do not parse"
		}
		if last := s.view.last().index; last <= newest { // it would not be forgotten in its turn
			return "producers are not in the order of their last batches"
		}
		newest = s.view.last().index
		p.touch(slot)
	}
	if d.failed || len(d.b) > 0 {
		return "bytes left over"
	}
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
