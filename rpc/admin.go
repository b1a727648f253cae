package rpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"

	"storj.io/drpc"
	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcerr"
	"storj.io/drpc/drpcmetadata"
	"storj.io/drpc/drpcpool"
	"storj.io/drpc/drpcstream"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// timeoutKey is the metadata that carries a call's remaining time in milliseconds: drpc does not send deadlines, and a server
// would go on working for a client that has long given up.
const timeoutKey = "timeout-ms"

// clusterKey is the metadata that carries the id of the cluster that a call is meant for. Addresses are used again, and a client may have
// been given those of two clusters: what is meant for one must not be done to the other.
const clusterKey = "cluster-id"

// adminStream gives drpcmux the deadline of the call, and lifts the limit on silence once the request is there.
type adminStream struct {
	drpc.Stream
	ctx  context.Context
	conn *conn
	gate *gate
	// leave gives the call's place at the gate back.
	leave func()
}

func (s *adminStream) Context() context.Context { return s.ctx }

func (s *adminStream) MsgRecv(m drpc.Message, e drpc.Encoding) error {
	err := s.Stream.MsgRecv(m, e)
	s.conn.setDeadline(unaryTimeout + unaryGrace)
	return err
}

// MsgSend implements drpc.Stream.
func (s *adminStream) MsgSend(m drpc.Message, e drpc.Encoding) error {
	done, err := s.gate.room(s.ctx, m)
	if err != nil {
		return err
	}
	defer done()
	s.leave() // the call is done: who does not read its answer keeps nobody else from calling
	return s.Stream.MsgSend(m, e)
}

// serveAdmin runs one administrative call.
func (s *Server) serveAdmin(c *conn, st *drpcstream.Stream, name string) error {
	timeout := unaryTimeout
	if meta, ok := drpcmetadata.Get(st.Context()); ok {
		if meant := meta[clusterKey]; meant != "" && s.o.ClusterID != "" && meant != s.o.ClusterID {
			return kerr.Errorf(kerr.InconsistentClusterID, "node %d belongs to cluster %s, the call was meant for cluster %s: check the addresses it was given",
				s.o.Node, shorten(s.o.ClusterID), shorten(meant))
		}
		if err := s.versions.checkCaller(meta[versionsKey], nodeName(s.o.Node)); err != nil {
			return err
		}
		if ms, err := strconv.ParseInt(meta[timeoutKey], 10, 32); err == nil && ms > 0 {
			timeout = min(time.Duration(ms)*time.Millisecond, unaryTimeout)
		}
	}
	received, err := s.receive(st.Context(), c, name)
	if err != nil {
		s.complainOfIdentity(c, err)
		return err
	}
	c.setDeadline(preludeTimeout)
	ctx, cancel := context.WithTimeout(received, timeout)
	defer cancel()
	door := doorOf(name, broker.IsForwarded(ctx))
	if s.o.Calls != nil && door != peerDoor { // what is passed on was counted where it came in
		done, err := s.o.Calls(ctx, CallerOf(ctx))
		if err != nil {
			return err
		}
		defer done()
	}
	leave, err := s.bounds.gate.enter(ctx, door)
	if err != nil {
		return err
	}
	defer leave()
	err = s.mux.HandleRPC(&adminStream{Stream: st, ctx: ctx, conn: c, gate: s.bounds.gate, leave: leave}, name)
	if err == nil {
		return nil
	}
	var known *kerr.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return kerr.Errorf(kerr.RequestTimedOut, "%s took longer than the %s it was given: %v", shorten(name), timeout, err)
	case drpc.ProtocolError.Has(err), drpcerr.Code(err) == drpcerr.Unimplemented:
		return s.unknownCall
	}
	return err
}

// Admin returns a client for the administrative calls of the node at addr. It dials when it is called, keeps a few
// connections, sends the context's deadline along and returns refusals as *kerr.Error.
func (d *Dialer) Admin(addr string) pb.DRPCAdminClient { return d.AdminOf(addr, id.NoNode) }

