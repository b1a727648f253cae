package rpc

import (
	"net"

	"storj.io/drpc/drpcwire"
)

// framer writes messages of drpc onto a connection from where their pieces lie, with one writev each. drpc's own stream would copy
// each of them twice, into its frame buffer and out of the caller's; at full rate that is a seventh of a node's CPU.
//
// The dialing side uses it once the hellos are exchanged. It is the only one who writes then: drpc's stream has nothing of its own
// to say there, since ending a stream means closing its connection. The numbers of messages begin far above those of the hellos;
// drpc wants them to grow and asks no more.
type framer struct {
	conn *conn
	id   drpcwire.ID

	heads   []byte      // scratch: the headers of a message's frames
	pieces  net.Buffers // scratch: all that is to be written
	written net.Buffers // and what of it is left, while it is written
}

const (
	firstFramed  = 1 << 14  // the number of the first message
	frameBytes   = 64 << 10 // of data in one frame, drpc's own limit
	frameHeadMax = 24       // control byte and three varints
)

func newFramer(c *conn, stream uint64) *framer {
	return &framer{conn: c, id: drpcwire.ID{Stream: stream, Message: firstFramed}}
}

// write writes one message, which consists of the pieces: their bytes are neither changed nor kept, the slice of them is used up.
// One call at a time.
func (f *framer) write(pieces [][]byte) error {
	left := 0
	for _, p := range pieces {
		left += len(p)
	}
	if need := (left/frameBytes + 1) * frameHeadMax; cap(f.heads) < need {
		f.heads = make([]byte, 0, need)
	}
	f.heads, f.pieces = f.heads[:0], f.pieces[:0]
	for first := true; first || left > 0; first = false {
		n := min(left, frameBytes)
		left -= n
		at := len(f.heads)
		f.heads = drpcwire.AppendFrame(f.heads, drpcwire.Frame{ID: f.id, Kind: drpcwire.KindMessage, Done: left == 0})
		f.heads = drpcwire.AppendVarint(f.heads[:len(f.heads)-1], uint64(n)) // instead of the length of no data
		f.pieces = append(f.pieces, f.heads[at:])
		pieces = f.take(pieces, n)
	}
	f.id.Message++
	f.written = f.pieces
	err := f.conn.writev(&f.written)
	clear(f.pieces)
	return err
}

// take adds the first n bytes of pieces to the frame and returns the rest.
func (f *framer) take(pieces [][]byte, n int) [][]byte {
	for n > 0 {
		p := pieces[0]
		if len(p) > n {
			f.pieces = append(f.pieces, p[:n])
			pieces[0] = p[n:]
			return pieces
		}
		if len(p) > 0 {
			f.pieces = append(f.pieces, p)
		}
		n -= len(p)
		pieces = pieces[1:]
	}
	return pieces
}
