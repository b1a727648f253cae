package rpc

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/goutils/leaktest"
	"storj.io/drpc"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/loglimit"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// TestUnfinishedMessages: those who begin large messages and do not finish them hold no memory that others need, and those who do are served
// beside any number of them.
func TestUnfinishedMessages(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	s := startServer(t, ServerOptions{Logger: log.logger(), Limits: ServerLimits{ReceiveBytes: 1}, Services: Services{ // the least: two messages
		Produce: func(p *ProduceStream) error {
			return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{Correlation: r.Correlation}) })
		},
	}})
	defer closeServer(t, s)
	const greedy = 8
	for range greedy { // each half of a MiB, with the claim of more
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		frame := drpcwire.AppendFrame(nil, drpcwire.Frame{ID: drpcwire.ID{Stream: 1, Message: 3}, Kind: drpcwire.KindMessage, Data: make([]byte, frameBytes)})
		say := join(invoke(rpcProduce), wireFrame(drpcwire.KindMessage, 1, 2, appendClientHello(nil, Spoken, "greedy")))
		if _, err := conn.Write(say); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1000)); err != nil { // the answer to the hello
			t.Fatal(err)
		}
		_, _ = conn.Write(join(frame, frame, frame, frame, frame, frame, frame, frame))
	}
	c, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answers, ended := make(chan uint64, 1), make(chan error, 1)
	go func() { ended <- c.Recv(func(r ProduceResponse) { answers <- r.Correlation }) }()
	for n := range uint64(20) {
		if err := c.Send(ProduceRequest{Correlation: n, Batch: make([]byte, 1_500_000)}); err != nil {
			t.Fatal(err)
		}
		if got := within(t, 15*time.Second, "the answer came", answers); got != n {
			t.Errorf("answer %d, not %d", got, n)
		}
	}
	if m := s.Metrics(); m.Evicted == 0 || m.Evicted > greedy {
		t.Errorf("%d were given up", m.Evicted)
	}
	if !strings.Contains(log.String(), "did not finish its message") {
		t.Errorf("log:\n%s", log.String())
	}
	_ = c.Close()
	within(t, 5*time.Second, "Recv returned", ended)
}

// TestIntakeGivesBack: whatever becomes of a message, the memory that was counted for it is not lost.
func TestIntakeGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{log: new(logBuffer).logger()}
		s.lines = loglimit.Strangers()
		ctx, cancel := context.WithCancel(context.Background())
		s.closing = ctx
		in := newIntake(s, 0)
		total := int64(2 * maxMessage)
		peers := make([]*arrival, 3)
		for i := range peers {
			a, b := net.Pipe()
			defer a.Close()
			defer b.Close()
			peers[i] = &arrival{conn: newConn(a)}
		}
		if in.take(peers[0], smallArrival) != nil || peers[0].bytes != 0 {
			t.Error("a small message is counted")
		}
		if err := errors.Join(in.take(peers[0], maxMessage/2), in.take(peers[0], maxMessage), in.take(peers[1], maxMessage)); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() { got <- in.take(peers[2], maxMessage) }()
		time.Sleep(2 * intakePatience) // of the bubble's clock
		synctest.Wait()
		select {
		case <-peers[0].conn.closed:
		default:
			t.Error("the one that takes longest is not given up")
		}
		in.give(peers[0]) // as its reader does
		if err := <-got; err != nil {
			t.Error(err)
		}
		begun := time.Now()
		stuck := &arrival{conn: newConn(peers[1].conn.Conn)}
		if err := in.take(stuck, maxMessage); err == nil || time.Since(begun) > intakeAttempts*intakePatience+time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		in.give(stuck)
		cancel()
		if err := in.take(stuck, maxMessage); err == nil {
			t.Error("a server that closes gives memory")
		}
		in.give(peers[1])
		in.give(peers[2])
		if !in.room.TryAcquire(total) || len(in.mu.open) != 0 {
			t.Error("memory is lost")
		}
	})
}

// TestLargeRequestsAreCounted: strangers who begin large requests of calls get no more memory than the server has for them, and it is back
// when they are gone.
func TestLargeRequestsAreCounted(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	s := startServer(t, ServerOptions{Logger: log.logger(), Limits: ServerLimits{AdminBytes: 2 << 20}, Services: Services{Admin: &adminServer{}}})
	defer closeServer(t, s)
	part := drpcwire.AppendFrame(nil, drpcwire.Frame{ID: drpcwire.ID{Stream: 1, Message: 2}, Kind: drpcwire.KindMessage, Data: make([]byte, frameBytes)})
	var conns []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write(join(invoke("/quorumlog.Admin/Metadata"), part, part, part, part))
		conns = append(conns, conn)
	}
	eventually(t, 4*time.Second, "most are refused", func() bool { return s.Metrics().CallsRefused >= 10 && s.Metrics().Connections <= 10 })
	if used := s.bounds.requests.Used(); used > 2<<20 || used == 0 {
		t.Errorf("%d bytes are counted", used)
	}
	checkService(t, s)
	for _, conn := range conns {
		_ = conn.Close()
	}
	eventually(t, 5*time.Second, "all is given back", func() bool { return s.bounds.requests.Used() == 0 })
}

