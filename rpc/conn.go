package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"storj.io/drpc/drpcstream"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/broker"
)

// writeTimeout is how long a write may wait for a peer that does not read; TCP_USER_TIMEOUT usually says so before.
const writeTimeout = 10 * time.Second

// conn is a connection with what drpc lacks: the guard on all that is read, a limit on silence, and a limit on writes to a
// peer that does not read. drpc reads from one goroutine and writes under a mutex of its own.
type conn struct {
	net.Conn
	tap       atomic.Pointer[tap] // set with mu
	received  atomic.Uint64
	writeDue  atomic.Int64              // unix nanoseconds of the present write deadline
	lastWrite atomic.Pointer[time.Time] // set by hurry: the deadline for good

	client    string              // what a client calls itself, for logs; of the goroutine that runs the calls
	caller    *broker.Caller      // who is at the other end; set before the first call
	certified auth.Identity       // with a chain: what its certificate says
	chain     []*x509.Certificate // that was shown and believed; under the server's mutex until the first call
	standing  standing            // under the server's mutex
	refusal   string              // why there is no room for it among the clients; "": there is
	host      netip.Prefix        // by which connections are counted; not valid: it is not
	intake    *intake             // of messages on a stream; nil: they are not counted

	closing sync.Once
	closed  chan struct{}

	// ending says how a stream is ended from outside of its handler: see endStream. Held for a last word, which hurry bounds.
	ending struct {
		sync.Mutex
		by func(error) // nil: drpc's stream does
	}

	guard guard    // under mu; maxMessage by anyone
	mu    struct { // held for a moment, never across I/O
		sync.Mutex
		idle time.Duration // silence allowed; 0: the deadline stands as it is
		due  time.Time     // present read deadline
	}
}

// newConn wraps a connection whose peer must finish its prelude before preludeTimeout has passed.
func newConn(c net.Conn) *conn {
	w := &conn{Conn: c, closed: make(chan struct{})}
	w.guard.maxMessage.Store(maxAdminRequest) // a call's name and its request may arrive in one piece
	w.setDeadline(preludeTimeout)
	return w
}

// established ends the prelude: messages may have up to maxMessage bytes, and silence may last for idle.
func (c *conn) established(maxMessage uint64, idle time.Duration) {
	c.guard.maxMessage.Store(maxMessage)
	c.setIdle(idle)
}

// setDeadline lets the connection live for d from now, whatever arrives, until the next setDeadline or setIdle.
func (c *conn) setDeadline(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.idle, c.mu.due = 0, time.Now().Add(d)
	_ = c.Conn.SetReadDeadline(c.mu.due) // fails only on a closed connection, which the next read reports
}

// setIdle lets the connection live as long as something arrives at least every d. 0: silence is no reason to close.
//
// The last fifth of d is a grace that begins when the reader has found out that the rest has passed. When it is this process
// that was stopped or starved, all deadlines have passed when it goes on, while what the peer said waits in the socket.
func (c *conn) setIdle(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.idle, c.mu.due = d, time.Time{}
	if d > 0 {
		c.mu.due = time.Now().Add(d - d/5)
	}
	_ = c.Conn.SetReadDeadline(c.mu.due)
}

// extend moves the deadline before a read, not each time but when a sixteenth of it is used up.
func (c *conn) extend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := c.mu.idle
	if idle == 0 {
		return
	}
	if due := time.Now().Add(idle - idle/5); due.Sub(c.mu.due) > idle/16 {
		c.mu.due = due
		_ = c.Conn.SetReadDeadline(due)
	}
}

// grace gives a read that timed out its last chance; false: it has none.
func (c *conn) grace() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.idle == 0 {
		return false
	}
	c.mu.due = time.Now().Add(c.mu.idle / 5)
	return c.Conn.SetReadDeadline(c.mu.due) == nil
}

