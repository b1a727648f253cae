package bench

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"
)

// MinRecordBytes is the smallest value that a workload may have: it must hold the header by which it is recognized.
const MinRecordBytes = headerBytes

// Every value says which record it is, so that reading it back proves something:
//
//	 0        4                12            20      24
//	┌────────┬────────────────┬─────────────┬───────┬──────────────────────────────────────┐
//	│ lane   │ number in lane │ due, ns     │ sum   │ bytes of the pool, from a place that │
//	│ uint32 │ uint64         │ since epoch │ 32 bit│ the number decides                   │
//	└────────┴────────────────┴─────────────┴───────┴──────────────────────────────────────┘
//
// sum is of the 20 bytes before it. The rest is compared with the pool byte by byte: no memory is needed for what was sent.
const headerBytes = 24

// poolBytes is large enough that no compression of any target or disk finds the repetition within a batch of small records.
const poolBytes = 1 << 20

// payload makes and checks values of one size. It is immutable, and so may be shared.
type payload struct {
	size int
	pool []byte // poolBytes + size
}

func newPayload(size int) *payload {
	p := &payload{size: size, pool: make([]byte, poolBytes+size)}
	r := rand.NewChaCha8([32]byte{'q', 'l'})
	_, _ = r.Read(p.pool)
	return p
}

// identity is what a value says about itself.
type identity struct {
	lane   uint32
	number uint64
	due    time.Duration // since the run's epoch
}

// fill writes the value of a record into b, which has p.size bytes.
func (p *payload) fill(b []byte, i identity) {
	binary.BigEndian.PutUint32(b, i.lane)
	binary.BigEndian.PutUint64(b[4:], i.number)
	binary.BigEndian.PutUint64(b[12:], uint64(i.due))
	binary.BigEndian.PutUint32(b[20:], uint32(xxhash.Sum64(b[:20])))
	copy(b[headerBytes:p.size], p.body(i.number))
}

// parse returns what a value says about itself; false: it is none of ours, or not as it was sent.
func (p *payload) parse(b []byte) (identity, bool) {
	if len(b) != p.size || binary.BigEndian.Uint32(b[20:]) != uint32(xxhash.Sum64(b[:20])) {
		return identity{}, false
	}
	i := identity{binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:]), time.Duration(binary.BigEndian.Uint64(b[12:]))}
	return i, bytes.Equal(b[headerBytes:], p.body(i.number))
}

func (p *payload) body(number uint64) []byte {
	at := int(number * 0x9E3779B97F4A7C15 >> 44) // the upper 20 bits: below poolBytes
	return p.pool[at : at+p.size-headerBytes]
}
