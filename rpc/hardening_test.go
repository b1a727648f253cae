package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// everything is a server with all services.
func everything(t *testing.T, log *logBuffer) *Server {
	return startServer(t, ServerOptions{Node: 1, Logger: log.logger(), Services: Services{
		Admin:   &adminServer{},
		Peer:    newTestPeer(hello(1), nil),
		Produce: func(p *ProduceStream) error { return serve(p, func(ProduceRequest) {}) },
		Fetch:   func(f *FetchStream) error { return f.Recv(func(FetchCommand) error { return nil }) },
	}})
}

func wireFrame(kind drpcwire.Kind, stream, message uint64, data []byte) []byte {
	return drpcwire.AppendFrame(nil, drpcwire.Frame{ID: drpcwire.ID{Stream: stream, Message: message}, Kind: kind, Data: data, Done: true})
}

func invoke(name string) []byte { return wireFrame(drpcwire.KindInvoke, 1, 1, []byte(name)) }

// claim is a frame header that promises n bytes.
func claim(kind drpcwire.Kind, stream, message, n uint64) []byte {
	b := []byte{byte(kind)<<1 | 1}
	for _, v := range []uint64{stream, message, n} {
		b = drpcwire.AppendVarint(b, v)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Whatever a stranger says or does not say costs one log line at most, a few seconds at most, and no memory; service goes on.
func TestStrangers(t *testing.T) {
	defer leaktest.AfterTest(t)()
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	noise[0] = 0xff
	be := binary.BigEndian.AppendUint32(nil, 1<<30)
	helloLane := helloTo(1, hello(2), 20*time.Millisecond)
	type stranger struct {
		name   string
		say    []byte
		flood  bool // go on with zeros for as long as the server takes them
		within time.Duration
		lines  int // most
	}
	var all sync.WaitGroup
	for _, c := range []stranger{
		{"silent", nil, false, preludeTimeout + time.Second, 1},
		{"noise", noise, false, time.Second, 1},
		{"http", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false, time.Second, 1},
		{"tls", []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, false, time.Second, 1},
		{"1 GiB, big endian", be, true, time.Second, 1},
		{"1 GiB, little endian", binary.LittleEndian.AppendUint32(nil, 1<<30), true, time.Second, 1},
		{"1 GiB name", claim(drpcwire.KindInvoke, 1, 1, 1<<30), true, time.Second, 1},
		{"half a header", claim(drpcwire.KindInvoke, 1, 1, 20)[:2], false, preludeTimeout + time.Second, 1},
		{"half a name", join(claim(drpcwire.KindInvoke, 1, 1, 20), []byte("/quorumlog")), false, preludeTimeout + time.Second, 1},
		{"message first", claim(drpcwire.KindMessage, 1, 1, 20), false, time.Second, 1},
		{"endless number", bytes.Repeat([]byte{kindInvoke<<1 | 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 3), false, time.Second, 1},
		{"unknown call", invoke("/quorumlog.Admin/Explode"), false, preludeTimeout + time.Second, 0},
		{"call without request", invoke("/quorumlog.Admin/Metadata"), false, preludeTimeout + 2*time.Second, 1},
		{"1 GiB request", join(invoke("/quorumlog.Admin/Metadata"), claim(drpcwire.KindMessage, 1, 2, 1<<30)), true, time.Second, 1},
		{"lane without hello", invoke(rpcLane), false, preludeTimeout + 2*time.Second, 1},
		{"produce without hello", invoke(rpcProduce), false, preludeTimeout + 2*time.Second, 1},
		{"fetch without hello", invoke(rpcFetch), false, preludeTimeout + 2*time.Second, 1},
		{"1 GiB hello", join(invoke(rpcLane), claim(drpcwire.KindMessage, 1, 2, 1<<30)), true, time.Second, 1},
		{"lane, then silence", join(invoke(rpcLane), wireFrame(drpcwire.KindMessage, 1, 2, helloLane)), false, 3 * time.Second, 1},
		{"lane, then 1 GiB", join(invoke(rpcLane), wireFrame(drpcwire.KindMessage, 1, 2, helloLane), claim(drpcwire.KindMessage, 1, 3, 1<<30)), true, 3 * time.Second, 1},
		{"lane, then a bad CRC", join(invoke(rpcLane), wireFrame(drpcwire.KindMessage, 1, 2, helloLane), wireFrame(drpcwire.KindMessage, 1, 3, noiseTrain())), false, 3 * time.Second, 1},
		{"produce, then a frame of 1 GiB", join(invoke(rpcProduce), wireFrame(drpcwire.KindMessage, 1, 2, appendClientHello(nil, Spoken, "x")),
			wireFrame(drpcwire.KindMessage, 1, 3, []byte{0, 0, 0, 0x40, 1, 2, 3})), true, 3 * time.Second, 1},
	} {
		var log logBuffer
		s := everything(t, &log)
		defer closeServer(t, s)
		all.Go(func() { // all at once: some wait for the prelude timeout
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			start := time.Now()
			_, _ = conn.Write(c.say)
			sent := 0
			for zeros := make([]byte, 64<<10); c.flood && time.Since(start) < c.within; {
				n, err := conn.Write(zeros)
				sent += n
				if err != nil {
					break
				}
			}
			_ = conn.SetReadDeadline(start.Add(c.within))
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Errorf("%s: still open after %s", c.name, time.Since(start))
			}
			eventually(t, lingerTimeout+time.Second, c.name+": the server forgot it", func() bool { return s.Metrics().Connections == 0 })
			if n := log.lines(); n > c.lines {
				t.Errorf("%s: %d log lines:\n%s", c.name, n, log.String())
			}
			if sent > 32<<20 {
				t.Errorf("%s: the server took %d bytes", c.name, sent)
			}
			checkService(t, s)
		})
	}
	all.Wait()
}

// helloTo is the hello of a node's control lane to another one.
func helloTo(target id.Node, h PeerHello, ping time.Duration) []byte {
	h.Target, h.ping = target, ping
	return appendHello(nil, h)
}

func noiseTrain() []byte {
	train := testVersion.seal(append(make([]byte, trainHead), "payload"...), trainMessages)
	train[len(train)-1] ^= 1
	return train
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func checkService(t *testing.T, s *Server) {
	t.Helper()
	d := &Dialer{}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := d.Admin(s.Addr().String()).Metadata(ctx, &pb.MetadataRequest{}); err != nil {
		t.Errorf("service does not go on: %v", err)
	}
}

// Many strangers at once: memory stays flat, and the log does not fill up.
func TestManyStrangers(t *testing.T) {
	var log logBuffer
	began := time.Now()
	s := everything(t, &log)
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 300
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
		switch i % 3 {
		case 0:
			_, _ = c.Write(join(claim(drpcwire.KindInvoke, 1, 1, 1<<30), make([]byte, 1<<20)))
		case 1:
			_, _ = c.Write(join(invoke(rpcLane), claim(drpcwire.KindMessage, 1, 2, 1<<30), make([]byte, 1<<20)))
		case 2:
			_, _ = c.Write(invoke(rpcProduce)[:5])
		}
	}
	runtime.ReadMemStats(&now)
	if grown := int64(now.HeapAlloc) - int64(before.HeapAlloc); grown > n*160<<10 { // two buffers of drpc each, before any collection
		t.Errorf("heap grew by %d KiB", grown>>10)
	}
	eventually(t, 2*time.Second, "the loud ones are gone", func() bool { return s.Metrics().Connections <= n/3 })
	checkService(t, s)
	if l, took := log.lines(), time.Since(began); l > 10*(4+int(took/time.Second)) { // a busy machine takes seconds
		t.Errorf("%d lines in %v", l, took)
	}
}

func TestConnectionLimit(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	s := startServer(t, ServerOptions{MaxConnections: 2, Logger: log.logger(), Services: Services{Admin: &adminServer{}}})
	defer closeServer(t, s)
	var conns []net.Conn
	for range 5 {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	eventually(t, time.Second, "three are refused", func() bool { return s.Metrics().Refused == 3 })
	for _, c := range conns {
		_ = c.Close()
	}
	eventually(t, time.Second, "the others are gone", func() bool { return s.Metrics().Connections == 0 })
	checkService(t, s)
	if log.lines() > 3 {
		t.Errorf("log:\n%s", log.String())
	}
}

// poorListener has no file for a connection, times times.
type poorListener struct {
	net.Listener
	times atomic.Int64
}

func (l *poorListener) Accept() (net.Conn, error) {
	if l.times.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestAcceptOutlivesWantOfFiles: a server that cannot accept waits, longer each time, and goes on.
func TestAcceptOutlivesWantOfFiles(t *testing.T) {
	defer leaktest.AfterTest(t)()
	listener, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	poor := &poorListener{Listener: listener}
	poor.times.Store(6)
	begin := time.Now()
	s := startServer(t, ServerOptions{Listener: poor, Services: Services{Admin: &adminServer{}}})
	defer closeServer(t, s)
	checkService(t, s)
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("it tried again six times within %v", took)
	}
}

// A panic in a callback, while drpc holds the buffer, ends its stream only.
func TestPanicInStream(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	var poisoned atomic.Int64
	s := startServer(t, ServerOptions{Node: 4, Logger: log.logger(), Services: Services{
		Admin: &adminServer{},
		Produce: func(p *ProduceStream) error {
			return serve(p, func(r ProduceRequest) {
				if r.Correlation == 13 {
					panic("bad batch")
				}
				p.Send(ProduceResponse{Correlation: r.Correlation})
			})
		},
		Peer: newTestPeer(hello(4), func(s stepped) {
			if s.g == 13 {
				poisoned.Add(1)
				panic("bad message")
			}
		}),
	}})
	defer closeServer(t, s)
	c, err := (&Dialer{ClientID: "billing\n5"}).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done, answers := make(chan error, 2), make(chan uint64, 10)
	go func() { done <- c.Recv(func(ProduceResponse) {}) }()
	go func() { done <- other.Recv(func(r ProduceResponse) { answers <- r.Correlation }) }()
	_ = errors.Join(c.Send(ProduceRequest{Correlation: 13}), c.Flush()) // the stream may end before Flush returns
	if err := within(t, 3*time.Second, "Recv returned", done); kerr.CodeOf(err) != kerr.Unknown || err.Error() != "internal error: see the log of node 4" {
		t.Errorf("the client sees %v", err)
	}
	if err := errors.Join(other.Send(ProduceRequest{Correlation: 5}), other.Flush()); err != nil {
		t.Fatal(err)
	}
	if n := within(t, time.Second, "the other stream works", answers); n != 5 {
		t.Error(n)
	}
	if log.lines() != 1 || !strings.Contains(log.String(), "bad batch") || !strings.Contains(log.String(), "client=billing?5 ") || !strings.Contains(log.String(), "TestPanicInStream") {
		t.Errorf("log:\n%s", log.String())
	}
	_ = other.Close()
	within(t, time.Second, "Recv returned", done)

	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr())})
	defer p.Close()
	p.Send(4, 13, heartbeat(1), nil)
	p.Flush()
	eventually(t, 2*time.Second, "the lane's panic was survived, and the lane is back", func() bool {
		return poisoned.Load() == 1 && p.Metrics().Breaks >= 1 && s.Metrics().ControlLanes == 1 && s.Metrics().Panics == 2
	})
}

