package limit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/quorumlog/quorumlog/bench"
)

const (
	// chunkBytes is what one pread asks for.
	chunkBytes = 1 << 20
	// chunkFrames is how many frames that is: the files that are read have frames of frameBytes, each at its own multiple of it.
	chunkFrames = chunkBytes / frameBytes
	// preadReaders is how many files are read at a time. Of 1, 3 and 12, 3 was the fastest (docs/BENCHMARKS.md).
	preadReaders = 3
)

// framePacker gathers a partition's records into full frames, and those into chunks.
type framePacker struct {
	frames []*buffer // the last one is open
	next   int64     // offset of the first record that is not written
}

// packProducer writes straight into the files, a chunk and a sync at a time. Only what it leaves behind is measured.
type packProducer struct {
	pool       *pool
	files      []*diskFile
	partitions []framePacker
	ended      func(bench.Outcome)
}

func newPackProducer(dir string, partitions int, ended func(bench.Outcome)) (*packProducer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	p := &packProducer{pool: newPool(partitions * chunkBytes), partitions: make([]framePacker, partitions), ended: ended}
	for i := range partitions {
		f, err := openDisk(Log, fileName(dir, i))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("limit: cannot make a file: %w", err), p.Close())
		}
		p.files = append(p.files, f)
	}
	return p, nil
}

// Send implements bench.Producer.
func (p *packProducer) Send(_ context.Context, partition int, key, value []byte) error {
	need := recordBytes + len(key) + len(value)
	if need > frameBytes-headerBytes {
		return fmt.Errorf("limit: a record of %d bytes is larger than a frame", need)
	}
	k := &p.partitions[partition]
	if n := len(k.frames); n == 0 || k.frames[n-1].n+need > frameBytes {
		if n == chunkFrames {
			if err := p.write(partition); err != nil {
				return err
			}
		}
		b := <-p.pool.free
		b.n = headerBytes
		header{file: uint32(partition), partition: uint32(partition)}.put(b.b)
		k.frames = append(k.frames, b)
	}
	b := k.frames[len(k.frames)-1]
	b.n = len(appendRecord(b.b[:b.n], key, value))
	h := headerOf(b.b)
	h.count++
	h.bytes = uint32(b.n)
	h.put(b.b)
	return nil
}

// write writes what a partition has gathered.
func (p *packProducer) write(partition int) error {
	k := &p.partitions[partition]
	records := 0
	for _, b := range k.frames {
		records += int(headerOf(b.b).count)
		clear(b.b[b.n:])
		b.n = frameBytes // each frame begins at a multiple of that
	}
	if err := p.files[partition].commit(k.frames); err != nil {
		return fmt.Errorf("limit: cannot write: %w", err)
	}
	for _, b := range k.frames {
		p.pool.free <- b
	}
	k.frames = k.frames[:0]
	p.ended(bench.Outcome{Partition: partition, First: uint64(k.next), Count: records, Offset: k.next})
	k.next += int64(records)
	return nil
}

// Flush implements bench.Producer.
func (p *packProducer) Flush(context.Context) error {
	for i := range p.partitions {
		if len(p.partitions[i].frames) == 0 {
			continue
		}
		if err := p.write(i); err != nil {
			return err
		}
	}
	return nil
}

// Close implements bench.Producer.
func (p *packProducer) Close() error {
	for _, f := range p.files {
		f.close()
	}
	return nil
}

// chunkConsumer has readers that take one file after the other, each from its beginning to its end, and Poll visits what they
// have read. So the disk is busy while records are compared.
type chunkConsumer struct {
	partitions int
	offsets    []int64
	files      chan string
	free       chan []byte
	full       chan chunk // closed when all files are read
	closed     chan struct{}
	running    sync.WaitGroup
}

// chunk is what one pread has brought.
type chunk struct {
	b   []byte
	err error
}

func newChunkConsumer(dir string, partitions, readers int) *chunkConsumer {
	c := &chunkConsumer{
		partitions: partitions, offsets: make([]int64, partitions), files: make(chan string, partitions),
		free: make(chan []byte, 2*readers), full: make(chan chunk), closed: make(chan struct{}),
	}
	for i := range partitions {
		c.files <- fileName(dir, i)
	}
	close(c.files)
	for range cap(c.free) {
		c.free <- aligned(chunkBytes)
	}
	for range readers {
		c.running.Go(c.read)
	}
	go func() {
		c.running.Wait()
		close(c.full)
	}()
	return c
}

// read reads files until there are no more.
func (c *chunkConsumer) read() {
	for name := range c.files {
		if err := c.readFile(name); err != nil {
			c.handOver(chunk{err: fmt.Errorf("limit: cannot read: %w", err)})
			return
		}
	}
}

func (c *chunkConsumer) readFile(name string) error {
	f, err := openDirect(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); ; at += chunkBytes {
		var b []byte
		select {
		case b = <-c.free:
		case <-c.closed:
			return errClosed
		}
		n, err := f.ReadAt(b, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		clear(b[n:])
		last := headerOf(b[chunkBytes-frameBytes:]).bytes == 0 // allocated and not written
		if !c.handOver(chunk{b: b}) || last {
			return nil
		}
	}
}

var errClosed = errors.New("the consumer is closed")

func (c *chunkConsumer) handOver(k chunk) bool {
	select {
	case c.full <- k:
		return true
	case <-c.closed:
		return false
	}
}

// Poll implements bench.Consumer.
func (c *chunkConsumer) Poll(ctx context.Context, visit func(bench.Message)) error {
	select {
	case k, ok := <-c.full:
		if !ok {
			return io.EOF
		}
		if k.err != nil {
			return k.err
		}
		err := c.visit(k.b, visit)
		c.free <- k.b
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *chunkConsumer) visit(b []byte, visit func(bench.Message)) error {
	for ; len(b) > 0; b = b[frameBytes:] {
		h := headerOf(b)
		if h.bytes == 0 {
			return nil
		}
		if err := h.check(c.partitions); err != nil {
			return err
		}
		if err := visitFrame(h, b[headerBytes:h.bytes], c.offsets, visit); err != nil {
			return err
		}
	}
	return nil
}

// Close implements bench.Consumer. It may be called twice.
func (c *chunkConsumer) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	c.running.Wait()
	return nil
}
