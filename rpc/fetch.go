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

// FetchKind is what a FetchCommand asks for.
type FetchKind uint8

// The commands of a consumer.
const (
	Subscribe   FetchKind = 1 // push Topic/Partition from Offset, with Credit bytes to begin with, as Subscription
	Unsubscribe FetchKind = 2 // no more events of Subscription; those under way still arrive
	Credit      FetchKind = 3 // Credit more bytes of batches may be pushed to Subscription
)

// FetchCommand goes from the consumer to the node that leads the partition. Subscription is chosen by the client and
// never used twice on a stream.
type FetchCommand struct {
	Kind         FetchKind
	Subscription uint32
	Topic        id.Topic
	Partition    id.Partition
	Offset       id.Offset
	Credit       int64 // bytes of batches; a batch larger than the credit left is sent whole and makes it negative
}

// FetchEvent goes from the node to the consumer. Batches empty and kerr.None: the consumer has caught up at HighWatermark.
// Another code ends the subscription.
type FetchEvent struct {
	Subscription  uint32
	Code          kerr.Code
	HighWatermark id.Offset
	LogStart      id.Offset
	Leader        id.Node  // with kerr.NotLeaderOrFollower: who leads instead, or id.NoNode
	Epoch         id.Epoch // of Leader
	Message       string
	Batches       []byte // whole batches as stored; received: aliases the receive buffer until the callback returns
}

// Kinds of frames on a fetch stream, little-endian:
//
//	command                              event
//	0   u32   length                     0   u32  length
//	4   u8    kind: a FetchKind          4   u8   kind
//	5   u8 0, u16 0                      5   u8   0
//	8   u32   subscription               6   i16  code
//	12  i32   partition                  8   u32  subscription
//	16  16 B  topic                      12  i32  leader
//	32  i64   offset                     16  i64  high watermark
//	40  i64   credit                     24  i64  log start
//	                                     32  u32  length of message
//	                                     36  i32  epoch
//	                                     40       message, batches
const (
	frameEvent = 1

	commandSize = 48
	eventHead   = 40
)

func appendCommand(dst []byte, f FetchCommand) []byte {
	at := len(dst)
	dst = beginFrame(dst, byte(f.Kind), commandSize)
	h := dst[at:]
	binary.LittleEndian.PutUint32(h[8:], f.Subscription)
	binary.LittleEndian.PutUint32(h[12:], uint32(f.Partition))
	copy(h[16:], f.Topic[:])
	binary.LittleEndian.PutUint64(h[32:], uint64(f.Offset))
	binary.LittleEndian.PutUint64(h[40:], uint64(f.Credit))
	endFrame(dst, at)
	return dst
}

func decodeCommand(frame []byte) (FetchCommand, error) {
	kind := FetchKind(frame[4])
	if len(frame) != commandSize || kind < Subscribe || kind > Credit {
		return FetchCommand{}, kerr.Errorf(kerr.InvalidRequest, "frame of kind %d with %d bytes on a fetch stream", kind, len(frame))
	}
	return FetchCommand{
		Kind:         kind,
		Subscription: binary.LittleEndian.Uint32(frame[8:]),
		Partition:    id.Partition(binary.LittleEndian.Uint32(frame[12:])),
		Topic:        id.Topic(frame[16:32]),
		Offset:       id.Offset(binary.LittleEndian.Uint64(frame[32:])),
		Credit:       int64(binary.LittleEndian.Uint64(frame[40:])),
	}, nil
}

// appendEventHead encodes an event up to its batches; endFrame is called once these follow.
func appendEventHead(dst []byte, e FetchEvent) []byte {
	at := len(dst)
	dst = beginFrame(dst, frameEvent, eventHead)
	h := dst[at:]
	binary.LittleEndian.PutUint16(h[6:], uint16(e.Code))
	binary.LittleEndian.PutUint32(h[8:], e.Subscription)
	binary.LittleEndian.PutUint32(h[12:], uint32(e.Leader))
	binary.LittleEndian.PutUint64(h[16:], uint64(e.HighWatermark))
	binary.LittleEndian.PutUint64(h[24:], uint64(e.LogStart))
	binary.LittleEndian.PutUint32(h[32:], uint32(len(e.Message)))
	binary.LittleEndian.PutUint32(h[36:], uint32(e.Epoch))
	return append(dst, e.Message...)
}

