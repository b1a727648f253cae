package rpc

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"storj.io/drpc/drpcstream"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Acks says what a producer waits for.
type Acks int8

// Kafka's values.
const (
	AcksAll    Acks = -1 // committed, and on min.insync.replicas voters
	AcksNone   Acks = 0  // nothing: there is no answer at all
	AcksLeader Acks = 1  // the leader's own disk
)

// ProduceRequest carries exactly one record batch to the leader of a partition.
type ProduceRequest struct {
	Correlation uint64 // chosen by the client, returned in the answer
	Topic       id.Topic
	Partition   id.Partition
	Acks        Acks
	Timeout     time.Duration // milliseconds on the wire
	Batch       []byte        // received: valid until the callback returns, or as long as a reference of Data is held

	// Data keeps the memory that a received Batch is in, Memory bytes of it; whoever wants to keep it takes a reference.
	Data   Loan
	Memory int
}

// ProduceResponse answers one ProduceRequest. Answers of different partitions come in any order.
type ProduceResponse struct {
	Correlation uint64
	Code        kerr.Code
	BaseOffset  id.Offset // id.NoOffset unless Code is kerr.None
	Leader      id.Node   // with kerr.NotLeaderOrFollower: who leads instead, or id.NoNode
	Epoch       id.Epoch
	Message     string // empty on success
	Oldest      int64  // see kerr.Error
}

// Limits is what a server tells a client when a stream opens.
type Limits struct {
	Node          id.Node // who answers at this address
	MaxBatchBytes int     // a larger batch is refused with kerr.MessageTooLarge
	InFlightBytes int     // bytes of unanswered batches; beyond it requests may be refused with kerr.ThrottlingQuotaExceeded
}

// Kinds of frames on a produce stream, little-endian:
//
//	request                        answer
//	0   u32   length               0   u32   length
//	4   u8    kind                 4   u8    kind
//	5   i8    acks                 5   u8    1: the base offset is Oldest
//	6   u16   0                    6   i16   code
//	8   u64   correlation          8   u64   correlation
//	16  16 B  topic                16  i64   base offset
//	32  i32   partition            24  i32   leader
//	36  u32   timeout, ms          28  i32   epoch
//	40        batch                32        message
const (
	frameRequest = 1
	frameAnswer  = 1

	requestHead = 40
	answerHead  = 32
)

// appendRequestHead encodes a request up to its batch, which follows.
func appendRequestHead(dst []byte, r ProduceRequest) []byte {
	at := len(dst)
	dst = beginFrame(dst, frameRequest, requestHead)
	h := dst[at:]
	h[5] = byte(r.Acks)
	binary.LittleEndian.PutUint64(h[8:], r.Correlation)
	copy(h[16:], r.Topic[:])
	binary.LittleEndian.PutUint32(h[32:], uint32(r.Partition))
	binary.LittleEndian.PutUint32(h[36:], uint32(min(max(r.Timeout.Milliseconds(), 0), 1<<31-1)))
	binary.LittleEndian.PutUint32(h, uint32(requestHead-4+len(r.Batch)))
	return dst
}

// decodeRequest reads a request frame; the batch aliases it.
func decodeRequest(frame []byte) (ProduceRequest, error) {
	if len(frame) < requestHead {
		return ProduceRequest{}, kerr.Errorf(kerr.InvalidRequest, "produce request of %d bytes: too short for its header", len(frame))
	}
	return ProduceRequest{
		Acks:        Acks(frame[5]),
		Correlation: binary.LittleEndian.Uint64(frame[8:]),
		Topic:       id.Topic(frame[16:32]),
		Partition:   id.Partition(binary.LittleEndian.Uint32(frame[32:])),
		Timeout:     time.Duration(binary.LittleEndian.Uint32(frame[36:])) * time.Millisecond,
		Batch:       frame[requestHead:],
	}, nil
}