// AdminOf is Admin for a node that is known: with TLS nobody else is asked.
func (d *Dialer) AdminOf(addr string, node id.Node) pb.DRPCAdminClient {
	d.mu.Lock()
	if d.pool == nil {
		d.pool = drpcpool.New[target, adminLink](drpcpool.Options{
			KeyCapacity: 4, Capacity: 256, Expiration: pooledTimeout / 2, // well before the server tires of it
		})
	}
	pool := d.pool
	d.mu.Unlock()
	return pb.NewDRPCAdminClient(&adminConn{Conn: pool.Get(context.Background(), target{addr, node}, d.dialAdmin), to: target{addr, node}, dialer: d})
}

// dialAdmin opens a connection for calls one after the other. A call that is cancelled, or takes too long, closes it: drpc may have
// cancelled the stream before it sent the beginning of it, and a server that gets a part of a stream without its beginning waits for
// that, and reads nothing of the next calls.
func (d *Dialer) dialAdmin(ctx context.Context, to target) (adminLink, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := d.dial(ctx, to)
	if err != nil {
		return adminLink{}, kerr.Errorf(kerr.BrokerNotAvailable, "cannot reach %s: %v", to.addr, err)
	}
	c.established(maxAdminResponse, 0) // the calls have their own deadlines
	return adminLink{drpcconn.NewWithOptions(c, drpcconn.Options{Manager: managerOptions()})}, nil
}

// adminLink is a pooled connection.
type adminLink struct{ *drpcconn.Conn }

// Invoke makes a call. drpc's own gives up when it could not say all of the request, or takes a connection that ended meanwhile for that:
// a server that refuses a call, says why and hangs up may be quicker than the call's goroutine. What it said is had by receiving it.
func (k adminLink) Invoke(ctx context.Context, rpc string, e drpc.Encoding, in, out drpc.Message) (err error) {
	request, err := e.Marshal(in)
	if err != nil {
		return err
	}
	opened, err := k.NewStream(ctx, rpc, e)
	if err != nil {
		return err
	}
	st := opened.(rawStream)
	defer func() {
		if failed := st.Close(); err == nil {
			err = failed
		}
	}()
	unsent := st.RawWrite(drpcwire.KindMessage, request)
	if unsent == nil {
		unsent = st.CloseSend() // which flushes
	}
	// It ends: a write that failed has closed the connection, or else the stream had ended before.
	err = st.MsgRecv(out, e)
	if _, said := fromWire(err); err != nil && unsent != nil && !said {
		return unsent
	}
	return err
}

// noting remembers that the answer was there. drpc reports a call as failed when the server closes the connection right after
// its answer, while drpc says goodbye to the stream.
type noting struct {
	drpc.Encoding
	complete bool
}

func (n *noting) Unmarshal(b []byte, m drpc.Message) error {
	err := n.Encoding.Unmarshal(b, m)
	n.complete = err == nil
	return err
}

// adminConn adds to a pooled connection what drpc does not do.
type adminConn struct {
	drpc.Conn
	to     target
	dialer *Dialer
}

func (c *adminConn) Invoke(ctx context.Context, rpc string, e drpc.Encoding, in, out drpc.Message) error {
	timeout := unaryTimeout
	if due, ok := ctx.Deadline(); ok {
		timeout = time.Until(due)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	meta := strconv.FormatInt(max(timeout.Milliseconds(), 1), 10)
	answer := &noting{Encoding: e}
	ctx = withMetadata(ctx, timeoutKey, meta)
	ctx = withMetadata(ctx, versionsKey, c.dialer.spoken().text())
	ctx = withMetadata(ctx, clientKey, broker.CleanClientID(c.dialer.ClientID))
	if cluster := c.dialer.cluster.Load(); cluster != nil {
		ctx = withMetadata(ctx, clusterKey, *cluster)
	}
	err := c.Conn.Invoke(ctx, rpc, answer, in, out)
	if err == nil || answer.complete {
		return nil
	}
	var known *kerr.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &kerr.Error{Code: kerr.RequestTimedOut, Message: fmt.Sprintf("no answer from %s within %s", c.to.addr, timeout.Round(time.Millisecond)), Leader: id.NoNode}
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return c.dialer.lost(c.to, err)
}
