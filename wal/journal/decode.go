package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// decode appends to records the intact ones of the frame that b is, whose header or footer is h, and to lost the others. b
// may be shorter than the frame: what is missing is lost. ok is false if neither copy of the record headers can be read; then
// nothing is known about the records. Payloads alias b.
func decode(b []byte, h *header, records []Record, lost []RecordKey) (_ []Record, _ []RecordKey, ok bool) {
	table := table(b, h)
	if table == nil {
		return records, lost, false
	}
	le := binary.LittleEndian
	at := int64(headBytes + len(table))
	for ; len(table) > 0; table = table[rowBytes:] {
		r := Record{Kind: Kind(table[0]), Group: id.Group(le.Uint64(table[8:])), Replica: id.Replica(le.Uint64(table[16:]))}
		end := at + int64(le.Uint32(table[24:]))
		if end <= int64(len(b)) && crc32.Checksum(b[at:end], castagnoli) == le.Uint32(table[28:]) {
			r.Payload = b[at:end:end]
			records = append(records, r)
		} else {
			lost = append(lost, RecordKey{Kind: r.Kind, Group: r.Group, Replica: r.Replica})
		}
		at = end
	}
	return records, lost, true
}

// table returns a copy of the record headers that checks, nil if there is none. It is the only place that trusts the count
// and the lengths in it: b has the bytes, and the lengths add up to h.payload.
func table(b []byte, h *header) []byte {
	n := rowBytes * int64(h.count)
	for _, at := range [2]int64{headBytes, h.total - headBytes - n} {
		if at+n > int64(len(b)) {
			continue
		}
		t := b[at : at+n : at+n]
		if crc32.Checksum(t, castagnoli) == h.tableCRC && payloadSum(t) == h.payload {
			return t
		}
	}
	return nil
}

func payloadSum(table []byte) int64 {
	sum := int64(0)
	for ; len(table) > 0; table = table[rowBytes:] {
		sum += int64(binary.LittleEndian.Uint32(table[24:]))
	}
	return sum
}

// blockFrame looks for a frame that starts, or failing that ends, in the block b at the given position. It returns the
// position where the frame starts.
func blockFrame(b []byte, at int64, epoch uint64) (h header, start int64, ok bool) {
	if h, ok = parseHeader(b, headMagic, epoch); ok {
		return h, at, true
	}
	if h, ok = parseHeader(b[disk.BlockSize-headBytes:], footMagic, epoch); ok {
		return h, at + disk.BlockSize - h.total, true
	}
	return h, 0, false
}

// anyHeader returns the header that a block begins with, of whichever epoch.
func anyHeader(b []byte) (header, bool) {
	return parseHeader(b, headMagic, binary.LittleEndian.Uint64(b[8:]))
}
