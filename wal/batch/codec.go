package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/pierrec/lz4/v4"
)

// What is written is what Kafka's clients read: gzip, one raw snappy block, an lz4 frame of independent blocks, a zstd frame.
// What is read is what they write, which differs for snappy: the Java client frames it as the xerial library does.
//
//	xerial snappy: 82 'SNAPPY' 00, version int32, compatible int32, then chunks of
//	  length  int32  big endian
//	  block          raw snappy
//
// None of the codecs checksums its content where that can be left out: the batch has a CRC.

// appendCompressed appends src to dst, compressed if that makes it smaller, and returns the codec that was used.
func appendCompressed(dst, src []byte, c Compression) ([]byte, Compression, error) {
	start := len(dst)
	var err error
	switch c {
	case None:
		return append(dst, src...), None, nil
	case Gzip:
		dst, err = appendGzip(dst, src)
	case Snappy:
		dst = appendSnappy(dst, src)
	case LZ4:
		dst, err = appendLZ4(dst, src)
	case Zstd:
		dst = zstdEncoder().EncodeAll(src, dst)
	}
	if err != nil {
		return nil, None, fmt.Errorf("batch: %s: %w", c, err)
	}
	if len(dst)-start >= len(src) {
		return append(dst[:start], src...), None, nil
	}
	return dst, c, nil
}

// decompress returns src, decompressed into the room of buffer, which comes back even with an error, to be used again. It grows
// as bytes come out and not because a length field asks for it, and never beyond twice the limit and a
// block.
func decompress(buffer, src []byte, c Compression, limit int) ([]byte, error) {
	limit = min(max(limit, 0), math.MaxInt32)
	buffer = buffer[:0]
	var err error
	switch c {
	case Gzip:
		buffer, err = decodeGzip(buffer, src, limit)
	case Snappy:
		buffer, err = decodeSnappy(buffer, src, limit)
	case LZ4:
		buffer, err = decodeLZ4(buffer, src, limit)
	case Zstd:
		buffer, err = decodeZstd(buffer, src, limit)
	default:
		err = errors.New("codec is unknown")
	}
	if err == nil {
		return buffer, nil
	}
	buffer = buffer[:0]
	if _, ok := errors.AsType[*TooLargeError](err); ok {
		return buffer, err
	}
	return buffer, fmt.Errorf("%w: %s: %w", ErrInvalid, c, err)
}

func tooLarge(limit int) error { return &TooLargeError{Size: limit + 1, Limit: limit} }

// readInto reads r to its end into the room of buffer.
func readInto(buffer []byte, r io.Reader, guess, limit int) ([]byte, error) {
	buffer = slices.Grow(buffer[:0], min(max(guess, 4096), limit+1))
	for {
		// One byte more than the limit tells the end from too much.
		room := min(cap(buffer), limit+1)
		n, err := r.Read(buffer[len(buffer):room])
		buffer = buffer[:len(buffer)+n]
		if len(buffer) > limit {
			return buffer, tooLarge(limit)
		}
		if err == io.EOF {
			return buffer, nil
		}
		if err != nil {
			return buffer, err
		}
		if len(buffer) == cap(buffer) {
			buffer = slices.Grow(buffer, min(len(buffer), limit+1-len(buffer)))
		}
	}
}

// appender is the io.Writer that the stream compressors write to.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

type gzipCompressor struct {
	out appender
	w   *gzip.Writer
}

var gzipCompressors = sync.Pool{New: func() any {
	return &gzipCompressor{w: gzip.NewWriter(nil)}
}}

func appendGzip(dst, src []byte) ([]byte, error) {
	c := gzipCompressors.Get().(*gzipCompressor)
	defer gzipCompressors.Put(c)
	c.out.b = dst
	defer func() { c.out.b = nil }()
	c.w.Reset(&c.out)
	if _, err := c.w.Write(src); err != nil {
		return nil, err
	}
	if err := c.w.Close(); err != nil {
		return nil, err
	}
	return c.out.b, nil
}

