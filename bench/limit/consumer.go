package limit

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/quorumlog/quorumlog/bench"
)

// visitFrame visits the records of a frame; offsets counts those of each partition.
func visitFrame(h header, b []byte, offsets []int64, visit func(bench.Message)) error {
	for range h.count {
		if len(b) < recordBytes {
			return errors.New("limit: a frame ends within a record")
		}
		value, key := int(binary.BigEndian.Uint32(b)), int(binary.BigEndian.Uint16(b[4:]))
		b = b[recordBytes:]
		if len(b) < key+value {
			return errors.New("limit: a frame ends within a record")
		}
		visit(bench.Message{Partition: int(h.partition), Offset: offsets[h.partition], Key: b[:key], Value: b[key : key+value]})
		offsets[h.partition]++
		b = b[key+value:]
	}
	return nil
}

// fileConsumer reads the files of the leader, one after the other.
type fileConsumer struct {
	layout  Layout
	dir     string
	files   int
	offsets []int64

	file  int
	f     *os.File
	in    *bufio.Reader
	frame []byte
}

// framesPerPoll bounds a Poll.
const framesPerPoll = 16

// Poll implements bench.Consumer.
func (c *fileConsumer) Poll(_ context.Context, visit func(bench.Message)) error {
	for range framesPerPoll {
		if c.f == nil {
			if c.file == c.files {
				return io.EOF
			}
			var err error
			if c.f, err = os.Open(fileName(c.dir, c.file)); err != nil {
				return err
			}
			c.in = bufio.NewReaderSize(c.f, 1<<20)
		}
		h, err := c.next()
		if err != nil {
			return err
		}
		if h.bytes == 0 { // allocated and not written, or the end
			err := c.f.Close()
			c.f = nil
			c.file++
			return err
		}
		if err := visitFrame(h, c.frame[headerBytes:h.bytes], c.offsets, visit); err != nil {
			return err
		}
	}
	return nil
}

// next reads a frame; zero bytes mean the end of the file.
func (c *fileConsumer) next() (header, error) {
	if _, err := io.ReadFull(c.in, c.frame[:headerBytes]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return header{}, nil
		}
		return header{}, err
	}
	h := headerOf(c.frame)
	if h.bytes == 0 {
		return h, nil
	}
	if err := h.check(c.files); err != nil {
		return h, err
	}
	n := int(h.bytes)
	if c.layout == Log {
		n = (n + blockBytes - 1) &^ (blockBytes - 1)
	}
	_, err := io.ReadFull(c.in, c.frame[headerBytes:n])
	return h, err
}

// Close implements bench.Consumer.
func (c *fileConsumer) Close() error {
	if c.f == nil {
		return nil
	}
	return c.f.Close()
}

// liveConsumer is sent the frames as they are committed.
type liveConsumer struct {
	conn    net.Conn
	in      *bufio.Reader
	frame   []byte
	offsets []int64
}

func subscribe(address string, partitions int) (*liveConsumer, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &liveConsumer{conn: conn, in: bufio.NewReaderSize(conn, frameBytes), frame: make([]byte, frameBytes), offsets: make([]int64, partitions)}
	if _, err := conn.Write([]byte{kindSubscribe}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := io.ReadFull(c.in, c.frame[:1]); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Poll implements bench.Consumer.
func (c *liveConsumer) Poll(ctx context.Context, visit func(bench.Message)) error {
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })()
	if _, err := io.ReadFull(c.in, c.frame[:headerBytes]); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	h := headerOf(c.frame)
	if h.bytes < headerBytes || h.bytes > frameBytes {
		return fmt.Errorf("limit: a frame of %d bytes", h.bytes)
	}
	if _, err := io.ReadFull(c.in, c.frame[headerBytes:h.bytes]); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return visitFrame(h, c.frame[headerBytes:h.bytes], c.offsets, visit)
}

// Close implements bench.Consumer.
func (c *liveConsumer) Close() error { return c.conn.Close() }