func TestCloseWhileBusy(t *testing.T) {
	defer leaktest.AfterTest(t)()
	a := &adminServer{slow: make(chan struct{})}
	var received atomic.Int64
	s := startServer(t, ServerOptions{Services: Services{
		Admin: a,
		Peer:  newTestPeer(hello(1), func(stepped) { received.Add(1) }),
		Produce: func(p *ProduceStream) error {
			return serve(p, func(r ProduceRequest) {
				received.Add(1)
				p.Send(ProduceResponse{Correlation: r.Correlation})
			})
		},
		Fetch: func(f *FetchStream) error {
			var sender sync.WaitGroup
			sender.Go(func() {
				for f.Send(FetchEvent{Batches: make([]byte, 100_000)}) == nil {
				}
			})
			err := f.Recv(func(FetchCommand) error { return nil })
			sender.Wait()
			return err
		},
	}})
	addr := s.Addr().String()
	d := &Dialer{}
	defer d.Close()
	var busy sync.WaitGroup
	ends := make(chan error, 10)
	for range 3 {
		c, err := d.DialProduce(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() { ends <- c.Recv(func(ProduceResponse) {}) }()
		busy.Go(func() {
			for errors.Join(c.Send(ProduceRequest{Batch: make([]byte, 10_000)}), c.Flush()) == nil {
			}
		})
	}
	f, err := d.DialFetch(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ends <- f.Recv(func(FetchEvent) { received.Add(1) }) }()
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr())})
	defer p.Close()
	p.Reset(1)
	unary := make(chan error, 1)
	go func() {
		_, err := d.Admin(addr).DeleteTopic(context.Background(), &pb.DeleteTopicRequest{})
		unary <- err
	}()
	eventually(t, 2*time.Second, "all are busy", func() bool { return received.Load() > 100 && s.Metrics().Connections == 8 && a.begun.Load() == 1 })
	closed := make(chan struct{})
	start := time.Now()
	go func() {
		closeServer(t, s)
		close(closed)
	}()
	for range 4 {
		if err := within(t, 2*time.Second, "a stream ended", ends); kerr.CodeOf(err) != kerr.BrokerNotAvailable {
			t.Errorf("a stream ended with %v", err)
		}
	}
	busy.Wait()
	close(a.slow) // the call in progress may finish
	if err := within(t, time.Second, "the call returned", unary); err != nil {
		t.Errorf("the call that was in progress: %v", err)
	}
	within(t, 3*time.Second, "closed", closed)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("closed after %s", d)
	}
}