type gzipDecompressor struct {
	in bytes.Reader
	r  gzip.Reader
}

var gzipDecompressors = sync.Pool{New: func() any { return new(gzipDecompressor) }}

func decodeGzip(buffer, src []byte, limit int) ([]byte, error) {
	d := gzipDecompressors.Get().(*gzipDecompressor)
	defer gzipDecompressors.Put(d)
	defer d.in.Reset(nil)
	d.in.Reset(src)
	if err := d.r.Reset(&d.in); err != nil {
		return buffer, err
	}
	return readInto(buffer, &d.r, 4*len(src), limit)
}

func appendSnappy(dst, src []byte) []byte {
	dst = slices.Grow(dst, s2.MaxEncodedLen(len(src)))
	start := len(dst)
	block := s2.EncodeSnappy(dst[start:cap(dst)], src)
	return dst[:start+len(block)]
}

var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeaderSize = 16

	// snappyMaxRatio is more than any snappy block expands: its densest element makes 64 bytes of 3.
	snappyMaxRatio = 22
)

func decodeSnappy(buffer, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return appendSnappyBlock(buffer, src, limit)
	}
	for len(src) > 0 {
		// Streams that were put one behind the other keep their headers.
		if bytes.HasPrefix(src, xerialMagic) {
			if len(src) < xerialHeaderSize {
				return buffer, io.ErrUnexpectedEOF
			}
			src = src[xerialHeaderSize:]
			continue
		}
		if len(src) < 4 {
			return buffer, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(src))
		if n > int64(len(src)-4) {
			return buffer, io.ErrUnexpectedEOF
		}
		var err error
		if buffer, err = appendSnappyBlock(buffer, src[4:4+n], limit); err != nil {
			return buffer, err
		}
		src = src[4+n:]
	}
	return buffer, nil
}

func appendSnappyBlock(dst, src []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return dst, err
	}
	if int64(n) > snappyMaxRatio*int64(len(src)) {
		return dst, s2.ErrCorrupt
	}
	if n > limit-len(dst) {
		return dst, tooLarge(limit)
	}
	start := len(dst)
	dst = slices.Grow(dst, n)
	out, err := s2.Decode(dst[start:start+n:start+n], src)
	if err != nil {
		return dst, err
	}
	return dst[:start+len(out)], nil
}

type lz4Compressor struct {
	out appender
	w   *lz4.Writer
}

var lz4Compressors = sync.Pool{New: func() any {
	c := &lz4Compressor{w: lz4.NewWriter(nil)}
	// Blocks of 64 KiB are what the Java client writes; the writer and every reader keep one in memory.
	if err := c.w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
		panic(fmt.Sprintf("batch: lz4 options: %v", err))
	}
	return c
}}

func appendLZ4(dst, src []byte) ([]byte, error) {
	c := lz4Compressors.Get().(*lz4Compressor)
	defer lz4Compressors.Put(c)
	c.out.b = dst
	defer func() { c.out.b = nil }()
	c.w.Reset(&c.out)
	if _, err := c.w.Write(src); err != nil {
		return nil, err
	}
	if err := c.w.Close(); err != nil {
		return nil, err
	}
	return c.out.b, nil
}

type lz4Decompressor struct {
	in bytes.Reader
	r  *lz4.Reader
}

var lz4Decompressors = sync.Pool{New: func() any {
	return &lz4Decompressor{r: lz4.NewReader(nil)}
}}

func decodeLZ4(buffer, src []byte, limit int) ([]byte, error) {
	d := lz4Decompressors.Get().(*lz4Decompressor)
	defer lz4Decompressors.Put(d)
	defer d.in.Reset(nil)
	d.in.Reset(src)
	d.r.Reset(&d.in)
	return readInto(buffer, d.r, 4*len(src), limit)
}
