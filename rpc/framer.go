package rpc

import (
	"net"
	"os"
	"syscall"

	"storj.io/drpc/drpcwire"
)

// framer writes messages of drpc onto a connection from where their pieces lie, with one writev each. drpc's own stream would copy
// each of them into its frame buffer, and the caller would have to put them together before, by another copy.
//
// Once the hellos are exchanged it is the only one who writes. On the dialing side drpc's stream has nothing of its own to say, since
// ending a stream means closing its connection; on the other side it says how the stream ends, when nothing is written here any more.
// The numbers of messages begin far above those of the hellos; drpc wants them to grow and asks no more.
//
// One call at a time.
type framer struct {
	conn *conn
	id   drpcwire.ID

	heads   []byte      // scratch: the headers of a message's frames
	pieces  net.Buffers // scratch: all that is to be written
	written net.Buffers // and what of it is left, while it is written

	tls   *secured        // nil: there is none
	raw   syscall.RawConn // for tryWrite; nil: not to be had
	try   func(fd uintptr) bool
	tried struct {
		n   int
		err error
	} // what try did
	small []byte // scratch of tryWrite
	rest  []byte // of small: to be written before anything else
}

const (
	firstFramed  = 1 << 14  // the number of the first message
	frameBytes   = 64 << 10 // of data in one frame, drpc's own limit
	frameHeadMax = 24       // control byte and three varints
)

func newFramer(c *conn, stream uint64) *framer {
	f := &framer{conn: c, id: drpcwire.ID{Stream: stream, Message: firstFramed}}
	switch under := c.Conn.(type) {
	case *net.TCPConn: // nothing that wraps one: its bytes are not the socket's
		f.raw, _ = under.SyscallConn()
	case *secured:
		f.tls, f.raw = under, under.below.raw
	}
	f.try = func(fd uintptr) bool { // made once, not for each message
		f.tried.n, f.tried.err = writeSome(fd, f.small)
		return true
	}
	return f
}

// write writes one message, which consists of the pieces: their bytes are neither changed nor kept, the slice of them is used up.
func (f *framer) write(pieces [][]byte) error {
	if err := f.complete(); err != nil {
		return err
	}
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
		f.heads = appendFrameHead(f.heads, f.id, n, left == 0)
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

// complete writes what tryWrite has left.
func (f *framer) complete() error {
	if f.tls != nil && !f.tls.below.whole() {
		return f.conn.writev(&net.Buffers{})
	}
	if len(f.rest) == 0 {
		return nil
	}
	err := f.conn.writev(&net.Buffers{f.rest})
	f.rest = nil
	return err
}

// whole tells whether no message is half written.
func (f *framer) whole() bool { return len(f.rest) == 0 && (f.tls == nil || f.tls.below.whole()) }

// canTry tells whether tryWrite may be called.
func (f *framer) canTry() bool { return f.raw != nil && f.whole() }

// tryWrite writes one message without ever waiting. When the socket does not take all of it, complete must be called soon. It is for
// messages of less than frameBytes, which are put together by copy.
func (f *framer) tryWrite(pieces [][]byte) error {
	f.small = f.small[:0]
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	f.small = appendFrameHead(f.small, f.id, size, true)
	for _, p := range pieces {
		f.small = append(f.small, p...)
	}
	f.id.Message++
	f.conn.limitWrite()
	err := f.trySmall()
	if err != nil {
		_ = f.conn.Close()
		return err
	}
	f.rest = f.small[f.tried.n:]
	return nil
}

// trySmall writes of small what the socket takes at once.
func (f *framer) trySmall() error {
	if f.tls != nil {
		f.tried.n = len(f.small) // what it did not write is below
		return f.tls.tryWrite(f.small)
	}
	if err := f.raw.Write(f.try); err != nil {
		return err
	}
	return f.tried.err
}

// writeSome is one write to a socket that does not block.
func writeSome(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, nil
		case err != nil:
			return 0, os.NewSyscallError("write", err)
		}
		return n, nil
	}
}

// appendFrameHead appends the header of a frame with n bytes of data.
func appendFrameHead(dst []byte, id drpcwire.ID, n int, last bool) []byte {
	dst = drpcwire.AppendFrame(dst, drpcwire.Frame{ID: id, Kind: drpcwire.KindMessage, Done: last})
	return drpcwire.AppendVarint(dst[:len(dst)-1], uint64(n)) // instead of the length of no data
}
