package journal

import (
	"errors"
	"fmt"
	"io"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// WalkedFrame is a frame of a file that Walk met.
type WalkedFrame struct {
	Position    int64
	Bytes       int64
	Seq         Seq
	PrevDurable Seq
	// Use counts the uses of the file, the first that Walk met being 1: a recycled file has frames of earlier ones behind those of its last.
	Use     int
	Records []Record
	Lost    []RecordKey // records that do not check
	Bad     bool        // both copies of the record headers are bad
}

// Walk looks at all that looks like a frame in a file, in the order of positions, for people who want to see what is in it. It knows neither
// the file's epoch nor where it ends: recovery is Recovery's. The records are valid until visit returns.
func Walk(fs disk.FS, name string, visit func(*WalkedFrame) error) (err error) {
	f, err := fs.OpenRead(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	uses := make(map[uint64]int)
	block := disk.AlignedBytes(disk.BlockSize)
	for pos := int64(0); pos+disk.BlockSize <= size; {
		if _, err := f.ReadAt(block, pos); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("journal: %w", err)
		}
		h, ok := anyHeader(block)
		if !ok || pos+h.total > size {
			pos += disk.BlockSize
			continue
		}
		if uses[h.epoch] == 0 {
			uses[h.epoch] = len(uses) + 1
		}
		b := disk.AlignedBytes(int(h.total))
		if _, err := f.ReadAt(b, pos); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("journal: %w", err)
		}
		w := WalkedFrame{Position: pos, Bytes: h.total, Seq: h.seq, PrevDurable: h.prevDurable, Use: uses[h.epoch]}
		w.Records, w.Lost, ok = decode(b, &h, nil, nil)
		w.Bad = !ok
		if err := visit(&w); err != nil {
			return err
		}
		if w.Bad || len(w.Lost) > 0 && len(w.Records) == 0 {
			pos += disk.BlockSize // a later frame may have overwritten the rest of it
			continue
		}
		pos += h.total
	}
	return nil
}
