package kafka

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// idleTimeout is how long a client may say nothing: Kafka's connections.max.idle.ms.
	idleTimeout = 10 * time.Minute
	// handshakeTimeout bounds the handshake of TLS.
	handshakeTimeout = 10 * time.Second
	// stepTimeout is how long the next part of a request may take to come, and how long the client may take to read a part of an answer.
	stepTimeout = 30 * time.Second
	// roomTimeout is how long a request waits for memory.
	roomTimeout = 30 * time.Second
	roomLook    = 50 * time.Millisecond

	// maxQueued and maxQueuedBytes bound the requests of a connection that are not answered: beyond them it is not read.
	maxQueued      = 256
	maxQueuedBytes = 16 << 20
	// maxMessage bounds the requests that become messages: all but Produce. Decoded they may take a hundred times as much.
	maxMessage = 1 << 20
	// messageCost is what a byte of such a request counts for, and smallMessage what is decoded without waiting for others.
	messageCost  = 8
	smallMessage = 64 << 10
)

// malformed is why a connection is closed of whose client nothing more can be understood.
type malformed struct{ reason string }

func (m *malformed) Error() string { return m.reason }

func malformedf(format string, args ...any) error { return &malformed{fmt.Sprintf(format, args...)} }

// conn is a connection. Its reader takes requests off the wire and appends the batches of Produce at once, so that a client may have several on
// their way; its writer answers one request after the other, in their order, as Kafka's brokers do. What waits for something, as a long poll,
// waits in the writer: answers behind it could not leave anyway.
type conn struct {
	server *Server
	raw    net.Conn
	net    net.Conn // raw, or TLS over it
	host   netip.Prefix

	ctx    context.Context // ends with the connection, or when the server cuts it off
	cancel context.CancelFunc

	// Of the reader:
	in       *bufio.Reader
	seen     int           // the largest request so far: a client that has sent such a one gets memory for the next at once
	requests *budget.Share // the reader takes, whoever answers gives back
	appender broker.Appender
	topics   topics // of Produce

	caller atomic.Pointer[broker.Caller]

	queue
	room chan struct{} // capacity 1: something has been answered

	writer
}

func newConn(s *Server, raw net.Conn) *conn {
	c := &conn{server: s, raw: raw, net: raw, host: hostOf(raw.RemoteAddr()), room: make(chan struct{}, 1)}
	if s.options.TLS != nil {
		c.net = tls.Server(raw, s.options.TLS)
	}
	c.in = bufio.NewReaderSize(c.net, 4096)
	c.requests = s.requests.Share(int64(s.options.RequestBytes) + maxQueuedBytes)
	c.answers = s.answers.Share(2 * maxFetchBytes)
	c.queue.woken = make(chan struct{}, 1)
	c.ctx, c.cancel = context.WithCancel(s.hard)
	return c
}

// serve is the life of a connection: it ends when both of its goroutines have.
func (c *conn) serve() {
	stop := context.AfterFunc(c.ctx, func() { _ = c.raw.Close() })
	defer func() {
		c.cancel()
		stop()
		_ = c.raw.Close()
		c.server.release(c)
	}()
	if err := c.meet(); err != nil {
		c.dropped(err)
		return
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		defer c.cancel() // who is not answered is not read
		c.guarded(c.write)
	})
	c.guarded(c.read)
	if c.server.closing.Err() == nil {
		c.cancel()
	}
	c.end()
	writing.Wait()
	c.drop()
}

// guarded runs a half of the connection. A panic ends this connection only.
func (c *conn) guarded(half func() error) {
	defer func() {
		if p := recover(); p != nil {
			c.server.lines.Log(c.server.options.Logger, slog.LevelError, "panic in a request of a Kafka client; its connection is closed, the node goes on",
				"remote", c.raw.RemoteAddr().String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.cancel()
		}
	}()
	if err := half(); err != nil {
		c.dropped(err)
	}
}

// dropped says why a connection is closed, if that is news.
func (c *conn) dropped(err error) {
	var bad *malformed
	if !errors.As(err, &bad) || c.server.closing.Err() != nil {
		return
	}
	c.server.lines.Log(c.server.options.Logger, slog.LevelInfo, "closed a connection to the kafka listener", "remote", c.raw.RemoteAddr().String(), "reason", bad.reason)
}

// meet finds out who is at the other end.
func (c *conn) meet() error {
	caller := &broker.Caller{Principal: broker.Anonymous, Host: addressOf(c.raw.RemoteAddr()), Node: id.NoNode}
	c.caller.Store(caller)
	secured, ok := c.net.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, handshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
			return err
		}
		return malformedf("its TLS handshake failed: %v", err)
	}
	if certs := secured.ConnectionState().PeerCertificates; len(certs) > 0 {
		who, err := auth.Of(certs[0])
		if err != nil {
			return malformedf("%v", err)
		}
		caller.Principal = who.Principal
	}
	return nil
}