func appendAnswer(dst []byte, r ProduceResponse) []byte {
	at := len(dst)
	dst = beginFrame(dst, frameAnswer, answerHead)
	h := dst[at:]
	binary.LittleEndian.PutUint16(h[6:], uint16(r.Code))
	binary.LittleEndian.PutUint64(h[8:], r.Correlation)
	binary.LittleEndian.PutUint64(h[16:], uint64(r.BaseOffset))
	if r.Oldest != 0 { // a refusal, which has no offset
		h[5] = 1
		binary.LittleEndian.PutUint64(h[16:], uint64(r.Oldest))
	}
	binary.LittleEndian.PutUint32(h[24:], uint32(r.Leader))
	binary.LittleEndian.PutUint32(h[28:], uint32(r.Epoch))
	dst = append(dst, r.Message...)
	endFrame(dst, at)
	return dst
}

func decodeAnswer(frame []byte) (ProduceResponse, error) {
	if len(frame) < answerHead {
		return ProduceResponse{}, kerr.Errorf(kerr.InvalidRequest, "produce answer of %d bytes: too short for its header", len(frame))
	}
	r := ProduceResponse{
		Code:        kerr.Code(binary.LittleEndian.Uint16(frame[6:])),
		Correlation: binary.LittleEndian.Uint64(frame[8:]),
		BaseOffset:  id.Offset(binary.LittleEndian.Uint64(frame[16:])),
		Leader:      id.Node(binary.LittleEndian.Uint32(frame[24:])),
		Epoch:       id.Epoch(binary.LittleEndian.Uint32(frame[28:])),
		Message:     string(frame[answerHead:]),
	}
	if frame[5] == 1 {
		r.BaseOffset, r.Oldest = id.NoOffset, int64(r.BaseOffset)
	}
	return r, nil
}

// ProduceStream is the server's side of a producer's stream: the handler's goroutine receives, one more sends what those who answer do
// not send themselves.
type ProduceStream struct {
	conn *conn
	age  func() time.Duration // of the node's knowledge
	st   *drpcstream.Stream
	out  *outbox

	// writing is held by whoever takes answers off the outbox and writes them: the order of the one is that of the other.
	writing struct {
		sync.Mutex
		framer *framer // nil: the stream is over
		pieces [1][]byte
	}

	failing chan struct{} // closed by the first Fail, after failure is set
	once    sync.Once
	failure error
	bad     error // what was wrong with what the client sent; Recv's goroutine
}

// serveProduce runs the handler on a stream.
func (s *Server) serveProduce(c *conn, st *drpcstream.Stream) error {
	limits := Limits{Node: s.o.Node, MaxBatchBytes: MaxBatchBytes, InFlightBytes: produceWindow}
	if err := s.acceptHello(c, st, limits); err != nil {
		return err
	}
	p := &ProduceStream{conn: c, st: st, age: s.age, out: newOutbox(answersBound, s.bounds.answers.Share(2*answersBound)), failing: make(chan struct{})}
	p.writing.framer = newFramer(c, st.ID())
	c.endedBy(p.Fail)
	stop, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		p.write(stop)
	}()
	defer func() { // also when the handler panics
		p.out.close()
		close(stop)
		c.hurry()
		<-written
		_ = p.endWriting()
	}()
	err := s.o.Services.Produce(p)
	switch {
	case p.bad != nil:
		s.lines.Log(s.log, slog.LevelInfo, "closed a produce stream that carried what it should not", "remote", p.Remote(), "client", c.client, "reason", p.bad.Error())
		return p.bad
	case hungUp(err):
		return nil
	}
	return err
}

// write is the sending goroutine: it packs what has been answered meanwhile into one message.
func (p *ProduceStream) write(stop chan struct{}) {
	for {
		select {
		case <-p.out.wake:
			if p.drain() != nil {
				return // the receiving side will learn why
			}
		case <-p.failing:
			_ = p.drain()
			if p.endWriting() == nil {
				_ = p.st.SendError(toWire(p.failure))
			}
			return
		case <-stop:
			return
		}
	}
}

