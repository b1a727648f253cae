package rpc

import (
	"fmt"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/rpc/budget"
)

// malformed is why a connection that broke the framing rules is dropped.
type malformed struct{ reason string }

func (m *malformed) Error() string { return m.reason }

// The kinds of drpc packets that matter here (drpcwire.Kind).
const (
	kindInvoke   = 1
	kindMessage  = 2
	kindMetadata = 7
)

// tlsHandshake is how TLS begins.
const tlsHandshake = 0x16

// guard reads along with drpc and stops a connection before drpc buffers what it should not: drpc itself grows its buffers
// up to MaximumBufferSize for whatever length a frame claims. It sees the bytes in the order in which they arrive, cut
// anywhere, and keeps a few words of state:
//
//	control: done bit 0, kind bits 1-6, control bit 7 | stream varint | message varint | length varint | data
//
// Frames of one (stream, message) form a packet; the last has the done bit.
type guard struct {
	maxMessage atomic.Uint64 // bytes of a packet of kind message; other kinds have maxPrelude
	open       bool          // the first packet was an invocation; before that nothing else may come

	skip    uint64 // data bytes of the present frame still to come
	field   int    // of the frame header: 0 control, 1 stream, 2 message, 3 length
	shift   uint
	value   uint64
	control byte
	id      [2]uint64 // stream, message of the present frame
	packet  [2]uint64 // and of the packet whose bytes are in sum
	sum     uint64

	messages int // packets of kind message whose last frame has begun

	requests *budget.Share // for what drpc buffers; nil: it is not counted
	buffered uint64        // the largest message so far: drpc keeps its buffer as long as the connection lives
}

// freeRequest is a message that is not counted.
const freeRequest = 16 << 10

// room counts the memory of a message of n bytes, if it is the largest of the connection: drpc's buffer doubles until it fits.
func (g *guard) room(n uint64) error {
	if g.requests == nil || g.kind() != kindMessage || n <= max(g.buffered, freeRequest) {
		return nil
	}
	if g.requests.Take(2*int64(n-g.buffered)) != nil {
		return &malformed{"the node had no memory for its request: too many large ones are under way"}
	}
	g.buffered = n
	return nil
}

// scan consumes the next bytes of the connection. A non-nil error is a *malformed.
func (g *guard) scan(b []byte) error {
	for len(b) > 0 {
		if g.skip > 0 {
			n := min(g.skip, uint64(len(b)))
			g.skip -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if g.field == 0 {
			if err := g.begin(c); err != nil {
				return err
			}
			g.field = 1
			continue
		}
		if g.shift >= 63 {
			return &malformed{"frame header with a number that is too long"}
		}
		g.value |= uint64(c&0x7f) << g.shift
		g.shift += 7
		if c >= 0x80 {
			continue
		}
		value := g.value
		g.value, g.shift = 0, 0
		if g.field < 3 {
			g.id[g.field-1] = value
			g.field++
			continue
		}
		g.field = 0
		if err := g.length(value); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) kind() byte { return g.control >> 1 & 0x3f }

// begin takes the control byte of a frame.
func (g *guard) begin(c byte) error {
	g.control = c
	switch kind := g.kind(); {
	case c == tlsHandshake && !g.open:
		return &malformed{"it is TLS, which this port does not speak: start the node with --tls-cert, or the client without"}
	case kind == 0 || kind > kindMetadata:
		return &malformed{fmt.Sprintf("not this protocol: frame of kind %d", kind)}
	case !g.open && kind != kindInvoke && kind != kindMetadata:
		return &malformed{fmt.Sprintf("frame of kind %d before any call", kind)}
	}
	return nil
}

// length takes the length of a frame, before any of its data is read.
func (g *guard) length(n uint64) error {
	if g.id != g.packet {
		g.packet, g.sum = g.id, 0
	}
	if n > maxWireFrame {
		return &malformed{fmt.Sprintf("frame of %d bytes, the limit is %d", n, maxWireFrame)}
	}
	g.sum += n
	limit := g.maxMessage.Load()
	if g.kind() != kindMessage {
		limit = maxPrelude
	}
	if g.sum > limit {
		return &malformed{fmt.Sprintf("message of more than %d bytes", limit)}
	}
	if err := g.room(g.sum); err != nil {
		return err
	}
	g.open = g.open || g.kind() == kindInvoke
	if g.kind() == kindMessage && g.control&1 != 0 {
		g.messages++
	}
	g.skip = n
	return nil
}
