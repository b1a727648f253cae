package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"storj.io/drpc"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcstream"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The names of the streams on the wire.
const (
	rpcLane    = "/quorumlog.Peer/Lane"
	rpcProduce = "/quorumlog.Log/Produce"
	rpcFetch   = "/quorumlog.Log/Fetch"
)

// managerOptions are drpc's settings, both sides. SplitSize stays at its default of 64 KiB: drpc's reader counts its own
// buffer, which doubles, against MaximumBufferSize, so that with larger frames legal messages end the connection.
// ManualFlush stays off: with it every receive flushes what is pending and ends the packing of messages.
func managerOptions() drpcmanager.Options {
	return drpcmanager.Options{
		WriterBufferSize: 64 << 10,
		Reader:           drpcwire.ReaderOptions{MaximumBufferSize: 16 << 20},
		Stream:           drpcstream.Options{MaximumBufferSize: 256 << 10},
	}
}

// rawStream is what drpc's streams can do beyond drpc.Stream: messages without an encoding.
type rawStream interface {
	drpc.Stream
	RawWrite(drpcwire.Kind, []byte) error
	RawFlush() error
	SendError(error) error
	ID() uint64
}

// rawEncoding hands the bytes of a message to the receiver's callback while drpc still holds the buffer.
type rawEncoding struct{}

// onMessage is the callback. It applies or copies what it gets, never keeps it.
type onMessage func([]byte) error

func (rawEncoding) Marshal(drpc.Message) ([]byte, error) { return nil, errors.New("raw stream") }

// Unmarshal must not let a panic pass: drpc would keep its buffer marked as held, and ending the stream would wait for it.
func (rawEncoding) Unmarshal(b []byte, m drpc.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{value: p, stack: debug.Stack()}
		}
	}()
	return m.(onMessage)(b)
}

// panicked carries a panic out of drpc's buffer handling.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// receiveOne waits for one message.
func receiveOne(st drpc.Stream, f onMessage) error {
	err := st.MsgRecv(f, rawEncoding{})
	if p, ok := err.(*panicked); ok {
		panic(p) // now that drpc holds nothing
	}
	return err
}

// receive calls f for each message until the stream ends or f fails. It owns its goroutine, though f may run on another; f never
// sends on st.
func receive(c *conn, st drpc.Stream, f onBuffer) error {
	if t := c.tap.Load(); t != nil {
		_, err := t.run(st.Context().Done(), f)
		if p, ok := err.(*panicked); ok {
			panic(p)
		}
		if err != nil {
			return err
		}
	}
	for { // what comes now is how the stream ends, and nothing that f is asked about
		if err := receiveOne(st, func([]byte) error { return errLate }); err != nil {
			return err
		}
	}
}

var errLate = kerr.Errorf(kerr.InvalidRequest, "a message came after the end of the messages")

// borrowed makes a receiver of f, which does not keep what it gets.
func borrowed(f onMessage) onBuffer {
	return func(message *memory.Buffer) error {
		defer message.Release()
		return f(message.Bytes)
	}
}

// transmit writes one message; flush decides whether it waits for more in drpc's buffer.
func transmit(st rawStream, message []byte) error {
	if err := st.RawWrite(drpcwire.KindMessage, message); err != nil {
		return err
	}
	return st.RawFlush()
}

// hungUp tells whether a receive ended because the peer closed its end, in good order or not.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) || drpc.ClosedError.Has(err)
}

// lost turns the end of a client's stream into an *kerr.Error: what the server said, or that the connection is gone.
func lost(addr string, err error) error {
	if e, ok := fromWire(err); ok {
		return e
	}
	if hungUp(err) {
		return &kerr.Error{Code: kerr.NetworkException, Message: "connection to " + addr + " was closed", Leader: id.NoNode}
	}
	return &kerr.Error{Code: kerr.NetworkException, Message: fmt.Sprintf("connection to %s broke: %v", addr, err), Leader: id.NoNode}
}

// The messages of produce and fetch streams are sequences of frames, little-endian:
//
//	0  u32  bytes of the frame after this field
//	4  u8   kind
//	5  …    by kind; see the encoders
const frameHead = 5

// frames calls f for each frame of a message: its kind and the whole frame, length field included. Nothing is allocated
// and no length is believed beyond the end of the message.
func frames(message []byte, f func(kind byte, frame []byte) error) error {
	for len(message) > 0 {
		if len(message) < frameHead {
			return kerr.Errorf(kerr.InvalidRequest, "frame of %d bytes: too short for its header", len(message))
		}
		n := uint64(binary.LittleEndian.Uint32(message)) + 4
		if n < frameHead || n > uint64(len(message)) {
			return kerr.Errorf(kerr.InvalidRequest, "frame of %d bytes in a message that has %d left", n, len(message))
		}
		if err := f(message[4], message[:n:n]); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

var zeros [64]byte

// beginFrame appends a frame header of size bytes, zeroed, with its kind; endFrame puts the length of what followed into it.
func beginFrame(dst []byte, kind byte, size int) []byte {
	at := len(dst)
	dst = append(dst, zeros[:size]...)
	dst[at+4] = kind
	return dst
}

func endFrame(dst []byte, at int) {
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
}