// named is the caller under the name that a request gives him.
func (c *conn) named(clientID string) *broker.Caller {
	caller := c.caller.Load()
	if caller.ClientID == clientID {
		return caller
	}
	other := *caller
	other.ClientID = broker.CleanClientID(clientID)
	c.caller.Store(&other)
	return &other
}

// stopReading has the reader end; what it has read is still answered.
func (c *conn) stopReading() { _ = c.raw.SetReadDeadline(time.Unix(1, 0)) }

// await sets how long the next bytes may take. False: the server is closing.
func (c *conn) await(d time.Duration) bool {
	_ = c.raw.SetReadDeadline(time.Now().Add(d))
	return c.server.closing.Err() == nil // looked at afterwards: stopReading comes after that
}

// read takes requests off the wire until there are no more. However it ends, the batches that it has appended get their turn: a client that sends
// garbage behind them hangs up on their answers, not on them.
func (c *conn) read() error {
	defer func() {
		if c.appender != nil {
			c.appender.End()
		}
	}()
	for first := true; ; first = false {
		if err := c.awaitRoom(); err != nil || !c.await(idleTimeout) {
			return err
		}
		head, err := c.in.Peek(4)
		if err != nil {
			return c.ended(err, len(head), 4, idleTimeout)
		}
		size, err := c.sizeOf(head, first)
		if err != nil {
			return err
		}
		_, _ = c.in.Discard(4)
		frame, cost, err := c.frame(size)
		if err != nil {
			return err
		}
		if err := c.receive(frame, cost); err != nil {
			return err
		}
		if c.appender != nil && !c.another() {
			c.appender.End()
		}
		c.wake()
	}
}

// ended is why reading has ended: a client that closes between two requests is no news.
func (c *conn) ended(err error, got, want int, silent time.Duration) error {
	switch {
	case c.ctx.Err() != nil || c.server.closing.Err() != nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && got == 0 && want == 4:
		return nil // idle
	case errors.Is(err, os.ErrDeadlineExceeded):
		return malformedf("nothing came for %v in the middle of a request: %d of %d bytes had", silent, got, want)
	case got > 0:
		return malformedf("it ended in the middle of a request, after %d of %d bytes", got, want)
	}
	return nil
}

// another tells whether a whole request waits to be read.
func (c *conn) another() bool {
	if c.in.Buffered() < 4 {
		return false
	}
	head, err := c.in.Peek(4)
	return err == nil && c.in.Buffered()-4 >= int(be32(head))
}

// awaitRoom waits until there are few enough unanswered requests.
func (c *conn) awaitRoom() error {
	for c.waiting() >= maxQueued || c.requests.Held() >= maxQueuedBytes {
		if err := c.pause(nil); err != nil {
			return err
		}
	}
	return nil
}

// pause waits until something of this connection has been answered, or until look.
func (c *conn) pause(look <-chan time.Time) error {
	if c.appender != nil {
		c.appender.End()
	}
	c.wake()
	select {
	case <-c.room:
	case <-look:
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	return nil
}

// take waits for memory.
func (c *conn) take(n int) error {
	if c.requests.Take(int64(n)) == nil {
		return nil
	}
	look := time.NewTicker(roomLook)
	defer look.Stop()
	for begin := time.Now(); time.Since(begin) < roomTimeout; {
		if err := c.pause(look.C); err != nil {
			return err
		}
		if c.requests.Take(int64(n)) == nil {
			return nil
		}
	}
	return malformedf("the node had no memory for its request for %v: too many large ones are under way", roomTimeout)
}

// answered gives back what a request has held.
func (c *conn) answered(cost int) {
	c.requests.Give(int64(cost))
	c.madeRoom()
}

// madeRoom has the reader look whether it may go on.
func (c *conn) madeRoom() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// firstRead is how much memory a request gets before it has come: no more is given for what somebody only says that he sends.
const firstRead = 64 << 10

// mostSeen is what a client gets at once at most.
const mostSeen = 2 << 20

// frame reads a request, and returns what it holds of the connection's share; nil: the server is closing. Its memory doubles as it comes, so that nobody gets it for a number.
func (c *conn) frame(size int) (*memory.Buffer, int, error) {
	room := memory.Size(min(size, max(firstRead, c.seen)))
	if err := c.take(room); err != nil {
		return nil, 0, err
	}
	b := memory.New(min(size, room))
	for got := 0; ; {
		if !c.await(stepTimeout) {
			b.Release()
			c.answered(room)
			return nil, 0, nil
		}
		n, err := io.ReadFull(c.in, b.Bytes[got:])
		if got += n; err != nil {
			b.Release()
			c.answered(room)
			return nil, 0, c.ended(err, got+4, size+4, stepTimeout)
		}
		if got == size {
			c.seen = min(max(c.seen, size), mostSeen)
			return b, room, nil
		}
		next := memory.Size(min(size, 2*got))
		if err := c.take(next); err != nil {
			b.Release()
			c.answered(room)
			return nil, 0, err
		}
		larger := memory.New(min(size, next))
		copy(larger.Bytes, b.Bytes)
		b.Release()
		c.answered(room)
		b, room = larger, next
	}
}
