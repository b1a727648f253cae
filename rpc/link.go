package rpc

import (
	"context"
	"fmt"
	"net"
	"time"

	"storj.io/drpc/drpcconn"

	"github.com/quorumlog/quorumlog/rpc/memory"
)

// link is the client's end of one stream, on a connection of its own.
type link struct {
	addr string
	conn *conn
	dc   *drpcconn.Conn
	st   rawStream
	out  *framer // all that is said after the hello
}

// dial opens a connection that is ready for drpc.
func (d *Dialer) dial(ctx context.Context, to target) (*conn, error) {
	nd := net.Dialer{KeepAliveConfig: keepAlive, Control: control}
	raw, err := nd.DialContext(ctx, "tcp", to.addr)
	if err != nil {
		return nil, err
	}
	if d.WrapConn != nil {
		if due, ok := ctx.Deadline(); ok {
			_ = raw.SetDeadline(due)
		}
		wrapped, err := d.WrapConn(raw)
		if err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("take over the connection to %s: %w", to.addr, err)
		}
		_ = raw.SetDeadline(time.Time{})
		raw = wrapped
	}
	if d.TLS != nil {
		secured, err := secureClient(ctx, raw, d.TLS(to.addr, to.node))
		if err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("no secure connection to %s: %w", to.addr, err)
		}
		secured.refused = func(err error) { d.noteRefusal(to, err) }
		raw = secured
	}
	c := newConn(raw)
	c.guard.open = true // we call, the other side answers, and may go on at once
	c.guard.maxMessage.Store(maxMessage)
	return c, nil
}

// open dials, starts the stream, says hello and hands the answer to welcome (which must not keep it). All of it within the
// dialer's timeout and ctx. After that the stream may be silent for idle.
func (d *Dialer) open(ctx context.Context, to target, rpc string, hello []byte, idle time.Duration, welcome onMessage) (*link, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addr := to.addr
	c, err := d.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	k := &link{addr: addr, conn: c, dc: drpcconn.NewWithOptions(c, drpcconn.Options{Manager: managerOptions()})}
	err = k.start(rpc, hello, welcome)
	if !stop() && err == nil { // closed under us at the last moment
		err = ctx.Err()
	}
	if err != nil {
		k.close()
		k.join()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer from %s within %s: %w", addr, timeout, ctx.Err())
		}
		return nil, d.lost(to, err)
	}
	c.established(maxMessage, idle)
	k.out = newFramer(c, k.st.ID())
	return k, nil
}

func (k *link) start(rpc string, hello []byte, welcome onMessage) error {
	// The stream lives until close: ctx bounds only the opening, by closing the connection.
	st, err := k.dc.NewStream(context.Background(), rpc, rawEncoding{})
	if err != nil {
		return err
	}
	k.st = st.(rawStream)
	if err := k.conn.tapStream(k.st.ID(), 0); err != nil {
		return err
	}
	if err := transmit(k.st, hello); err != nil {
		// The reason, if the other side gave one, comes by receiving.
		if reason := k.receiveOne(welcome); reason != nil {
			return reason
		}
		return err
	}
	return k.receiveOne(welcome)
}

// receiveOne waits for the answer to the hello.
func (k *link) receiveOne(f onMessage) error {
	next, err := k.conn.tap.Load().run(k.st.Context().Done(), func(message *memory.Buffer) error {
		defer message.Release()
		if err := f(message.Bytes); err != nil {
			return err
		}
		return errNext
	})
	if next || err != nil {
		return err
	}
	return receiveOne(k.st, func([]byte) error { return errLate })
}

// close ends the stream by closing the connection. From any goroutine, also the receiver's; it waits for nothing.
func (k *link) close() { _ = k.conn.Close() }

// join waits for drpc's goroutines after close. Never from a receive callback, for which they wait.
func (k *link) join() { _ = k.dc.Close() }
