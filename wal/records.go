package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// The payloads of journal records, little endian. The journal's checksum covers them, so decoders check lengths and sense,
// to be safe against anything, and not for bit flips.
//
// Entries (journal.KindEntry) and reference (journal.KindReference) are one form, a run of consecutive entries of one segment:
//
//	 0  version   uint8   1
//	 1  zero      [3]byte
//	 4  id        uint32  of the segment's key
//	 8  base      int64   of the segment's key
//	16  commit    uint64  of the group when the last of them was submitted
//	24  from      int64   reference: the write covers [from, to) of the .log; entries: 0
//	32  to        int64
//	40  rows      uint32  number of them, at least 1
//	44  fragment  uint32  bytes
//	48  control   uint32  bytes
//	52  data      uint32  bytes
//	56  rows      64 bytes each, as in the .index
//	    fragment  the bytes [floor(p), p) for the position p of the first row, when the run truncates the log there
//	    control   for each row of a control entry, in order: length uint32, payload
//	    data      entries: the bytes [p, end of the last row); reference: the bytes [to, end of the last row)
//
// A first row at or below the log's last index truncates the log there. A segment that the log does not have yet begins with
// the first row.
const (
	recordVersion   = 1
	runHeaderBytes  = 56
	hardStateBytes  = 32
	resetFixedBytes = 48
)

var errBadRecord = errors.New("wal: a record makes no sense")

// runRecord is a decoded run; the byte slices alias the payload.
type runRecord struct {
	key      segment.Key
	commit   id.Index
	from, to id.Position
	rows     []segment.Row
	fragment []byte
	controls [][]byte // in the order of the control rows
	data     []byte
}

// putRunHeader writes the fixed part and the rows into b, which has runHeaderBytes + 64 bytes a row.
func putRunHeader(b []byte, r *runRecord, fragment, control, data int) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], recordVersion)
	le.PutUint32(b[4:], r.key.ID)
	le.PutUint64(b[8:], uint64(r.key.Base))
	le.PutUint64(b[16:], uint64(r.commit))
	le.PutUint64(b[24:], uint64(r.from))
	le.PutUint64(b[32:], uint64(r.to))
	le.PutUint32(b[40:], uint32(len(r.rows)))
	le.PutUint32(b[44:], uint32(fragment))
	le.PutUint32(b[48:], uint32(control))
	le.PutUint32(b[52:], uint32(data))
	at := runHeaderBytes
	for i := range r.rows {
		r.rows[i].Put(b[at:])
		at += segment.RowSize
	}
}

// parse decodes a run; reference tells which kind of record it is from. It keeps the capacity of r's slices.
func (r *runRecord) parse(b []byte, reference recordForm) error {
	if len(b) < runHeaderBytes {
		return fmt.Errorf("%w: a run of %d bytes", errBadRecord, len(b))
	}
	le := binary.LittleEndian
	if v := le.Uint32(b[0:]); v != recordVersion {
		return fmt.Errorf("%w: a run of version %d; this program knows %d", errBadRecord, v, recordVersion)
	}
	r.key = segment.Key{Base: id.Offset(le.Uint64(b[8:])), ID: le.Uint32(b[4:])}
	r.commit = id.Index(le.Uint64(b[16:]))
	r.from, r.to = id.Position(le.Uint64(b[24:])), id.Position(le.Uint64(b[32:]))
	rows, fragment := int64(le.Uint32(b[40:])), int64(le.Uint32(b[44:]))
	control, data := int64(le.Uint32(b[48:])), int64(le.Uint32(b[52:]))
	if rows == 0 || runHeaderBytes+rows*segment.RowSize+fragment+control+data != int64(len(b)) {
		return fmt.Errorf("%w: a run of %d rows, %d+%d+%d bytes in a record of %d", errBadRecord, rows, fragment, control, data, len(b))
	}
	r.rows = r.rows[:0]
	b = b[runHeaderBytes:]
	for range rows {
		var row segment.Row
		if err := row.Parse(b); err != nil {
			return fmt.Errorf("%w: %w", errBadRecord, err)
		}
		r.rows = append(r.rows, row)
		b = b[segment.RowSize:]
	}
	r.fragment, b = b[:fragment:fragment], b[fragment:]
	control64 := b[:control:control]
	r.data = b[control:]
	if err := r.parseControls(control64); err != nil {
		return err
	}
	return r.check(reference)
}

// recordForm says which of the two kinds of runs a record is.
type recordForm uint8

const (
	formEntries recordForm = iota
	formReference
)

func (r *runRecord) parseControls(b []byte) error {
	r.controls = r.controls[:0]
	for i := range r.rows {
		if EntryKind(r.rows[i].Kind) == KindBatch {
			continue
		}
		if len(b) < 4 {
			return fmt.Errorf("%w: the payload of control entry %d is missing", errBadRecord, r.rows[i].Index)
		}
		n := binary.LittleEndian.Uint32(b)
		if int64(n) > int64(len(b)-4) {
			return fmt.Errorf("%w: the payload of control entry %d is cut short", errBadRecord, r.rows[i].Index)
		}
		r.controls = append(r.controls, b[4:4+n:4+n])
		b = b[4+n:]
	}
	if len(b) != 0 {
		return fmt.Errorf("%w: %d bytes behind the control entries", errBadRecord, len(b))
	}
	return nil
}

