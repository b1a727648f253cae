package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// cut is the complete state of a log as of a completed journal sequence: together with the segments below their watermarks
// and the journal records after covered it is the log. It is stored in Pebble, little endian:
//
//	version uint32 | covered uint64 | topic [16] | name, dir: string | segment bytes uint64
//	start: index, term, offset uint64 | next offset uint64 | hard state: term, vote, commit uint64
//	applied uint64 | conf state: string | view: bytes, CRC-32C uint32 | bytes of entries since applied uint64
//	epochs: number uint32, each: first index, term uint64
//	control entries: number uint32, each: index uint64, payload string      (those with a payload)
//	segments: number uint32, each:
//	  base uint64 | id uint32 | sealed uint32 | first index, end, watermark, first index not indexed uint64,
//	  largest timestamp before that index, when it was created and last appended to (milliseconds) int64
//	  rows from there on: number uint32, 64 bytes each
//	  the bytes [watermark, end): string                                    (unless sealed)
//	CRC-32C uint32 of everything before
//
// where a string is its length as uint32 and the bytes. The view itself has a record of its own: see view.go.
type cut struct {
	covered      journal.Seq
	topic        id.Topic
	name, dir    string
	segmentBytes int64
	start        Start
	next         id.Offset // after the last record
	hs           HardState
	state        State    // without the view
	view         viewMark // of the view
	since        int64    // see Log.since
	epochs       []epoch
	controls     []control
	segs         []cutSegment
}

type cutSegment struct {
	key     segment.Key
	sealed  bool
	first   id.Index
	end, w  id.Position
	indexed id.Index // entries below have their rows in whole synced blocks of the .index
	maxTime int64    // the largest timestamp before indexed, -1 if there is none
	// As in seg.
	created, appended int64
	rows              []segment.Row
	tail              []byte
}

const (
	cutVersion      = 3
	cutSegmentBytes = 80 // of a segment, without rows and bytes
)

var errBadCut = errors.New("wal: a cut does not check")

func (c *cut) append(dst []byte) []byte {
	begin := len(dst)
	le := binary.LittleEndian
	u32 := func(v int) { dst = le.AppendUint32(dst, uint32(v)) }
	u64 := func(v uint64) { dst = le.AppendUint64(dst, v) }
	u32(cutVersion)
	u64(uint64(c.covered))
	dst = append(dst, c.topic[:]...)
	str := func(s []byte) { u32(len(s)); dst = append(dst, s...) }
	str([]byte(c.name))
	str([]byte(c.dir))
	for _, v := range [...]uint64{uint64(c.segmentBytes), uint64(c.start.Index), uint64(c.start.Term), uint64(c.start.Offset), uint64(c.next),
		uint64(c.hs.Term), uint64(c.hs.Vote), uint64(c.hs.Commit), uint64(c.state.Applied)} {
		u64(v)
	}
	str(c.state.ConfState)
	u32(c.view.bytes)
	u32(int(c.view.sum))
	u64(uint64(c.since))
	u32(len(c.epochs))
	for _, e := range c.epochs {
		u64(uint64(e.first))
		u64(uint64(e.term))
	}
	u32(len(c.controls))
	for _, e := range c.controls {
		u64(uint64(e.index))
		str(e.data)
	}
	u32(len(c.segs))
	for i := range c.segs {
		s := &c.segs[i]
		u64(uint64(s.key.Base))
		u32(int(s.key.ID))
		u32(map[bool]int{true: 1}[s.sealed])
		for _, v := range [...]uint64{uint64(s.first), uint64(s.end), uint64(s.w), uint64(s.indexed), uint64(s.maxTime),
			uint64(s.created), uint64(s.appended)} {
			u64(v)
		}
		u32(len(s.rows))
		for j := range s.rows {
			dst = s.rows[j].Append(dst)
		}
		str(s.tail)
	}
	return le.AppendUint32(dst, segment.Checksum(dst[begin:]))
}

// cursor reads a cut; the first short read makes all later ones zero.
type cursor struct {
	b    []byte
	fail bool
}

func (r *cursor) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.fail = nil, true
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *cursor) u32() uint64 {
	if p := r.take(4); p != nil {
		return uint64(binary.LittleEndian.Uint32(p))
	}
	return 0
}