// decodeEvent reads an event frame; the batches alias it.
func decodeEvent(frame []byte) (FetchEvent, error) {
	if len(frame) < eventHead {
		return FetchEvent{}, kerr.Errorf(kerr.InvalidRequest, "fetch event of %d bytes: too short for its header", len(frame))
	}
	rest := frame[eventHead:]
	text := uint64(binary.LittleEndian.Uint32(frame[32:]))
	if text > uint64(len(rest)) {
		return FetchEvent{}, kerr.Errorf(kerr.InvalidRequest, "fetch event with a message of %d bytes in %d", text, len(rest))
	}
	return FetchEvent{
		Code:          kerr.Code(binary.LittleEndian.Uint16(frame[6:])),
		Subscription:  binary.LittleEndian.Uint32(frame[8:]),
		Leader:        id.Node(binary.LittleEndian.Uint32(frame[12:])),
		Epoch:         id.Epoch(binary.LittleEndian.Uint32(frame[36:])),
		HighWatermark: id.Offset(binary.LittleEndian.Uint64(frame[16:])),
		LogStart:      id.Offset(binary.LittleEndian.Uint64(frame[24:])),
		Message:       string(rest[:text]),
		Batches:       rest[text:],
	}, nil
}

// FetchStream is the server's side of a consumer's stream: the handler's goroutine receives; one that the handler owns sends.
type FetchStream struct {
	conn *conn
	st   *drpcstream.Stream
	echo *echo
	bad  error // what was wrong with what the client sent; Recv's goroutine

	sendMu sync.Mutex // held across writes: whoever sends more than TCP takes has to wait
	out    *framer
	queued *memory.Buffer // nil while there is nothing: an idle consumer holds no memory
	large  int            // how long the queue became lately: the next one is taken to become as long
}

// serveFetch runs the handler on a stream.
func (s *Server) serveFetch(c *conn, st *drpcstream.Stream) error {
	if err := s.acceptHello(c, st, Limits{Node: s.o.Node, MaxBatchBytes: MaxBatchBytes}); err != nil {
		return err
	}
	f := &FetchStream{conn: c, st: st, out: newFramer(c, st.ID())}
	f.echo = newEcho(func() error {
		f.sendMu.Lock()
		defer f.sendMu.Unlock()
		return f.writeLocked(appendPong(nil, s.age()))
	})
	defer func() {
		c.hurry()
		f.echo.close()
	}()
	err := s.o.Services.Fetch(f)
	switch {
	case f.bad != nil:
		s.lines.Log(s.log, slog.LevelInfo, "closed a fetch stream that carried what it should not", "remote", f.Remote(), "client", c.client, "reason", f.bad.Error())
		return f.bad
	case hungUp(err):
		return nil
	}
	return err
}

// Context ends when the stream does.
func (s *FetchStream) Context() context.Context { return s.st.Context() }

// Caller is who consumes.
func (s *FetchStream) Caller() *broker.Caller { return s.conn.caller }

// Remote is the address of the consumer.
func (s *FetchStream) Remote() string { return s.conn.RemoteAddr().String() }

// Recv calls f for each command until the stream ends, or f returns an error, which then ends it; nil when the client closed
// it. f must not block and not send.
func (s *FetchStream) Recv(f func(FetchCommand) error) error {
	err := receive(s.conn, s.st, borrowed(func(message []byte) error {
		s.bad = frames(message, func(kind byte, frame []byte) error {
			if kind == framePing {
				s.echo.send()
				return nil
			}
			command, err := decodeCommand(frame)
			if err == nil {
				err = f(command)
			}
			return err
		})
		return s.bad
	}))
	if hungUp(err) {
		return nil
	}
	return err
}

// Send writes one event, and what Append has queued before it, and blocks while TCP does. Not on Recv's goroutine. Several
// goroutines may call it.
func (s *FetchStream) Send(e FetchEvent) error {
	if err := s.Append(e); err != nil {
		return err
	}
	return s.Flush()
}

// Append queues an event and writes the queue only when it holds a full message.
func (s *FetchStream) Append(e FetchEvent) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	size := eventHead + len(e.Message) + len(e.Batches)
	if s.queued != nil && len(s.queued.Bytes)+size > trainBytes {
		if err := s.writeQueueLocked(len(s.queued.Bytes)); err != nil {
			return err
		}
	}
	if s.queued == nil {
		s.queued = memory.New(0)
	}
	q := s.queued
	q.Grow(size)
	at := len(q.Bytes)
	q.Bytes = append(appendEventHead(q.Bytes, e), e.Batches...)
	return s.endLocked(at)
}

