package partition

import (
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

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
