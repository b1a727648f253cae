package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
)

// from is a listener whose connections seem to come from hosts of the test's choice.
type from struct {
	net.Listener
	host func(n int) string
	n    int
}

type fromHost struct {
	net.Conn
	remote net.Addr
}

func (c fromHost) RemoteAddr() net.Addr { return c.remote }

func (l *from) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	remote, err := net.ResolveTCPAddr("tcp", l.host(l.n))
	if l.n++; err != nil {
		return nil, err
	}
	return fromHost{c, remote}, nil
}

// TestConnectionsPerAddress: one host cannot take all connections, however it spreads over its addresses, and what it gives back it may take
// again. Loopback is not limited.
func TestConnectionsPerAddress(t *testing.T) {
	const most, n = 3, 10
	for _, c := range []struct {
		name string
		host func(n int) string
		want int
	}{
		{"one host", func(n int) string { return fmt.Sprintf("192.0.2.1:%d", 1000+n) }, most},
		{"the same, as IPv6", func(n int) string { return fmt.Sprintf("[::ffff:192.0.2.1]:%d", 1000+n) }, most},
		{"two hosts", func(n int) string { return fmt.Sprintf("192.0.2.%d:1000", n%2) }, 2 * most},
		{"one /64", func(n int) string { return fmt.Sprintf("[2001:db8::%d]:1000", n+1) }, most},
		{"loopback", func(n int) string { return fmt.Sprintf("127.0.0.1:%d", 1000+n) }, n},
		{"loopback, IPv6", func(n int) string { return fmt.Sprintf("[::1]:%d", 1000+n) }, n},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			inner, err := Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var log logBuffer
			s := startServer(t, ServerOptions{
				Listener: &from{Listener: inner, host: c.host}, Logger: log.logger(), Limits: ServerLimits{ConnectionsPerAddress: most},
				Services: Services{Produce: func(p *ProduceStream) error { return serve(p, func(ProduceRequest) {}) }},
			})
			defer closeServer(t, s)
			for round := range 2 {
				var open []net.Conn
				for range n {
					conn, err := net.Dial("tcp", s.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					open = append(open, conn)
				}
				eventually(t, 5*time.Second, "all are counted", func() bool {
					m := s.Metrics()
					return m.Connections == c.want && int(m.Refused) == (round+1)*(n-c.want)
				})
				for _, conn := range open {
					_ = conn.Close()
				}
				eventually(t, 5*time.Second, "all are gone", func() bool { return s.Metrics().Connections == 0 })
			}
			if refused := strings.Contains(log.String(), "its host has as many as one may"); refused != (c.want < n) {
				t.Errorf("log:\n%s", log.String())
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.mu.hosts) != 0 {
				t.Errorf("%v are remembered", s.mu.hosts)
			}
		})
	}
}

func TestDefaultLimits(t *testing.T) {
	for most, want := range map[int]int{32: 64, 256: 64, 333: 83, 4096: 1024} {
		if l := (ServerLimits{}).withDefaults(most); l.ConnectionsPerAddress != want {
			t.Errorf("of %d connections one host may have %d", most, l.ConnectionsPerAddress)
		}
	}
	if l := (ServerLimits{ConnectionsPerAddress: -1}).withDefaults(4096); l.ConnectionsPerAddress != -1 {
		t.Errorf("no limit became %d", l.ConnectionsPerAddress)
	}
}

