package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/auth/authtest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// rawServer answers each length-prefixed frame on a bare TCP connection with 32 bytes, answers packed as the frames come in.
func rawServer(b *testing.B) net.Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r, w := bufio.NewReaderSize(c, 256<<10), bufio.NewWriterSize(c, 64<<10)
		buf, answer := make([]byte, 2<<20), make([]byte, answerHead)
		for {
			if _, err := io.ReadFull(r, buf[:4]); err != nil {
				return
			}
			if _, err := io.ReadFull(r, buf[4:4+binary.LittleEndian.Uint32(buf)]); err != nil {
				return
			}
			_, _ = w.Write(answer)
			if r.Buffered() == 0 {
				_ = w.Flush()
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// pipeline sends b.N requests with at most window of them unanswered, flushing when it has to wait.
func pipeline(b *testing.B, window int, answered <-chan int, send, flush func() error) {
	inFlight := 0
	for i := 0; i < b.N; i++ {
		for inFlight == window {
			if err := flush(); err != nil {
				b.Fatal(err)
			}
			inFlight -= <-answered
		}
		select {
		case n := <-answered:
			inFlight -= n
		default:
		}
		if err := send(); err != nil {
			b.Fatal(err)
		}
		inFlight++
	}
	if err := flush(); err != nil {
		b.Fatal(err)
	}
	for inFlight > 0 {
		inFlight -= <-answered
	}
}

// BenchmarkSecuredProduce compares produce streams with TLS and without.
func BenchmarkSecuredProduce(b *testing.B) {
	ca := authtest.New(b, "prod")
	server, client := authtest.Load(b, ca.Node(1)), authtest.Load(b, ca.Client("alice"))
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, window := range []int{1, 64} {
			for _, secure := range []string{"plain", "tls"} {
				b.Run(fmt.Sprintf("%dKiB/window=%d/%s", size>>10, window, secure), func(b *testing.B) {
					o := ServerOptions{Services: Services{Produce: func(p *ProduceStream) error {
						return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{Correlation: r.Correlation}) })
					}}}
					d := &Dialer{}
					if secure == "tls" {
						o.TLS, d = server.Server(auth.CertificateRequired), clientDialer(client)
					}
					c, err := d.DialProduce(b.Context(), startServer(b, o).Addr().String())
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					answered := make(chan int, window)
					go func() { _ = c.Recv(func(ProduceResponse) { answered <- 1 }) }()
					r := ProduceRequest{Topic: topic, Acks: AcksAll, Batch: make([]byte, size)}
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					pipeline(b, window, answered, func() error { r.Correlation++; return c.Send(r) }, c.Flush)
				})
			}
		}
	}
}

// BenchmarkProduce compares pipelined produce requests with the same bytes over bare TCP.
func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, window := range []int{1, 64} {
			name := fmt.Sprintf("%dKiB/window=%d", size>>10, window)
			b.Run(name+"/stream", func(b *testing.B) {
				s := startServer(b, ServerOptions{Services: Services{Produce: func(p *ProduceStream) error {
					return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{Correlation: r.Correlation}) })
				}}})
				c, err := new(Dialer).DialProduce(b.Context(), s.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				answered := make(chan int, window)
				go func() { _ = c.Recv(func(ProduceResponse) { answered <- 1 }) }()
				r := ProduceRequest{Topic: topic, Acks: AcksAll, Batch: make([]byte, size)}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				pipeline(b, window, answered, func() error { r.Correlation++; return c.Send(r) }, c.Flush)
			})
			b.Run(name+"/tcp", func(b *testing.B) {
				c := rawServer(b)
				answered := make(chan int, window)
				go func() {
					r := bufio.NewReaderSize(c, 64<<10)
					for buf := make([]byte, answerHead); ; {
						if _, err := io.ReadFull(r, buf); err != nil {
							return
						}
						answered <- 1
					}
				}()
				w := bufio.NewWriterSize(c, 64<<10)
				frame := make([]byte, requestHead+size)
				binary.LittleEndian.PutUint32(frame, uint32(len(frame)-4))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				pipeline(b, window, answered, func() error { _, err := w.Write(frame); return err }, w.Flush)
			})
		}
	}
}

