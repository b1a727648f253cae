package limit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/bench"
)

// producer gathers records into frames and sends them to the leader. Send, the sender and the receiver share mu.
type producer struct {
	conn   net.Conn
	files  int
	linger time.Duration
	window int64
	ended  func(bench.Outcome)

	running sync.WaitGroup
	stop    chan struct{}

	mu       sync.Mutex
	work     sync.Cond // for the sender: frames are ready
	room     sync.Cond // for Send and Flush: bytes came back
	open     []*outgoing
	next     []uint64 // number of the next record, by partition
	ready    []*outgoing
	sent     [][]*outgoing // by file, unacknowledged
	sequence []uint64      // by file
	inFlight int64
	free     []*outgoing
	err      error
	closed   bool
}

// outgoing is a frame on its way.
type outgoing struct {
	b     []byte
	first uint64 // number of its first record
	count uint32
	part  int
}

func newProducer(address string, w bench.Workload, layout Layout, partitions int, ended func(bench.Outcome)) (*producer, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{kindFrames}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	files := layout.filesOf(partitions)
	p := &producer{
		conn: conn, files: files, linger: w.Linger, window: int64(w.InFlight), ended: ended, stop: make(chan struct{}),
		open: make([]*outgoing, partitions), next: make([]uint64, partitions),
		sent: make([][]*outgoing, files), sequence: make([]uint64, files),
	}
	p.work.L, p.room.L = &p.mu, &p.mu
	p.running.Go(p.send)
	p.running.Go(p.receive)
	if p.linger > 0 {
		p.running.Go(p.tick)
	}
	return p, nil
}

func (p *producer) fileOf(partition int) int { return partition % p.files }

// Send implements bench.Producer.
func (p *producer) Send(_ context.Context, partition int, key, value []byte) error {
	need := recordBytes + len(key) + len(value)
	if need > frameBytes-headerBytes {
		return fmt.Errorf("limit: a record of %d bytes is larger than a frame", need)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.inFlight+int64(need) > p.window && p.err == nil {
		p.readyAllLocked()
		p.room.Wait()
	}
	if p.err != nil {
		return p.err
	}
	f := p.open[partition]
	if f != nil && len(f.b)+need > frameBytes {
		p.readyLocked(partition)
		f = nil
	}
	if f == nil {
		f = p.takeLocked()
		f.part, f.first = partition, p.next[partition]
		p.open[partition] = f
	}
	f.b = appendRecord(f.b, key, value)
	f.count++
	p.next[partition]++
	p.inFlight += int64(need)
	if p.linger == 0 && f.count == 1 {
		p.work.Signal()
	}
	return nil
}

func (p *producer) takeLocked() *outgoing {
	if n := len(p.free); n > 0 {
		f := p.free[n-1]
		p.free = p.free[:n-1]
		f.b, f.count = f.b[:headerBytes], 0
		return f
	}
	return &outgoing{b: make([]byte, headerBytes, frameBytes)}
}

// readyLocked closes the open frame of a partition.
func (p *producer) readyLocked(partition int) {
	f := p.open[partition]
	p.open[partition] = nil
	p.ready = append(p.ready, f)
	p.work.Signal()
}

func (p *producer) readyAllLocked() {
	for partition, f := range p.open {
		if f != nil {
			p.readyLocked(partition)
		}
	}
}

// tick ends the linger of open frames.
func (p *producer) tick() {
	t := time.NewTicker(p.linger)
	defer t.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-t.C:
			p.mu.Lock()
			p.readyAllLocked()
			p.mu.Unlock()
		}
	}
}

func (p *producer) send() {
	var pieces net.Buffers
	for {
		p.mu.Lock()
		for {
			if len(p.ready) == 0 && p.linger == 0 {
				p.readyAllLocked()
			}
			if len(p.ready) > 0 || p.closed {
				break
			}
			p.work.Wait()
		}
		if p.closed {
			p.mu.Unlock()
			return
		}
		pieces = pieces[:0]
		for _, f := range p.ready {
			file := p.fileOf(f.part)
			p.sequence[file]++
			header{uint32(len(f.b)), uint32(file), uint32(f.part), f.count, p.sequence[file]}.put(f.b)
			p.sent[file] = append(p.sent[file], f)
			pieces = append(pieces, f.b)
		}
		p.ready = p.ready[:0]
		p.mu.Unlock()
		rest := pieces
		if _, err := rest.WriteTo(p.conn); err != nil {
			p.fail(err)
			return
		}
	}
}

// receive takes acknowledgements.
func (p *producer) receive() {
	in := bufio.NewReader(p.conn)
	ack := make([]byte, ackBytes)
	var done []*outgoing
	for {
		if _, err := io.ReadFull(in, ack); err != nil {
			p.fail(err)
			return
		}
		file, sequence := ackOf(ack)
		p.mu.Lock()
		sent, at := p.sent[file], 0
		for at < len(sent) && headerOf(sent[at].b).sequence <= sequence {
			at++
		}
		done = append(done[:0], sent[:at]...)
		p.sent[file] = sent[at:]
		p.mu.Unlock()
		for _, f := range done {
			p.ended(bench.Outcome{Partition: f.part, First: f.first, Count: int(f.count), Offset: int64(f.first)})
		}
		p.mu.Lock()
		for _, f := range done {
			p.inFlight -= int64(len(f.b) - headerBytes)
		}
		p.free = append(p.free, done...)
		p.room.Broadcast()
		p.mu.Unlock()
	}
}

func (p *producer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = fmt.Errorf("limit: the leader is gone: %w", err)
	}
	p.room.Broadcast()
	p.work.Signal()
}

// Flush implements bench.Producer.
func (p *producer) Flush(ctx context.Context) error {
	defer context.AfterFunc(ctx, p.room.Broadcast)()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readyAllLocked()
	for p.inFlight > 0 && p.err == nil && ctx.Err() == nil {
		p.room.Wait()
	}
	return errors.Join(p.err, ctx.Err())
}

// Close implements bench.Producer.
func (p *producer) Close() error {
	close(p.stop)
	p.mu.Lock()
	p.closed = true
	p.work.Signal()
	p.mu.Unlock()
	// The connection stays until the receiver has seen its end: closing it would end the leader.
	err := p.conn.Close()
	p.running.Wait()
	return err
}