// A handler that waits for its context is cut off when Close's context ends.
func TestCloseCutsOff(t *testing.T) {
	defer leaktest.AfterTest(t)()
	a := &adminServer{slow: make(chan struct{})}
	s := startServer(t, ServerOptions{Services: Services{Admin: a}})
	d := &Dialer{}
	defer d.Close()
	done := make(chan error, 1)
	go func() {
		_, err := d.Admin(s.Addr().String()).DeleteTopic(context.Background(), &pb.DeleteTopicRequest{})
		done <- err
	}()
	eventually(t, time.Second, "the call is there", func() bool { return a.begun.Load() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := within(t, time.Second, "the call failed", done); err == nil {
		t.Error("the call succeeded")
	}
}

// A producer that never reads its answers loses its stream, and the server's memory for it is bounded.
func TestProducerThatDoesNotRead(t *testing.T) {
	defer leaktest.AfterTest(t)()
	ended := make(chan error, 1)
	s := startServer(t, ServerOptions{Services: Services{Produce: func(p *ProduceStream) error {
		text := strings.Repeat("x", 100_000)
		err := serve(p, func(r ProduceRequest) {
			for range 1000 {
				p.Send(ProduceResponse{Message: text})
			}
		})
		ended <- err
		return err
	}}})
	defer closeServer(t, s)
	c, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.Send(ProduceRequest{}), c.Flush()); err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "the stream ended", ended)
	eventually(t, 3*time.Second, "and is gone", func() bool { return s.Metrics().Connections == 0 })
}