func (p *ProduceStream) drain() error {
	w := &p.writing
	w.Lock()
	defer w.Unlock()
	if w.framer == nil {
		return nil
	}
	if err := p.st.Context().Err(); err != nil { // nobody reads any more, although the connection may be there
		return err
	}
	if err := w.framer.complete(); err != nil {
		return err
	}
	for answers := p.out.take(); answers != nil; answers = p.out.take() {
		err := w.framer.write(p.piecesOf(answers.Bytes))
		p.out.done(answers)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeSmall writes what is queued if it is little and nobody else is writing. False: the sending goroutine has to.
func (p *ProduceStream) writeSmall() bool {
	w := &p.writing
	if !w.TryLock() {
		return false
	}
	defer w.Unlock()
	if w.framer == nil || !w.framer.canTry() || p.st.Context().Err() != nil {
		return false
	}
	answers := p.out.takeSmall(smallAnswers)
	if answers == nil {
		return false
	}
	err := w.framer.tryWrite(p.piecesOf(answers.Bytes))
	p.out.done(answers)
	return err == nil && w.framer.whole()
}

// piecesOf returns answers as the pieces of a message. writing is held.
func (p *ProduceStream) piecesOf(answers []byte) [][]byte {
	p.writing.pieces[0] = answers
	return p.writing.pieces[:]
}

// endWriting leaves the connection to drpc's stream. It fails when there is a message that cannot be completed: nothing can be said then.
func (p *ProduceStream) endWriting() error {
	w := &p.writing
	w.Lock()
	defer w.Unlock()
	if w.framer == nil {
		return nil
	}
	err := w.framer.complete()
	w.framer = nil
	if err != nil {
		_ = p.conn.Close()
	}
	return err
}

// Context ends when the stream does.
func (p *ProduceStream) Context() context.Context { return p.st.Context() }

// Caller is who produces.
func (p *ProduceStream) Caller() *broker.Caller { return p.conn.caller }

// Remote is the address of the producer.
func (p *ProduceStream) Remote() string { return p.conn.RemoteAddr().String() }

// Recv calls f for each request, in the order in which the client sent them, and end, if not nil, after those that came together, until
// the stream ends. It returns nil when the client closed it. Neither must block: while they run nothing is read, and a broken connection
// goes unnoticed.
func (p *ProduceStream) Recv(f func(ProduceRequest), end func()) error {
	err := receive(p.conn, p.st, func(message *memory.Buffer) error {
		defer message.Release()
		p.bad = frames(message.Bytes, func(kind byte, frame []byte) error { return p.frame(kind, frame, message, f) })
		if end != nil {
			end()
		}
		p.Flush()
		return p.bad
	})
	if hungUp(err) {
		return nil
	}
	return err
}

func (p *ProduceStream) frame(kind byte, frame []byte, message *memory.Buffer, f func(ProduceRequest)) error {
	switch kind {
	case framePing:
		p.put(appendPong(nil, p.age()))
		return nil
	case frameRequest:
	default:
		return kerr.Errorf(kerr.InvalidRequest, "frame of kind %d on a produce stream", kind)
	}
	r, err := decodeRequest(frame)
	if err != nil {
		return err
	}
	if len(r.Batch) > MaxBatchBytes {
		p.Send(ProduceResponse{Correlation: r.Correlation, Code: kerr.MessageTooLarge, BaseOffset: id.NoOffset, Leader: id.NoNode,
			Message: tooLarge(len(r.Batch)).Message})
		return nil
	}
	r.Data, r.Memory = message, cap(message.Bytes)
	f(r)
	return nil
}

func tooLarge(n int) *kerr.Error {
	return kerr.Errorf(kerr.MessageTooLarge, "batch of %d bytes, the limit is %d: send smaller batches", n, MaxBatchBytes)
}

// Send queues an answer. It never blocks; any goroutine may call it, also after the stream has ended. Flush must follow, but one for
// several answers will do, and what is sent inside Recv's callbacks is flushed by Recv. A client that lets answers pile up beyond a bound
// loses its stream.
func (p *ProduceStream) Send(r ProduceResponse) {
	if p.out.begin(answerHead + len(r.Message)) {
		p.out.end(appendAnswer(p.out.train(), r))
	} else if p.out.overflows() {
		p.Fail(kerr.Errorf(kerr.PolicyViolation, "%d KiB of answers were not read, of which the node holds up to %d for a connection, and less while many do not read: the stream is closed",
			p.out.share.Held()>>10, answersBound>>10))
	}
}

// Throttle tells the producer to send nothing for a while. Like Send, which it goes before: what is sent next goes with it.
func (p *ProduceStream) Throttle(d time.Duration) {
	var frame [12]byte
	p.put(appendThrottle(frame[:0], d))
}

// smallAnswers is what Flush writes itself: about two hundred answers.
const smallAnswers = 8 << 10

// Flush has what was sent written, on this goroutine if it is little, and never waits for it.
func (p *ProduceStream) Flush() {
	if p.out.flushed() && !p.writeSmall() {
		p.out.signal()
	}
}

func (p *ProduceStream) put(frame []byte) {
	if p.out.begin(len(frame)) {
		p.out.end(append(p.out.train(), frame...))
	}
}

// Fail ends the stream with err: Recv returns, and the client sees err's code and text. It does not wait, and may be called
// from Recv's callback.
func (p *ProduceStream) Fail(err error) {
	p.once.Do(func() {
		p.failure = err
		p.conn.hurry() // a write to a client that does not read is in the way
		close(p.failing)
	})
}

// ProduceConn is the client's side of a produce stream: one TCP connection to one node.
type ProduceConn struct {
	*client
	limits Limits
	queued *memory.Buffer // frames; guarded by sendMu; nil while there are none
	pieces [2][]byte      // scratch
}

// smallRequest is the size up to which batches wait in the connection's buffer for others to share a message with.
const smallRequest = 16 << 10

// Limits returns what the server said when the stream opened.
func (c *ProduceConn) Limits() Limits { return c.limits }

// Send writes a request, with what is queued before it, or queues it if it is small; the batch is not needed any more when it
// returns. It blocks while TCP does. Call Flush when there is nothing more to send right now. Several goroutines may call Send.
func (c *ProduceConn) Send(r ProduceRequest) error {
	if len(r.Batch) > c.limits.MaxBatchBytes {
		return tooLarge(len(r.Batch))
	}
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if c.queued != nil && len(c.queued.Bytes)+requestHead+len(r.Batch) > trainBytes {
		if err := c.writeLocked(nil); err != nil {
			return err
		}
	}
	if c.queued == nil {
		c.queued = memory.New(0)
	}
	q := c.queued
	alone := len(r.Batch) > smallRequest
	if alone {
		q.Grow(requestHead)
	} else {
		q.Grow(requestHead + len(r.Batch))
	}
	if q.Bytes = appendRequestHead(q.Bytes, r); alone {
		return c.writeLocked(r.Batch)
	}
	q.Bytes = append(q.Bytes, r.Batch...)
	return nil
}

// Flush writes out what Send has queued.
func (c *ProduceConn) Flush() error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if c.queued == nil {
		return nil
	}
	return c.writeLocked(nil)
}

// writeLocked writes what is queued, and the batch that belongs behind it. An idle connection keeps no buffer.
func (c *ProduceConn) writeLocked(batch []byte) error {
	c.pieces = [2][]byte{c.queued.Bytes, batch}
	err := c.out.write(c.pieces[:])
	c.pieces = [2][]byte{}
	c.queued.Release()
	if c.queued = nil; err != nil {
		return lost(c.addr, err)
	}
	return nil
}

// Recv calls f for each answer until the stream ends, and returns why: an *kerr.Error. Call it once, on a goroutine of its own
// that does not send. Message is the only part of the answer that is allocated.
func (c *ProduceConn) Recv(f func(ProduceResponse)) error {
	return c.recv(func(message []byte) error {
		return frames(message, func(kind byte, frame []byte) error {
			switch kind {
			case frameAnswer:
			case framePong:
				c.age.Store(int64(decodePong(frame)))
				return nil
			case frameThrottle:
				c.noteThrottle(frame)
				return nil
			default:
				return nil // news of a later version
			}
			r, err := decodeAnswer(frame)
			if err == nil {
				f(r)
			}
			return err
		})
	})
}