// TestCallsUnderWay: calls that wait for something leave room for those that look, and those of other nodes; one too many is told so.
func TestCallsUnderWay(t *testing.T) {
	defer leaktest.AfterTest(t)()
	a := &adminServer{slow: make(chan struct{})}
	s := startServer(t, ServerOptions{Node: 3, Limits: ServerLimits{AdminCalls: 2}, Services: Services{Admin: a}})
	defer closeServer(t, s)
	d := &Dialer{}
	defer d.Close()
	client := d.Admin(s.Addr().String())
	var slow sync.WaitGroup
	for range 2 {
		slow.Go(func() {
			if _, err := client.DeleteTopic(context.Background(), &pb.DeleteTopicRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, 5*time.Second, "two are under way", func() bool { return a.begun.Load() == 2 })
	if _, err := client.DeleteTopic(t.Context(), &pb.DeleteTopicRequest{}); kerr.CodeOf(err) != kerr.ThrottlingQuotaExceeded || !strings.Contains(err.Error(), "node 3") {
		t.Errorf("one too many: %v", err)
	}
	checkService(t, s)
	if s.Metrics().CallsRefused != 1 {
		t.Errorf("%d calls are refused", s.Metrics().CallsRefused)
	}
	var third sync.WaitGroup
	third.Go(func() { // it waits for its turn
		if _, err := client.DeleteTopic(context.Background(), &pb.DeleteTopicRequest{}); err != nil {
			t.Error(err)
		}
	})
	close(a.slow)
	slow.Wait()
	third.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	leave, err := s.bounds.gate.enter(ctx, peerDoor)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

// slowReader is a stream whose client reads its answer once another call has been let in.
type slowReader struct {
	drpc.Stream
	gate *gate
}

func (s *slowReader) MsgSend(drpc.Message, drpc.Encoding) error {
	leave, err := s.gate.enter(context.Background(), lookDoor)
	if err == nil {
		leave()
	}
	return err
}

// TestUnreadAnswersKeepNobodyOut: a call that is being answered is no longer under way.
func TestUnreadAnswersKeepNobodyOut(t *testing.T) {
	g := newGate(1, 1, 0)
	leave, err := g.enter(t.Context(), lookDoor)
	if err != nil {
		t.Fatal(err)
	}
	s := &adminStream{Stream: &slowReader{gate: g}, ctx: t.Context(), gate: g, leave: leave}
	if err := s.MsgSend(&pb.MetadataResponse{}, nil); err != nil {
		t.Error(err)
	}
	leave() // as the end of the call does
	if !g.doors[lookDoor].TryAcquire(1) || g.doors[lookDoor].TryAcquire(1) {
		t.Error("the place is not given back once")
	}
}

// TestLargeAnswersWaitForEachOther: only so many bytes of large answers are written at once; small ones do not wait.
func TestLargeAnswersWaitForEachOther(t *testing.T) {
	g := newGate(1, 1, 0)
	large := &pb.MetadataResponse{ClusterId: strings.Repeat("x", maxAdminResponse-100)}
	var writing []func()
	for range 2 {
		done, err := g.room(t.Context(), large)
		if err != nil {
			t.Fatal(err)
		}
		writing = append(writing, done)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := g.room(ctx, large); kerr.CodeOf(err) != kerr.ThrottlingQuotaExceeded {
		t.Errorf("a third: %v", err)
	}
	if _, err := g.room(ctx, &pb.MetadataResponse{}); err != nil {
		t.Errorf("a small one: %v", err)
	}
	writing[0]()
	if _, err := g.room(t.Context(), large); err != nil {
		t.Error(err)
	}
}

// TestPeersDoNotWaitForClients: who comes through which door.
func TestPeersDoNotWaitForClients(t *testing.T) {
	for name, want := range map[string]door{
		"Metadata": lookDoor, "ListOffsets": lookDoor, "ClusterStatus": lookDoor, "CreateTopic": changeDoor, "Unheard": changeDoor,
		"RegisterNode": peerDoor, "Identify": peerDoor, "CheckReach": peerDoor,
		"PartitionStatus": lookDoor, "DescribeACLs": lookDoor, "AlterUsers": changeDoor, // clients make these
	} {
		if got := doorOf("/quorumlog.Admin/"+name, false); got != want {
			t.Errorf("%s comes through door %d", name, got)
		}
		if got := doorOf("/quorumlog.Admin/"+name, true); got != peerDoor {
			t.Errorf("%s, passed on, comes through door %d", name, got)
		}
	}
}

// TestGuardCountsTheLargest: a connection is counted by its largest message.
func TestGuardCountsTheLargest(t *testing.T) {
	g := guard{requests: budget.NewFair(1<<20, 0).Share(1 << 20)}
	g.maxMessage.Store(maxAdminRequest)
	message := func(id uint64, n int) error { return g.scan(wireFrame(drpcwire.KindMessage, 1, id, make([]byte, n))) }
	if err := errors.Join(g.scan(invoke("/a/b")), message(2, 1000), message(3, 100_000), message(4, 50_000), message(5, 100_000)); err != nil {
		t.Fatal(err)
	}
	if held := g.requests.Held(); held != 200_000 {
		t.Errorf("%d bytes are counted", held)
	}
}
