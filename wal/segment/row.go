package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Row describes one entry. It is stored as, little endian:
//
//	 0  offset        int64   of the first record; for a control entry, of the record that follows
//	 8  position      int64   of the first byte in the .log; for a control entry, of what follows
//	16  index         uint64
//	24  term          uint64
//	32  maxTimestamp  int64   the largest of this and all earlier batches of the segment, ms; -1 before the first
//	40  length        uint32  bytes in the .log; 0 for a control entry
//	44  records       uint32  offsets taken; 0 for a control entry
//	48  kind          uint8   of the entry
//	49  zero          [3]byte
//	52  owner         uint32  in an .index: whose it is, see Owner; 0 elsewhere
//	56  checksum      uint32  CRC-32C of a batch's first 21 bytes, which end in the batch's own CRC of all that follows; of the
//	                          payload for a control entry
//	60  crc           uint32  CRC-32C of bytes 0..59
type Row struct {
	Offset       id.Offset
	Position     id.Position
	Index        id.Index
	Term         id.Term
	MaxTimestamp int64
	Length       uint32
	Records      uint32
	Checksum     uint32
	Kind         uint8
}

// RowSize is the number of bytes of a stored row, and RowsPerBlock how many of them a block has.
const (
	RowSize      = 64
	RowsPerBlock = 4096 / RowSize
)

// ErrCorruptRow says that a stored row does not match its checksum.
var ErrCorruptRow = errors.New("segment: a row does not match its checksum")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C that rows carry.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// End is the position after the entry's bytes.
func (r *Row) End() id.Position { return r.Position + id.Position(r.Length) }

// NextOffset is the offset after the entry's records.
func (r *Row) NextOffset() id.Offset { return r.Offset + id.Offset(r.Records) }

// Put stores the row in b[:RowSize].
func (r *Row) Put(b []byte) {
	_ = b[RowSize-1]
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(r.Offset))
	le.PutUint64(b[8:], uint64(r.Position))
	le.PutUint64(b[16:], uint64(r.Index))
	le.PutUint64(b[24:], uint64(r.Term))
	le.PutUint64(b[32:], uint64(r.MaxTimestamp))
	le.PutUint32(b[40:], r.Length)
	le.PutUint32(b[44:], r.Records)
	le.PutUint64(b[48:], uint64(r.Kind))
	le.PutUint32(b[56:], r.Checksum)
	le.PutUint32(b[60:], Checksum(b[:60]))
}

// Owner stands for the log whose rows are in an .index. Bytes and rows of another log, of the same release and with the same offsets, are as
// good as its own by all their checksums: when files of two logs were exchanged nothing else tells.
type Owner uint32

// OwnerOf returns the owner for a replica of a group; it is not 0.
func OwnerOf(group id.Group, replica id.Replica) Owner {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(group))
	binary.LittleEndian.PutUint64(b[8:], uint64(replica))
	return Owner(max(Checksum(b[:]), 1))
}

// PutOwned is Put for the index of a log.
func (r *Row) PutOwned(b []byte, o Owner) {
	r.Put(b)
	binary.LittleEndian.PutUint32(b[52:], uint32(o))
	binary.LittleEndian.PutUint32(b[60:], Checksum(b[:60]))
}

// StoredOwner returns the owner of a stored row that Parse has found good.
func StoredOwner(b []byte) Owner { return Owner(binary.LittleEndian.Uint32(b[52:])) }

// Append appends the stored form to dst.
func (r *Row) Append(dst []byte) []byte {
	var b [RowSize]byte
	r.Put(b[:])
	return append(dst, b[:]...)
}

// Parse reads a stored row from b[:RowSize]. The error wraps ErrCorruptRow.
func (r *Row) Parse(b []byte) error {
	if len(b) < RowSize {
		return fmt.Errorf("%w: %d of %d bytes", ErrCorruptRow, len(b), RowSize)
	}
	le := binary.LittleEndian
	if got, want := Checksum(b[:60]), le.Uint32(b[60:]); got != want {
		return fmt.Errorf("%w: is %08x, says %08x", ErrCorruptRow, got, want)
	}
	*r = Row{
		Offset:       id.Offset(le.Uint64(b[0:])),
		Position:     id.Position(le.Uint64(b[8:])),
		Index:        id.Index(le.Uint64(b[16:])),
		Term:         id.Term(le.Uint64(b[24:])),
		MaxTimestamp: int64(le.Uint64(b[32:])),
		Length:       le.Uint32(b[40:]),
		Records:      le.Uint32(b[44:]),
		Kind:         b[48],
		Checksum:     le.Uint32(b[56:]),
	}
	if r.Offset < 0 || r.Position < 0 {
		return fmt.Errorf("%w: offset %d, position %d", ErrCorruptRow, r.Offset, r.Position)
	}
	return nil
}