// AppendRead is Append with batches that read appends to the stream's own buffer, which saves a copy. e.Batches is ignored;
// read returns its argument extended, as wal's Read does. An error of read queues nothing and is returned as it is.
func (s *FetchStream) AppendRead(e FetchEvent, read func(dst []byte) ([]byte, error)) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	if s.queued == nil {
		s.queued = memory.New(s.large)
		s.queued.Bytes = s.queued.Bytes[:0]
	}
	q := s.queued
	at := len(q.Bytes)
	q.Bytes = appendEventHead(q.Bytes, e)
	extended, err := read(q.Bytes)
	if err != nil {
		q.Bytes = q.Bytes[:at]
		s.putBackLocked()
		return err
	}
	q.Bytes = extended
	return s.endLocked(at)
}

// endLocked completes the event that begins at at, and writes the queue if it is a full message.
func (s *FetchStream) endLocked(at int) error {
	q := s.queued
	if n := len(q.Bytes) - at; n > maxMessage {
		q.Bytes = q.Bytes[:at]
		s.putBackLocked()
		return kerr.Errorf(kerr.MessageTooLarge, "fetch event of %d bytes, the limit is %d", n, maxMessage)
	}
	endFrame(q.Bytes, at)
	if len(q.Bytes) < trainBytes {
		return nil
	}
	return s.writeQueueLocked(at) // a large event goes alone: together they might be more than a message may have
}

// Throttle writes what is queued, and tells the consumer that it is sent nothing for a while. Like Send.
func (s *FetchStream) Throttle(d time.Duration) error {
	if err := s.Flush(); err != nil {
		return err
	}
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	return s.writeLocked(appendThrottle(nil, d))
}

// Flush writes what Append has queued.
func (s *FetchStream) Flush() error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	if s.queued == nil {
		return nil
	}
	return s.writeQueueLocked(len(s.queued.Bytes))
}

// writeQueueLocked writes the queue as one message, or as two of which the second begins at at. A failed stream is over, and what it queued
// with it.
func (s *FetchStream) writeQueueLocked(at int) error {
	q := s.queued
	// What was long lately is likely to become so again: a queue that has to grow is copied, and cleared.
	s.large = max(len(q.Bytes), s.large-s.large/8)
	var err error
	if at > 0 {
		err = s.writeLocked(q.Bytes[:at])
	}
	if err == nil && at < len(q.Bytes) {
		err = s.writeLocked(q.Bytes[at:])
	}
	q.Bytes = q.Bytes[:0]
	s.putBackLocked()
	return err
}

// putBackLocked gives the memory of an empty queue back.
func (s *FetchStream) putBackLocked() {
	if len(s.queued.Bytes) == 0 {
		s.queued.Release()
		s.queued = nil
	}
}

// writeLocked writes one message. The stream may be over although its connection is not: then nobody reads any more.
func (s *FetchStream) writeLocked(message []byte) error {
	if err := s.st.Context().Err(); err != nil {
		return err
	}
	return s.out.write([][]byte{message})
}

// FetchConn is the client's side of a fetch stream: one TCP connection to one node.
type FetchConn struct {
	*client
	limits Limits
}

// Limits returns what the server said when the stream opened.
func (c *FetchConn) Limits() Limits { return c.limits }

// Send sends commands in one message. Several goroutines may call it.
func (c *FetchConn) Send(commands ...FetchCommand) error {
	for len(commands) > 0 {
		n := min(len(commands), trainBytes/commandSize)
		message := make([]byte, 0, n*commandSize)
		for _, f := range commands[:n] {
			message = appendCommand(message, f)
		}
		if err := c.say(message); err != nil {
			return err
		}
		commands = commands[n:]
	}
	return nil
}

// Recv calls f for each event until the stream ends, and returns why: an *kerr.Error. Call it once, on a goroutine of its own. f
// must not send, nor block for more than a moment: the credit is what holds the server back, and a connection that is not read
// for seconds is closed by the server's kernel.
func (c *FetchConn) Recv(f func(FetchEvent)) error {
	return c.recv(func(message []byte) error {
		return frames(message, func(kind byte, frame []byte) error {
			switch kind {
			case frameEvent:
			case framePong:
				c.age.Store(int64(decodePong(frame)))
				return nil
			case frameThrottle:
				c.noteThrottle(frame)
				return nil
			default:
				return nil // news of a later version
			}
			e, err := decodeEvent(frame)
			if err == nil {
				f(e)
			}
			return err
		})
	})
}