func (r *cursor) u64() uint64 {
	if p := r.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (r *cursor) str() []byte { return clone(r.take(r.u32())) }

// count reads a number of things that take at least size bytes each.
func (r *cursor) count(size int) int {
	n := r.u32()
	if n > uint64(len(r.b)/size) {
		r.fail = true
		return 0
	}
	return int(n)
}

// parseCut copies all it keeps.
func parseCut(b []byte) (*cut, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("%w: %d bytes", errBadCut, len(b))
	}
	body := b[:len(b)-4]
	if got, want := segment.Checksum(body), binary.LittleEndian.Uint32(b[len(b)-4:]); got != want {
		return nil, fmt.Errorf("%w: checksum is %08x, says %08x", errBadCut, got, want)
	}
	r := &cursor{b: body}
	if v := r.u32(); v != cutVersion {
		return nil, fmt.Errorf("%w: version %d; this program knows %d", errBadCut, v, cutVersion)
	}
	c := &cut{covered: journal.Seq(r.u64())}
	copy(c.topic[:], r.take(16))
	c.name, c.dir = string(r.str()), string(r.str())
	c.segmentBytes = int64(r.u64())
	c.start = Start{Index: id.Index(r.u64()), Term: id.Term(r.u64()), Offset: id.Offset(r.u64())}
	c.next = id.Offset(r.u64())
	c.hs = HardState{Term: id.Term(r.u64()), Vote: id.Replica(r.u64()), Commit: id.Index(r.u64())}
	c.state = State{Applied: id.Index(r.u64()), ConfState: r.str()}
	c.view = viewMark{bytes: int(r.u32()), sum: uint32(r.u32())}
	c.since = int64(r.u64())
	for range r.count(16) {
		c.epochs = append(c.epochs, epoch{first: id.Index(r.u64()), term: id.Term(r.u64())})
	}
	for range r.count(12) {
		c.controls = append(c.controls, control{index: id.Index(r.u64()), data: r.str()})
	}
	for range r.count(64) {
		s, err := r.segment()
		if err != nil {
			return nil, err
		}
		c.segs = append(c.segs, s)
	}
	if r.fail || len(r.b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes left", errBadCut, len(r.b))
	}
	return c, c.check()
}

func (r *cursor) segment() (cutSegment, error) {
	s := cutSegment{key: segment.Key{Base: id.Offset(r.u64()), ID: uint32(r.u32())}, sealed: r.u32() != 0}
	s.first, s.end, s.w, s.indexed = id.Index(r.u64()), id.Position(r.u64()), id.Position(r.u64()), id.Index(r.u64())
	s.maxTime, s.created, s.appended = int64(r.u64()), int64(r.u64()), int64(r.u64())
	n := r.count(segment.RowSize)
	s.rows = slices.Grow(s.rows, n)
	for range n {
		var row segment.Row
		if err := row.Parse(r.take(segment.RowSize)); err != nil {
			return s, fmt.Errorf("%w: %w", errBadCut, err)
		}
		s.rows = append(s.rows, row)
	}
	s.tail = r.str()
	return s, nil
}

// check makes sure of what the rest of the code relies on.
func (c *cut) check() error {
	next := c.start.Index + 1
	for i := range c.segs {
		s := &c.segs[i]
		if s.first > next || i > 0 && s.first != next || s.indexed < s.first || s.end < 0 {
			return fmt.Errorf("%w: segment %v begins at index %d instead of %d", errBadCut, s.key, s.first, next)
		}
		if s.sealed && s.w != s.end || !s.sealed && (s.w%disk.BlockSize != 0 || int64(s.end-s.w) != int64(len(s.tail))) {
			return fmt.Errorf("%w: segment %v has %d bytes from %d to %d", errBadCut, s.key, len(s.tail), s.w, s.end)
		}
		index := s.indexed
		for j := range s.rows {
			if s.rows[j].Index != index {
				return fmt.Errorf("%w: segment %v has row %d instead of %d", errBadCut, s.key, s.rows[j].Index, index)
			}
			index++
		}
		next = index
	}
	return nil
}