func TestErrorsOnTheWire(t *testing.T) {
	for _, e := range []*kerr.Error{
		{Code: kerr.Unknown, Message: "text", Leader: id.NoNode}, {Code: kerr.NotLeaderOrFollower, Message: "", Leader: 0}, {Code: kerr.InconsistentClusterID, Message: "a\nb", Leader: 1<<31 - 1},
	} {
		got, ok := fromWire(drpcwire.UnmarshalError(drpcwire.MarshalError(toWire(e))))
		if !ok || got.Code != e.Code || got.Leader != e.Leader || got.Message != e.Error() {
			t.Errorf("%+v became %+v", e, got)
		}
	}
	if got, _ := fromWire(drpcwire.UnmarshalError(drpcwire.MarshalError(toWire(io.ErrShortWrite)))); got.Code != kerr.Unknown || got.Message != "short write" {
		t.Errorf("%+v", got)
	}
	if kerr.CodeOf(nil) != kerr.None || !errors.Is(kerr.Errorf(kerr.NotController, "x"), &kerr.Error{Code: kerr.NotController}) {
		t.Error("kerr.CodeOf, Is")
	}
	if s := kerr.NotEnoughReplicasAfter.String(); s != "NOT_ENOUGH_REPLICAS_AFTER_APPEND" || kerr.Code(999).String() != "ERROR_CODE_999" {
		t.Error(s)
	}
}