// Close closes the connection. From any goroutine, as often as one likes.
func (c *conn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// Read implements io.Reader for drpc's one reading goroutine.
func (c *conn) Read(p []byte) (int, error) {
	t := c.tap.Load()
	if t == nil {
		n, err := c.readSome(p)
		if n == 0 {
			if t = c.tap.Load(); t != nil { // it came while the read was under way
				t.end(nil, tapPass)
			}
			return 0, err
		}
		c.mu.Lock()
		if t = c.tap.Load(); t == nil {
			bad := c.guard.scan(p[:n])
			c.mu.Unlock()
			if bad != nil {
				return 0, bad
			}
			return n, err
		}
		c.mu.Unlock()
		t.feed(p[:n]) // it came while the read was under way; so does the next read's error, if there was one
	}
	n, err := t.read(p)
	if n > 0 {
		c.mu.Lock()
		bad := c.guard.scan(p[:n])
		c.mu.Unlock()
		if bad != nil {
			return 0, bad
		}
	}
	return n, err
}

// readSome is one read, with what is left of the silence that is allowed.
func (c *conn) readSome(p []byte) (int, error) {
	c.extend()
	n, err := c.Conn.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && c.grace() {
		n, err = c.Conn.Read(p)
	}
	if n > 0 {
		c.received.Add(uint64(n))
		return n, nil // an error is the next read's, too
	}
	return n, err
}

// Write implements io.Writer. A write that failed may have sent a part of a frame: nothing can follow it, so the connection is
// closed, which drpc does not do by itself.
func (c *conn) Write(p []byte) (int, error) {
	c.limitWrite()
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// writev is Write for several pieces, which it takes out of bufs.
func (c *conn) writev(bufs *net.Buffers) error {
	c.limitWrite()
	var err error
	if s, ok := c.Conn.(*secured); ok {
		err = s.writev(*bufs)
		*bufs = nil
	} else {
		_, err = bufs.WriteTo(c.Conn)
	}
	if err != nil {
		_ = c.Close()
	}
	return err
}

// limitWrite moves the write deadline, not each time but when a second of it is used up.
func (c *conn) limitWrite() {
	now := time.Now()
	if due := now.Add(writeTimeout).UnixNano(); due-c.writeDue.Load() > int64(time.Second) {
		c.writeDue.Store(due)
		_ = c.Conn.SetWriteDeadline(now.Add(writeTimeout))
		if last := c.lastWrite.Load(); last != nil { // hurry came in between
			_ = c.Conn.SetWriteDeadline(*last)
		}
	}
}

// hurry limits all further writes to a short time: the stream is ending, and only a last word may still go out.
func (c *conn) hurry() {
	due := time.Now().Add(time.Second)
	c.lastWrite.Store(&due)
	c.writeDue.Store(due.Add(time.Hour).UnixNano()) // keeps Write from moving it
	_ = c.Conn.SetWriteDeadline(due)
}

// endStream ends a stream with a last word. It is drpc's unless somebody writes past drpc's stream, who may have a message half written
// into which nothing must come, and who then has the word.
func (c *conn) endStream(st *drpcstream.Stream, err error) {
	c.ending.Lock()
	defer c.ending.Unlock()
	if c.ending.by != nil {
		c.ending.by(err)
		return
	}
	c.hurry()
	_ = st.SendError(toWire(err))
}

// endedBy has end called where drpc's stream would say a last word. If that is being said, endedBy returns after it: the stream's context
// has ended then.
func (c *conn) endedBy(end func(error)) {
	c.ending.Lock()
	defer c.ending.Unlock()
	c.ending.by = end
}

// closeWrite ends our direction, so that the peer reads all we said and then the end of it. False: not possible here.
func (c *conn) closeWrite() bool {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	return ok && w.CloseWrite() == nil
}

// keepAlive finds a peer that is gone without a word while nothing is being sent.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 3}

// Listen opens a TCP listener whose connections have keepalive and TCP_USER_TIMEOUT set (accepted sockets inherit the latter).
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: control}
	return lc.Listen(ctx, "tcp", addr)
}
