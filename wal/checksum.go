package wal

import (
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// checksumOf is what the row of an entry says of its bytes. A batch has a CRC of its own, made by the producer and checked by
// whoever took the batch in, over everything but its first batch.PrefixSize bytes; and these hold that CRC. So a checksum of the
// prefix pins all stored bytes, base offset and epoch included, without reading them once more on every replica.
func checksumOf(kind EntryKind, data []byte) uint32 {
	if kind == KindBatch {
		data = data[:batch.PrefixSize]
	}
	return segment.Checksum(data)
}

// intact tells whether data, which may have any number of bytes, is what the row of a batch was made of.
func intact(row *segment.Row, data []byte) bool {
	return len(data) == int(row.Length) && batch.Check(data) == nil && checksumOf(KindBatch, data) == row.Checksum
}
