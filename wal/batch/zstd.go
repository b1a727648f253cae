package batch

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// zstdEncoder is shared: EncodeAll may be called by many at once. It starts no goroutines.
var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(fmt.Sprintf("batch: zstd encoder: %v", err))
	}
	return e
})

// zstdDecoder is shared likewise. It writes into the room that it is given and allocates no more. The library's own bounds do
// not serve here: its memory limit is also one for the window, and the Java client announces a window of 2 MiB and more for
// the smallest batch; and its stream reader allocates the window that the frame announces.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(fmt.Sprintf("batch: zstd decoder: %v", err))
	}
	return d
})

const (
	zstdMaxBlock = 128 << 10 // bytes, decompressed

	// zstdSlack is room for one block more than is allowed, and what the library likes to overrun. With it a block that does
	// not fit says that the limit was passed before: otherwise too little room looks like bad bytes.
	zstdSlack = zstdMaxBlock + 64
)

func decodeZstd(buffer, src []byte, limit int) ([]byte, error) {
	bound, err := zstdBound(src)
	if err != nil {
		return buffer, err
	}
	room := int(min(bound, int64(limit))) + zstdSlack
	buffer = slices.Grow(buffer[:0], room)
	out, err := zstdDecoder().DecodeAll(src, buffer[:0:room])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || len(out) > limit {
		return buffer, tooLarge(limit)
	}
	if err != nil {
		return buffer, err
	}
	return buffer[:len(out)], nil
}

// zstdBound walks frames and the headers of their blocks, and returns a bound of what they decompress to: exact when the frames
// say it, else to the next 128 KiB for each compressed block. A frame that says more than its blocks could hold is not believed.
//
//	frame   header, blocks up to the one marked last, optional checksum of 4 bytes
//	block   header of 3 bytes, little endian: last (1 bit), type (2 bits), size (21 bits), then
//	        type 0  raw         size bytes
//	        type 1  run length  1 byte, stands for size bytes
//	        type 2  compressed  size bytes, stand for at most 128 KiB
func zstdBound(src []byte) (bound int64, err error) {
	var h zstd.Header
	for len(src) > 0 {
		if err := h.Decode(src); err != nil {
			return 0, err
		}
		if h.Skippable {
			skip := int64(h.HeaderSize) + int64(h.SkippableSize)
			if skip > int64(len(src)) {
				return 0, io.ErrUnexpectedEOF
			}
			src = src[skip:]
			continue
		}
		rest, blocks, err := zstdBlocks(src[h.HeaderSize:])
		if err != nil {
			return 0, err
		}
		if h.HasCheckSum {
			if len(rest) < 4 {
				return 0, io.ErrUnexpectedEOF
			}
			rest = rest[4:]
		}
		if h.HasFCS {
			blocks = int64(min(uint64(blocks), h.FrameContentSize))
		}
		bound += blocks
		src = rest
	}
	return bound, nil
}

// zstdBlocks walks the blocks of one frame and returns what follows them.
func zstdBlocks(src []byte) (rest []byte, bound int64, err error) {
	for last := false; !last; {
		if len(src) < 3 {
			return nil, 0, io.ErrUnexpectedEOF
		}
		header := int(src[0]) | int(src[1])<<8 | int(src[2])<<16
		src = src[3:]
		last = header&1 != 0
		size := header >> 3
		stored, expanded := size, size
		switch header >> 1 & 3 {
		case 0:
		case 1:
			stored = 1
		case 2:
			expanded = zstdMaxBlock
		default:
			return nil, 0, errors.New("reserved block type")
		}
		if stored > len(src) {
			return nil, 0, io.ErrUnexpectedEOF
		}
		src = src[stored:]
		bound += int64(expanded)
	}
	return src, bound, nil
}