// check makes sure that the rows follow each other and the data is that of the rows.
func (r *runRecord) check(form recordForm) error {
	first := &r.rows[0]
	index, pos, offset := first.Index, first.Position, first.Offset
	if index == 0 {
		return fmt.Errorf("%w: a run that begins at index 0", errBadRecord)
	}
	for i := range r.rows {
		row := &r.rows[i]
		control := EntryKind(row.Kind) != KindBatch
		if row.Index != index || row.Position != pos || row.Offset != offset || control != (row.Length == 0) || control != (row.Records == 0) {
			return fmt.Errorf("%w: row %d of a run does not follow the one before: %+v", errBadRecord, i, *row)
		}
		index, pos, offset = index+1, row.End(), row.NextOffset()
		if pos < row.Position || offset < row.Offset {
			return fmt.Errorf("%w: row %d of a run overflows: %+v", errBadRecord, i, *row)
		}
	}
	from := first.Position
	if form == formEntries && (r.from != 0 || r.to != 0) {
		return fmt.Errorf("%w: entries with a write of [%d, %d)", errBadRecord, r.from, r.to)
	}
	if form == formReference {
		from = r.to
		aligned := r.from%disk.BlockSize == 0 && r.to%disk.BlockSize == 0
		if !aligned || r.from < 0 || r.to <= r.from || r.to > pos || r.from > first.Position || pos-r.to >= disk.BlockSize {
			return fmt.Errorf("%w: a reference to [%d, %d) for entries in [%d, %d)", errBadRecord, r.from, r.to, first.Position, pos)
		}
	}
	if int64(len(r.data)) != int64(pos-from) {
		return fmt.Errorf("%w: %d bytes for entries in [%d, %d)", errBadRecord, len(r.data), from, pos)
	}
	if len(r.fragment) != 0 && int64(len(r.fragment)) != int64(first.Position%disk.BlockSize) {
		return fmt.Errorf("%w: a fragment of %d bytes before position %d", errBadRecord, len(r.fragment), first.Position)
	}
	return nil
}

// A hard state: version uint32, zero uint32, term, vote, commit uint64.
func putHardState(b []byte, hs HardState) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], recordVersion)
	le.PutUint64(b[8:], uint64(hs.Term))
	le.PutUint64(b[16:], uint64(hs.Vote))
	le.PutUint64(b[24:], uint64(hs.Commit))
}

func parseHardState(b []byte) (HardState, error) {
	le := binary.LittleEndian
	if len(b) != hardStateBytes || le.Uint64(b) != recordVersion {
		return HardState{}, fmt.Errorf("%w: a hard state of %d bytes", errBadRecord, len(b))
	}
	return HardState{Term: id.Term(le.Uint64(b[8:])), Vote: id.Replica(le.Uint64(b[16:])), Commit: id.Index(le.Uint64(b[24:]))}, nil
}

// A reset: version uint32, bytes of the conf state uint32, index, term, offset, applied uint64, bytes of the view uint64,
// conf state, view.
func putReset(b []byte, r *Reset) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], recordVersion)
	le.PutUint32(b[4:], uint32(len(r.State.ConfState)))
	le.PutUint64(b[8:], uint64(r.Start.Index))
	le.PutUint64(b[16:], uint64(r.Start.Term))
	le.PutUint64(b[24:], uint64(r.Start.Offset))
	le.PutUint64(b[32:], uint64(r.State.Applied))
	le.PutUint64(b[40:], uint64(len(r.State.View)))
}

// parseReset copies what it returns.
func parseReset(b []byte) (Reset, error) {
	if len(b) < resetFixedBytes || binary.LittleEndian.Uint32(b) != recordVersion {
		return Reset{}, fmt.Errorf("%w: a reset of %d bytes", errBadRecord, len(b))
	}
	le := binary.LittleEndian
	conf, view := uint64(le.Uint32(b[4:])), le.Uint64(b[40:])
	rest := b[resetFixedBytes:]
	if conf > uint64(len(rest)) || view != uint64(len(rest))-conf {
		return Reset{}, fmt.Errorf("%w: a reset of %d bytes with %d and %d of state", errBadRecord, len(b), conf, view)
	}
	r := Reset{
		Start: Start{Index: id.Index(le.Uint64(b[8:])), Term: id.Term(le.Uint64(b[16:])), Offset: id.Offset(le.Uint64(b[24:]))},
		State: State{Applied: id.Index(le.Uint64(b[32:])), ConfState: clone(rest[:conf]), View: clone(rest[conf:])},
	}
	if r.Start.Offset < 0 {
		return Reset{}, fmt.Errorf("%w: a reset to offset %d", errBadRecord, r.Start.Offset)
	}
	return r, nil
}

// clone copies b; nil stays nil, and empty becomes nil.
func clone(b []byte) []byte { return append([]byte(nil), b...) }
