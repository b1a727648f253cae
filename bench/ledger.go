package bench

import (
	"cmp"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Ledger holds, for records numbered from 0, what was sent and what was acknowledged, and afterwards what was read; then it says
// what is missing, double or out of order. One producer sends the numbers in ascending order, so within a partition they must come
// back ascending.
//
// It takes 24 bytes a record. Acked may be called by anyone, the rest by one goroutine at a time.
type Ledger struct {
	mu      sync.Mutex
	records []entry
	acked   int64

	partitions map[id.TopicPartition]*readState
	read       int64
	report     Report
}

type entry struct {
	sum       uint64 // of key and value, 0: not sent
	offset    id.Offset
	partition id.Partition
	acked     bool
	seen      uint8 // how often it was read, up to 255
}

type readState struct {
	next    id.Offset // offsets are dense
	last    int64     // the highest number read
	skipped ranges    // offsets that the log had no more when they were to be read
}

// Report is the outcome of the comparison. A run is good when Lost, Duplicated and Reordered are 0 and ChecksumOK holds.
type Report struct {
	Acked      int64 `json:"records_acked"`
	Read       int64 `json:"records_read"`
	Lost       int64 `json:"lost"`       // acknowledged and not there
	Duplicated int64 `json:"duplicated"` // there more than once
	Reordered  int64 `json:"reordered"`  // read behind a record that was sent later, or at another offset than acknowledged
	// Unacknowledged records are there although nobody promised it: their producer was told nothing, or a failure.
	Unacknowledged int64 `json:"unacknowledged"`
	Foreign        int64 `json:"foreign"` // never sent
	// Skipped records were acknowledged, and below the log start when they were to be read.
	Skipped    int64  `json:"skipped,omitempty"`
	ChecksumOK bool   `json:"checksum_ok"`
	First      string `json:"first_problem,omitempty"`

	wrong int64 // other bytes than were sent
}

// OK tells whether everything acknowledged is there, once, in order and unchanged.
func (r Report) OK() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.Reordered == 0 && r.Foreign == 0 && r.ChecksumOK
}

// NewLedger returns a ledger for n records.
func NewLedger(n int) *Ledger {
	return &Ledger{records: make([]entry, n), partitions: make(map[id.TopicPartition]*readState)}
}

// Sum is the checksum by which a record is compared.
func Sum(key, value []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(key)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(value)
	return d.Sum64() | 1 // never 0
}

// Sent notes that record n is about to be sent.
func (l *Ledger) Sent(n int64, sum uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[n].sum = sum
}

// Acked notes that record n was acknowledged at an offset.
func (l *Ledger) Acked(n int64, p id.Partition, offset id.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.records[n]
	e.acked, e.partition, e.offset = true, p, offset
	l.acked++
}

// CountAcked returns how many records have been acknowledged.
func (l *Ledger) CountAcked() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// Saw compares a record that was read. number is -1 when its key is no number of this run.
func (l *Ledger) Saw(tp id.TopicPartition, offset id.Offset, number int64, sum uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read++
	p := l.state(tp)
	if offset < p.next {
		l.problem(&l.report.Duplicated, "%v: offset %d was read again", tp, offset)
	}
	p.next = max(p.next, offset+1)
	e, err := l.sent(tp, offset, number)
	if err != nil {
		l.problem(&l.report.Foreign, "%v", err)
		return
	}
	if e.seen < 255 {
		e.seen++
	}
	if e.seen > 1 {
		l.problem(&l.report.Duplicated, "%v: record %d at offset %d was read before", tp, number, offset)
		return
	}
	wrong, elsewhere := e.compare(tp, offset, number, sum)
	if wrong != nil {
		l.problem(&l.report.wrong, "%v", wrong)
	}
	switch {
	case number < p.last:
		l.problem(&l.report.Reordered, "%v: record %d at offset %d came behind record %d", tp, number, offset, p.last)
	case elsewhere != nil:
		l.problem(&l.report.Reordered, "%v", elsewhere)
	}
	p.last = max(p.last, number)
}

// Skipped notes that the log begins behind what was to be read next: the offsets from one to another, exclusive, will not be read. What is in
// them must have been acknowledged before, or not at all.
func (l *Ledger) Skipped(tp id.TopicPartition, from, to id.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.state(tp)
	if from < p.next {
		l.problem(&l.report.Duplicated, "%v: offset %d was skipped after it was read", tp, from)
	}
	p.next = max(p.next, to)
	p.skipped.add(uint64(from), uint64(to))
}

// missed tells whether an offset was skipped. One that its acknowledgement did not name may have been, where anything was.
func (p *readState) missed(offset id.Offset) bool {
	if p == nil {
		return false
	}
	if offset == id.NoOffset {
		return len(p.skipped.spans) > 0
	}
	return p.skipped.has(uint64(offset))
}

// Check compares a record that is read for a second time, in whatever order, with what is known of it. The error says what is different.
func (l *Ledger) Check(tp id.TopicPartition, offset id.Offset, number int64, sum uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.sent(tp, offset, number)
	if err != nil {
		return err
	}
	return cmp.Or(e.compare(tp, offset, number, sum))
}

// sent returns the entry of a record that was read, or an error if none of that number was sent.
func (l *Ledger) sent(tp id.TopicPartition, offset id.Offset, number int64) (*entry, error) {
	if number < 0 || number >= int64(len(l.records)) || l.records[number].sum == 0 {
		return nil, fmt.Errorf("%v: the record at offset %d was never sent", tp, offset)
	}
	return &l.records[number], nil
}

// compare says whether a record that was read is another than was sent, and whether it stands elsewhere than was acknowledged.
func (e *entry) compare(tp id.TopicPartition, offset id.Offset, number int64, sum uint64) (wrong, elsewhere error) {
	if e.sum != sum {
		wrong = fmt.Errorf("%v: record %d at offset %d has other bytes than were sent", tp, number, offset)
	}
	if e.acked && (e.partition != tp.Partition || e.offset != offset && e.offset != id.NoOffset) {
		elsewhere = fmt.Errorf("%v: record %d at offset %d was acknowledged at partition %d, offset %d", tp, number, offset, e.partition, e.offset)
	}
	return wrong, elsewhere
}

// state returns what is known of a partition that is read.
func (l *Ledger) state(tp id.TopicPartition) *readState {
	p := l.partitions[tp]
	if p == nil {
		p = &readState{last: -1}
		l.partitions[tp] = p
	}
	return p
}

func (l *Ledger) problem(count *int64, format string, args ...any) {
	*count++
	if l.report.First == "" {
		l.report.First = fmt.Sprintf(format, args...)
	}
}

// Report ends the comparison, when everything has been read.
func (l *Ledger) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	gone := make(map[id.Partition]*readState) // of the one topic that there is
	for tp, p := range l.partitions {
		gone[tp.Partition] = p
	}
	for n := range l.records {
		e := &l.records[n]
		switch {
		case e.acked && e.seen == 0 && gone[e.partition].missed(e.offset):
			l.report.Skipped++
		case e.acked && e.seen == 0:
			l.problem(&l.report.Lost, "record %d, acknowledged at partition %d, offset %d, is not there", n, e.partition, e.offset)
		case !e.acked && e.seen > 0:
			l.report.Unacknowledged++
		}
	}
	l.report.Acked, l.report.Read = l.acked, l.read
	l.report.ChecksumOK = l.report.wrong == 0 && l.report.Lost == 0 && l.report.Foreign == 0
	return l.report
}
