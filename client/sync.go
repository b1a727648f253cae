package client

import (
	"context"
	"fmt"
	"sync"
)

// ProduceSync hands over records and waits for their outcomes: an Ack for each, in the order of the records, and the first error there is,
// which is also in its Ack. A record that is not taken ends the call: those behind it are not produced, and their Acks say so. When ctx ends
// first, the records that still have no outcome may be written or not; their Acks have that error.
//
// Records wait for their batch as those of Produce do, ProducerOptions.Linger included. It must not be called from a callback of the producer.
func (p *Producer) ProduceSync(ctx context.Context, records ...Record) ([]Ack, error) {
	w := &awaited{acks: make([]Ack, len(records)), told: make([]bool, len(records)), left: 1, done: make(chan struct{})}
	slots := make([]slot, len(records)) // they travel as the records' Opaque: nothing is allocated for each
	for i, r := range records {
		slots[i] = slot{number: i, opaque: r.Opaque}
		r.Opaque = &slots[i]
		w.taken()
		if err := p.Produce(ctx, r, w.heard); err != nil {
			w.missed(records, i, err)
			break
		}
	}
	w.finish()
	select {
	case <-w.done:
		return w.result(records, nil)
	case <-ctx.Done():
		return w.result(records, fmt.Errorf("client: no acknowledgement: %w", p.client.cache.because(ctx.Err())))
	}
}

// slot is which record of a ProduceSync an acknowledgement is for.
type slot struct {
	number int
	opaque any // the caller's
}

// awaited is the outcomes of one ProduceSync.
type awaited struct {
	mu   sync.Mutex
	acks []Ack  // nil: the call has returned, with them
	told []bool // which of them are final
	left int    // what has to finish: records, and the call itself
	done chan struct{}
}

func (w *awaited) taken() {
	w.mu.Lock()
	w.left++
	w.mu.Unlock()
}

// finish counts one of what is left.
func (w *awaited) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// heard is the callback of the records.
func (w *awaited) heard(a Ack) {
	s := a.Opaque.(*slot)
	a.Opaque = s.opaque
	w.mu.Lock()
	if w.acks != nil {
		w.acks[s.number], w.told[s.number] = a, true
	}
	w.mu.Unlock()
	w.finish()
}

// missed notes that record i, and with it those behind, were not produced.
func (w *awaited) missed(records []Record, i int, err error) {
	w.mu.Lock()
	for n := i; n < len(records); n++ {
		w.acks[n], w.told[n] = ackOf(records[n], err), true
		if n == i {
			err = fmt.Errorf("client: not produced, because record %d before it was not taken: %w", i, err)
		}
	}
	w.mu.Unlock()
	w.finish()
}

// ackOf is the outcome of a record that is in no partition, as far as is known.
func ackOf(r Record, err error) Ack {
	a := Ack{TopicPartition: TopicPartition{Topic: r.Topic, Partition: NoPartition}, Offset: NoOffset, Timestamp: r.Timestamp, Opaque: r.Opaque, Err: err}
	if r.Partition.named {
		a.Partition = r.Partition.partition
	}
	return a
}

// result ends the call: with unfinished for those that have no outcome.
func (w *awaited) result(records []Record, unfinished error) ([]Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	acks := w.acks
	w.acks = nil
	var first error
	for i := range acks {
		if !w.told[i] {
			acks[i] = ackOf(records[i], unfinished)
		}
		if first == nil {
			first = acks[i].Err
		}
	}
	return acks, first
}