// TestBadFramesDoNotFillTheLog: streams that carry what they should not cost ten lines a second together, not one each.
func TestBadFramesDoNotFillTheLog(t *testing.T) {
	defer leaktest.AfterTest(t)()
	log := &logBuffer{Log: rpctest.Log{}}
	s := everything(t, log)
	defer closeServer(t, s)
	bad := binary.LittleEndian.AppendUint32(nil, 4)
	bad = append(bad, 77, 0, 0, 0)
	began := time.Now()
	const n = 100
	for range n {
		c, err := (&Dialer{ClientID: "a client\x00 of a later release"}).DialProduce(t.Context(), s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.say(bad)
		if err := c.Recv(func(ProduceResponse) {}); kerr.CodeOf(err) != kerr.InvalidRequest {
			t.Errorf("the stream ended with %v", err)
		}
	}
	if most := 10 * (2 + int(time.Since(began)/time.Second)); log.lines() > min(most, n-1) {
		t.Errorf("%d streams, %d lines, at most %d:\n%s", n, log.lines(), most, log.String())
	}
	if !strings.Contains(log.String(), `client="a client? of a later release" `) {
		t.Errorf("who was it?\n%s", log.String())
	}
}

// TestIdleStreamsHoldNoMemory: what the largest event, request or answer needed is not kept by a stream that has nothing more to say.
func TestIdleStreamsHoldNoMemory(t *testing.T) {
	defer leaktest.AfterTest(t)()
	fetches, produces := make(chan *FetchStream, 1), make(chan *ProduceStream, 1)
	s := startServer(t, ServerOptions{Node: 1, Services: Services{
		Fetch: func(f *FetchStream) error {
			fetches <- f
			return f.Recv(func(FetchCommand) error { return nil })
		},
		Produce: func(p *ProduceStream) error {
			produces <- p
			return serve(p, func(r ProduceRequest) {
				p.Send(ProduceResponse{Correlation: r.Correlation, Message: strings.Repeat("x", 300_000)})
			})
		},
	}})
	defer closeServer(t, s)
	var d Dialer
	consumer, err := d.DialFetch(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	events, ended := make(chan int, 10), make(chan error, 2)
	go func() { ended <- consumer.Recv(func(e FetchEvent) { events <- len(e.Batches) }) }()
	f := within(t, time.Second, "the stream is served", fetches)
	large := make([]byte, 1_900_000)
	errBefore := errors.New("not read")
	for _, send := range []func() error{
		func() error { return f.Send(FetchEvent{Batches: large}) },
		func() error {
			return f.AppendRead(FetchEvent{}, func(dst []byte) ([]byte, error) { return append(dst, large...), nil })
		},
		func() error { return f.Send(FetchEvent{Batches: large[:10]}) },
		func() error {
			return errors.Join(f.AppendRead(FetchEvent{}, func(dst []byte) ([]byte, error) { return append(dst, large[:10]...), nil }), f.Flush())
		},
	} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "the event came", events)
	}
	if err := f.AppendRead(FetchEvent{}, func(dst []byte) ([]byte, error) { return append(dst, large...), errBefore }); err != errBefore {
		t.Error(err)
	}
	if err := f.AppendRead(FetchEvent{}, func(dst []byte) ([]byte, error) { return append(dst, make([]byte, maxMessage)...), nil }); kerr.CodeOf(err) != kerr.MessageTooLarge {
		t.Error(err)
	}
	f.sendMu.Lock()
	if f.queued != nil {
		t.Errorf("an idle consumer's stream holds %d KiB", cap(f.queued.Bytes)>>10)
	}
	f.sendMu.Unlock()
	_ = consumer.Close()
	within(t, time.Second, "Recv returned", ended)

	producer, err := d.DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan uint64, 10)
	go func() { ended <- producer.Recv(func(r ProduceResponse) { answers <- r.Correlation }) }()
	p := within(t, time.Second, "the stream is served", produces)
	if err := errors.Join(producer.Send(ProduceRequest{Correlation: 1, Batch: large[:smallRequest]}), producer.Flush()); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "the answer came", answers)
	if producer.queued != nil {
		t.Error("an idle producer's connection holds memory")
	}
	eventually(t, 5*time.Second, "an idle producer's stream holds no answers", func() bool { return p.out.share.Held() == 0 })
	if used := s.bounds.answers.Used(); used != 0 {
		t.Errorf("%d bytes of the node's answers are held by nobody", used)
	}
	_ = producer.Close()
	within(t, time.Second, "Recv returned", ended)
}

// TestUnreadAnswersOfManyProducers: producers that do not read lose their streams when the node's bound is near, which is far below the
// bound of each of them; one that reads keeps on working beside them.
func TestUnreadAnswersOfManyProducers(t *testing.T) {
	defer leaktest.AfterTest(t)()
	const total, greedy = 1 << 20, 8
	hanging := make(chan *ProduceStream, greedy)
	s := startServer(t, ServerOptions{
		Limits: ServerLimits{AnswerBytes: total},
		Services: Services{Produce: func(p *ProduceStream) error {
			if p.conn.client == "greedy" {
				hanging <- p
			}
			return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{Correlation: r.Correlation, Message: "well"}) })
		}},
	})
	defer closeServer(t, s)
	ended := make(chan error, greedy+1)
	for range greedy {
		c, err := (&Dialer{ClientID: "greedy"}).DialProduce(t.Context(), s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- c.Recv(func(ProduceResponse) {}) }()
		p := within(t, time.Second, "the stream is served", hanging)
		p.writing.Lock() // as when the client does not read
		defer p.writing.Unlock()
		for range 100 {
			p.Send(ProduceResponse{Message: strings.Repeat("x", 50_000)})
		}
		if held := p.out.share.Held(); held > total/2 {
			t.Errorf("one producer's answers take %d of %d bytes", held, total)
		}
		select {
		case <-p.failing:
		default:
			t.Error("a producer that does not read keeps its stream")
		}
	}
	if used := s.bounds.answers.Used(); used > total+answersFloor*greedy {
		t.Errorf("%d bytes are used, of %d", used, total)
	}
	c, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan uint64, 1)
	go func() { ended <- c.Recv(func(r ProduceResponse) { answers <- r.Correlation }) }()
	for n := range uint64(100) {
		if err := errors.Join(c.Send(ProduceRequest{Correlation: n}), c.Flush()); err != nil {
			t.Fatal(err)
		}
		if got := within(t, 5*time.Second, "the answer came", answers); got != n {
			t.Errorf("answer %d, not %d", got, n)
		}
	}
	_ = c.Close()
}
