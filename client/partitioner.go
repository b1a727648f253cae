package client

import (
	"encoding/binary"

	"github.com/quorumlog/quorumlog/wal/id"
)

// partitionOf is the partition of a record with a key, byte for byte as Kafka's default partitioner chooses it: producers of
// both kinds must agree on where a key lives.
func partitionOf(key []byte, partitions int) id.Partition {
	return id.Partition(int(murmur2(key)&0x7fffffff) % partitions)
}

// murmur2 is Kafka's variant of MurmurHash2, 32 bits, with its fixed seed.
func murmur2(b []byte) uint32 {
	const (
		seed  = 0x9747b28c
		mul   = 0x5bd1e995
		shift = 24
	)
	h := seed ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := binary.LittleEndian.Uint32(b) * mul
		k ^= k >> shift
		h = h*mul ^ k*mul
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= mul
	}
	h ^= h >> 13
	h *= mul
	return h ^ h>>15
}
