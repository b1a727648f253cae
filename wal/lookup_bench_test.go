package wal

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// shape is the disk of a log of many large segments, of which it makes what is read: rows, and batches that differ in offset and time alone.
// What it has made it keeps.
type shape struct {
	disk.FS
	log   *Log
	batch batch.Batch
	each  int // batches of a segment

	mu   sync.Mutex
	made map[id.Index][]byte // batches
	rows map[shapeBlock][]byte
}

type shapeBlock struct {
	seg   int
	block int64
}

const (
	shapeSegments = 1024
	shapeBytes    = 1 << 30 // of a segment
	shapeRecords  = 64      // of a batch, one a millisecond
)

func (s *shape) Open(name string) (disk.File, error) {
	key, ok := segment.ParseName(name[strings.LastIndexByte(name, '/')+1:])
	if !ok {
		return s.FS.Open(name)
	}
	return &shapeFile{shape: s, seg: int(key.Base) / (s.each * shapeRecords), index: strings.HasSuffix(name, segment.IndexSuffix)}, nil
}

// entry returns row and bytes of batch n of a segment.
func (s *shape) entry(seg, n int) (segment.Row, []byte) {
	k := seg*s.each + n
	base, at := id.Offset(k*shapeRecords), int64(k*shapeRecords)
	b := make(batch.Batch, len(s.batch))
	copy(b, s.batch)
	b.Stamp(base, 1)
	binary.BigEndian.PutUint64(b[27:], uint64(at))
	binary.BigEndian.PutUint64(b[35:], uint64(at+shapeRecords-1))
	binary.BigEndian.PutUint32(b[17:], segment.Checksum(b[batch.PrefixSize:]))
	return segment.Row{
		Offset: base, Position: id.Position(n * len(b)), Index: s.log.start.Index + 1 + id.Index(k), Term: 1, MaxTimestamp: at + shapeRecords - 1,
		Length: uint32(len(b)), Records: shapeRecords, Checksum: checksumOf(KindBatch, b), Kind: uint8(KindBatch),
	}, b
}

type shapeFile struct {
	disk.File
	*shape
	seg   int
	index bool
}

func (f *shapeFile) Close() error { return nil }

func (f *shapeFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.index {
		key := shapeBlock{f.seg, off / disk.BlockSize}
		b := f.rows[key]
		if b == nil {
			b = make([]byte, disk.BlockSize)
			for i := range segment.RowsPerBlock {
				row, _ := f.entry(f.seg, int(off)/segment.RowSize+i)
				row.PutOwned(b[i*segment.RowSize:], f.log.owner())
			}
			f.rows[key] = b
		}
		return copy(p, b), nil
	}
	for at := 0; at < len(p); {
		n, inside := (int(off)+at)/len(f.batch), (int(off)+at)%len(f.batch)
		i := id.Index(f.seg*f.each + n)
		if f.made[i] == nil {
			_, f.made[i] = f.entry(f.seg, n)
		}
		at += copy(p[at:], f.made[i][inside:])
	}
	return len(p), nil
}

// BenchmarkOffsetForTime looks up times in a log shaped like 1 TiB: 1,024 segments of 1 GiB, of batches of 64 records. The disk is memory: what
// a disk takes for the one batch comes on top. "first" is the time of the first record of a batch, "middle" that of one within. "warm" asks for
// the same 64 times, whose rows are in the cache of blocks, "anywhere" for 1,024, whose rows are not: each block is a read.
func BenchmarkOffsetForTime(b *testing.B) {
	for _, codec := range []batch.Compression{batch.None, batch.LZ4} {
		for _, times := range []struct {
			name string
			n    int
		}{{"warm", 64}, {"anywhere", 1024}} {
			for _, within := range []struct {
				name string
				at   int64
			}{{"first", 0}, {"middle", shapeRecords / 2}} {
				b.Run(fmt.Sprintf("%v/%s/%s", codec, times.name, within.name), func(b *testing.B) {
					benchmarkOffsetForTime(b, codec, times.n, within.at)
				})
			}
		}
	}
}

func benchmarkOffsetForTime(b *testing.B, codec batch.Compression, times int, within int64) {
	const size = 256 // of a record
	sim := disksim.New(disksim.Options{})
	shaped := &shape{FS: sim, made: make(map[id.Index][]byte), rows: make(map[shapeBlock][]byte)}
	o := testOptions(sim, sim.Pebble(), "/data")
	o.FS = shaped
	s := mustOpen(b, o)
	l := mustCreate(b, s, 1)
	var builder batch.Builder
	rng := rand.New(rand.NewPCG(1, 1))
	for at := range int64(shapeRecords) {
		value := make([]byte, size) // half of it noise
		for i := range value[:size/2] {
			value[i] = byte(rng.Uint32())
		}
		builder.Append(batch.Record{Timestamp: at, Value: value})
	}
	var err error
	if shaped.batch, err = builder.Finish(nil, batch.Plain(codec)); err != nil || shaped.batch.Compression() != codec {
		b.Fatal(err)
	}
	shaped.log = l
	shaped.each = shapeBytes / len(shaped.batch) / segment.RowsPerBlock * segment.RowsPerBlock
	l.mu.Lock()
	before, last, next := l.segs, l.last.Load(), l.next.Load()
	l.segs = nil
	for k := range shapeSegments {
		first := l.start.Index + 1 + id.Index(k*shaped.each)
		end := id.Position(shaped.each * len(shaped.batch))
		l.segs = append(l.segs, &seg{
			key: segment.Key{Base: id.Offset(k * shaped.each * shapeRecords)}, first: first, end: end, w: end, stage: segSealed,
			indexed: first + id.Index(shaped.each), rowBase: first + id.Index(shaped.each), maxTime: int64((k+1)*shaped.each*shapeRecords - 1), names: namesReady,
		})
	}
	all := shapeSegments * shaped.each
	l.last.Store(uint64(l.start.Index) + uint64(all))
	l.next.Store(int64(all * shapeRecords))
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.segs = before
		l.last.Store(last)
		l.next.Store(next)
		l.mu.Unlock()
		closeStore(b, s)
	}()
	asked := make([]int64, times)
	for i := range asked {
		asked[i] = rng.Int64N(int64(all))*shapeRecords + within
	}
	hw := l.NextOffset()
	lookUp := func(ts int64) {
		if got, at, ok, err := l.OffsetForTime(b.Context(), ts, 0, hw); err != nil || !ok || int64(got) != ts || at != ts {
			b.Fatalf("time %d is at %d (%d), %v, %v", ts, got, at, ok, err)
		}
	}
	for _, ts := range asked {
		lookUp(ts)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		lookUp(asked[i%times])
	}
	b.StopTimer()
}
