package batch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"sync"

	"github.com/quorumlog/quorumlog/wal/id"
)

// LookupLimit is the number of bytes that one lookup may decompress, in all batches that it looks into together.
const LookupLimit = 16 << 20

// FirstAt returns offset and timestamp of the first record at or after offset from whose timestamp is at least ts (milliseconds); false when
// there is none. A batch of which the header says enough is not opened.
//
// Compressed records are the producer's, and a small batch may stand for gigabytes. budget is how many bytes may still be decompressed; it
// comes down by what was. Of a batch whose records cannot be read, or not within the budget, nobody can say which one it is: it is answered
// for as a whole, with its first offset from from on and its largest timestamp. Kafka allows an answer that is too early, and nothing is left
// out.
func (b Batch) FirstAt(ts int64, from id.Offset, budget *int) (id.Offset, int64, bool) {
	most := b.MaxTimestamp()
	if most < ts || b.NextOffset() <= from || b.Count() == 0 {
		return id.NoOffset, -1, false
	}
	// All records have the one timestamp, or the first has the one that it is told by.
	if b.Attributes().LogAppendTime() {
		return max(b.BaseOffset(), from), most, true
	}
	if at := b.BaseTimestamp(); at >= ts && at <= most && b.BaseOffset() >= from {
		return b.BaseOffset(), at, true
	}
	w := timeWalk{b: b, ts: ts, from: from, last: -1}
	var err error
	if codec := b.Compression(); codec == None {
		err = w.memory(b.Payload())
	} else {
		err = w.compressed(codec, budget)
	}
	switch {
	case w.found:
		return w.offset, w.at, true
	case err != nil:
		return max(b.BaseOffset(), from), most, true
	}
	return id.NoOffset, -1, false
}

// timeWalk goes through the records of a batch and looks at nothing but time and offset.
type timeWalk struct {
	b    Batch
	ts   int64
	from id.Offset
	last int32 // offset delta of the record before; -1 at the start

	found  bool
	offset id.Offset
	at     int64
}

var errRecords = errors.New("batch: the records make no sense")

// take looks at a record; false ends the walk.
func (w *timeWalk) take(timestampDelta, offsetDelta int64) (more bool, err error) {
	if offsetDelta <= int64(w.last) || offsetDelta > int64(w.b.LastOffsetDelta()) {
		return false, errRecords
	}
	w.last = int32(offsetDelta)
	offset, at := w.b.BaseOffset()+id.Offset(offsetDelta), w.b.BaseTimestamp()+timestampDelta
	if w.found = at >= w.ts && offset >= w.from; w.found {
		w.offset, w.at = offset, at
	}
	return !w.found, nil
}

// memory walks records that are in memory.
func (w *timeWalk) memory(b []byte) error {
	var f recordFrame
	at := 0
	for range w.b.Count() {
		end, reason := f.parse(b, at)
		if reason != "" {
			return errRecords
		}
		if more, err := w.take(f.timestampDelta, int64(f.offsetDelta)); !more {
			return err
		}
		at = end
	}
	return nil
}

// stream walks records as they come out of a decompressor.
func (w *timeWalk) stream(r *bufio.Reader) error {
	for range w.b.Count() {
		length, err := binary.ReadVarint(r)
		if err != nil {
			return err
		}
		if length < 0 || length > math.MaxInt32 {
			return errRecords
		}
		// The fields before the key are in the first 21 bytes. Where the stream ends sooner, Peek gives what there is.
		head, _ := r.Peek(int(min(length, 1+2*binary.MaxVarintLen64)))
		timestampDelta, at := readVarint(head, 1)
		offsetDelta, at := readVarint(head, at)
		if at < 0 {
			return errRecords
		}
		if more, err := w.take(timestampDelta, offsetDelta); !more {
			return err
		}
		if _, err := r.Discard(int(length)); err != nil {
			return err
		}
	}
	return nil
}

// compressed walks the records of a compressed batch, once its turn has come.
func (w *timeWalk) compressed(codec Compression, budget *int) error {
	f := <-finders()
	defer func() { finders() <- f }()
	return f.walk(w, codec, budget)
}

// finder opens compressed batches, one at a time.
type finder struct {
	whole []byte // of what has to be decompressed in one go
	limit io.LimitedReader
	r     *bufio.Reader
}

// finders are all that there are: as many as can work at once, so that lookups by however many callers hold the memory of these few.
var finders = sync.OnceValue(func() chan *finder {
	c := make(chan *finder, runtime.GOMAXPROCS(0))
	for range cap(c) {
		c <- &finder{r: bufio.NewReaderSize(nil, 4096)}
	}
	return c
})

const keepWhole = 1 << 20 // bytes of finder.whole from one batch to the next

// walk has w walk the records of its batch. gzip and lz4 come out piece by piece, and no more of them than is needed; a block of snappy and
// a frame of zstd come as a whole (see zstdDecoder for why).
func (f *finder) walk(w *timeWalk, codec Compression, budget *int) error {
	if *budget <= 0 {
		return tooLarge(0)
	}
	payload := w.b.Payload()
	switch codec {
	case Gzip:
		d := gzipDecompressors.Get().(*gzipDecompressor)
		defer gzipDecompressors.Put(d)
		defer d.in.Reset(nil)
		d.in.Reset(payload)
		if err := d.r.Reset(&d.in); err != nil {
			return err
		}
		return f.stream(w, &d.r, budget)
	case LZ4:
		d := lz4Decompressors.Get().(*lz4Decompressor)
		defer lz4Decompressors.Put(d)
		defer d.in.Reset(nil)
		d.in.Reset(payload)
		d.r.Reset(&d.in)
		return f.stream(w, d.r, budget)
	}
	var err error
	if f.whole, err = decompress(f.whole, payload, codec, *budget); err != nil {
		*budget = 0 // it may have cost as much
	} else {
		*budget -= len(f.whole)
		err = w.memory(f.whole)
	}
	if cap(f.whole) > keepWhole {
		f.whole = nil
	}
	return err
}

func (f *finder) stream(w *timeWalk, r io.Reader, budget *int) error {
	f.limit = io.LimitedReader{R: r, N: int64(*budget)}
	f.r.Reset(&f.limit)
	err := w.stream(f.r)
	*budget = int(f.limit.N)
	f.limit.R = nil
	return err
}