// BenchmarkLane compares appends on a bulk lane, each decoded and stepped, with the same bytes over bare TCP.
func BenchmarkLane(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 256 << 10} {
		name := fmt.Sprintf("%dKiB", size>>10)
		window := max(8, min(256, (8<<20)/size))
		b.Run(name+"/lane", func(b *testing.B) {
			answered := make(chan int, window)
			s := startServer(b, ServerOptions{Services: Services{Peer: newTestPeer(hello(1), func(stepped) { answered <- 1 })}})
			up := newEdges()
			p := startPeers(b, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up})
			p.Reset(1)
			<-up.c
			eventually(b, dialTimeout, "bulk lanes", func() bool { return s.Metrics().BulkInbound == 2 })
			m := appendOf(1, make([]byte, size))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			pipeline(b, window, answered, func() error {
				p.Send(1, 2, m, nil)
				return nil
			}, func() error { p.Flush(); return nil })
			b.StopTimer()
			if n := p.Metrics().Dropped; n > 0 {
				b.Fatalf("%d dropped", n)
			}
			_ = p.Close()
		})
		b.Run(name+"/tcp", func(b *testing.B) {
			c := rawServer(b)
			answered := make(chan int, window)
			go func() {
				r := bufio.NewReaderSize(c, 64<<10)
				for buf := make([]byte, answerHead); ; {
					if _, err := io.ReadFull(r, buf); err != nil {
						return
					}
					answered <- 1
				}
			}()
			w := bufio.NewWriterSize(c, 64<<10)
			frame := make([]byte, messageHead+size)
			binary.LittleEndian.PutUint32(frame, uint32(len(frame)-4))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			pipeline(b, window, answered, func() error { _, err := w.Write(frame); return err }, w.Flush)
		})
	}
}

// BenchmarkFetch pushes events of 64 KiB against a grant of credit.
func BenchmarkFetch(b *testing.B) {
	const size = 64 << 10
	batches := make([]byte, size)
	s := startServer(b, ServerOptions{Services: Services{Fetch: func(f *FetchStream) error {
		credit := make(chan int64, 1024)
		go func() {
			for n := range credit {
				for range n / size {
					if f.AppendRead(FetchEvent{}, func(dst []byte) ([]byte, error) { return append(dst, batches...), nil }) != nil {
						return
					}
				}
				_ = f.Flush()
			}
		}()
		err := f.Recv(func(c FetchCommand) error { credit <- c.Credit; return nil })
		close(credit)
		return err
	}}})
	c, err := new(Dialer).DialFetch(b.Context(), s.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	got := make(chan int, 1024)
	go func() { _ = c.Recv(func(e FetchEvent) { got <- len(e.Batches) }) }()
	b.SetBytes(size)
	b.ReportAllocs()
	const window = 64 // 4 MiB of credit, renewed by quarters
	if err := c.Send(FetchCommand{Kind: Credit, Credit: window * size}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for i := 1; i <= b.N; i++ {
		<-got
		if i%(window/4) == 0 {
			if err := c.Send(FetchCommand{Kind: Credit, Credit: window / 4 * size}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkSend is the cost of queueing, without a network: an append of 1 KiB, and a heartbeat.
func BenchmarkSend(b *testing.B) {
	for _, c := range benchmarkMessages[:2] {
		b.Run(c.name, func(b *testing.B) {
			out := newTrains(64<<20, testVersion)
			b.ReportAllocs()
			for b.Loop() {
				size, _ := messageSize(c.m)
				if !out.put(size, id.Group(1), c.m, nil) {
					b.Fatal("full")
				}
				if len(out.mu.full) > 0 {
					out.done(out.take())
				}
			}
		})
	}
}

func BenchmarkAdmin(b *testing.B) {
	s := startServer(b, ServerOptions{Services: Services{Admin: &adminServer{}}})
	d := &Dialer{}
	defer d.Close()
	client := d.Admin(s.Addr().String())
	b.ReportAllocs()
	var failed error
	for b.Loop() {
		_, err := client.Metadata(context.Background(), &pb.MetadataRequest{})
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		b.Fatal(failed)
	}
}
