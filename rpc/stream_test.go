package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

var topic = id.Topic{1, 2, 3}

func TestProduceStream(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Node: 3, Services: Services{Produce: func(p *ProduceStream) error {
		return serve(p, func(r ProduceRequest) {
			p.Send(ProduceResponse{Correlation: r.Correlation, BaseOffset: id.Offset(len(r.Batch)), Leader: 3, Epoch: id.Epoch(r.Partition),
				Message: string(r.Batch[:min(3, len(r.Batch))])})
		})
	}}})
	defer closeServer(t, s)
	d := &Dialer{ClientID: "test"}
	c, err := d.DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Limits(); l.Node != 3 || l.MaxBatchBytes != MaxBatchBytes || l.InFlightBytes != produceWindow {
		t.Errorf("limits %+v", l)
	}
	const n = 2000
	answers := make(chan ProduceResponse, n)
	done := make(chan error, 1)
	go func() { done <- c.Recv(func(r ProduceResponse) { answers <- r }) }()
	sizes := []int{0, 1, 1000, 70_000, 300_000, MaxBatchBytes}
	var senders sync.WaitGroup
	for g := range 2 { // two goroutines may share a connection
		senders.Go(func() {
			for i := g; i < n; i += 2 {
				size := 100
				if i%100 < len(sizes) {
					size = sizes[i%100]
				}
				if err := c.Send(ProduceRequest{Correlation: uint64(i), Topic: topic, Partition: id.Partition(i), Acks: AcksAll,
					Timeout: time.Second, Batch: bytes.Repeat([]byte{byte('a' + i%26)}, size)}); err != nil {
					t.Error(err)
				}
			}
			if err := c.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	senders.Wait()
	seen := make([]bool, n)
	for range n {
		r := within(t, 5*time.Second, "an answer", answers)
		i := int(r.Correlation)
		size := 100
		if i%100 < len(sizes) {
			size = sizes[i%100]
		}
		if seen[i] || int(r.BaseOffset) != size || int(r.Epoch) != i || r.Leader != 3 || r.Code != kerr.None || len(r.Message) != min(3, size) {
			t.Fatalf("answer %+v to a batch of %d bytes", r, size)
		}
		seen[i] = true
	}
	var tooLarge *kerr.Error
	if err := c.Send(ProduceRequest{Batch: make([]byte, MaxBatchBytes+1)}); !errors.As(err, &tooLarge) || tooLarge.Code != kerr.MessageTooLarge {
		t.Errorf("oversized batch: %v", err)
	}
	_ = c.Close()
	if err := within(t, time.Second, "Recv returned", done); kerr.CodeOf(err) != kerr.NetworkException {
		t.Errorf("Recv returned %v", err)
	}
}

func TestProduceStreamFail(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Services: Services{Produce: func(p *ProduceStream) error {
		return serve(p, func(ProduceRequest) {
			p.Fail(&kerr.Error{Code: kerr.NotLeaderOrFollower, Message: "node 2 leads it", Leader: 2})
		})
	}}})
	defer closeServer(t, s)
	c, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Recv(func(ProduceResponse) {}) }()
	for range 50 { // acks=0: goes on sending until it hears
		_ = c.Send(ProduceRequest{Batch: make([]byte, 50_000)})
		_ = c.Flush()
	}
	var e *kerr.Error
	if err := within(t, 3*time.Second, "Recv returned", done); !errors.As(err, &e) || e.Code != kerr.NotLeaderOrFollower || e.Leader != 2 || e.Message != "node 2 leads it" {
		t.Errorf("Recv returned %#v", err)
	}
}

func TestFetchStream(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Node: 5, Services: Services{Fetch: func(f *FetchStream) error {
		commands := make(chan FetchCommand, 10)
		var sender sync.WaitGroup
		sender.Go(func() {
			for c := range commands {
				var err error
				switch c.Kind {
				case Subscribe:
					for n := range 20 { // mixed sizes, both ways of sending
						batches := bytes.Repeat([]byte{byte(n)}, n*20_000)
						e := FetchEvent{Subscription: c.Subscription, HighWatermark: c.Offset, LogStart: 1, Leader: id.NoNode}
						if n%2 == 0 {
							err = errors.Join(err, f.AppendRead(e, func(dst []byte) ([]byte, error) { return append(dst, batches...), nil }))
						} else {
							e.Batches = batches
							err = errors.Join(err, f.Append(e))
						}
					}
					err = errors.Join(err, f.Flush())
				case Unsubscribe:
					err = f.Send(FetchEvent{Subscription: c.Subscription, Code: kerr.NotLeaderOrFollower, Leader: 2, Epoch: 8, Message: "moved"})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
		err := f.Recv(func(c FetchCommand) error { commands <- c; return nil })
		close(commands)
		sender.Wait()
		return err
	}}})
	defer closeServer(t, s)
	c, err := new(Dialer).DialFetch(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan FetchEvent, 100)
	done := make(chan error, 1)
	go func() {
		done <- c.Recv(func(e FetchEvent) {
			e.Batches = bytes.Clone(e.Batches)
			events <- e
		})
	}()
	if err := c.Send(FetchCommand{Kind: Subscribe, Subscription: 9, Topic: topic, Partition: 4, Offset: 77, Credit: 1 << 20}, FetchCommand{Kind: Unsubscribe, Subscription: 9}); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		e := within(t, 5*time.Second, "an event", events)
		if e.Subscription != 9 || e.HighWatermark != 77 || e.LogStart != 1 || e.Leader != id.NoNode || len(e.Batches) != n*20_000 || bytes.Count(e.Batches, []byte{byte(n)}) != n*20_000 {
			t.Fatalf("event %d: %+v, %d bytes", n, FetchEvent{e.Subscription, e.Code, e.HighWatermark, e.LogStart, e.Leader, e.Epoch, e.Message, nil}, len(e.Batches))
		}
	}
	if e := within(t, time.Second, "the last event", events); e.Code != kerr.NotLeaderOrFollower || e.Leader != 2 || e.Epoch != 8 || e.Message != "moved" {
		t.Errorf("%+v", e)
	}
	_ = c.Close()
	within(t, time.Second, "Recv returned", done)
}

// adminServer answers a few calls in the ways that matter here.
type adminServer struct {
	pb.DRPCAdminUnimplementedServer
	slow    chan struct{} // DeleteTopic waits for it, or its context
	begun   atomic.Int32
	ended   atomic.Int32
	timeout atomic.Int64
}

func (a *adminServer) Metadata(ctx context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	due, _ := ctx.Deadline()
	a.timeout.Store(int64(time.Until(due)))
	return &pb.MetadataResponse{ClusterId: fmt.Sprint(r.Topics), Topics: make([]*pb.Topic, 3)}, nil
}

func (a *adminServer) CreateTopic(context.Context, *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	return nil, fmt.Errorf("create: %w", &kerr.Error{Code: kerr.NotController, Message: "node 4 is the controller", Leader: 4})
}

func (a *adminServer) DeleteTopic(ctx context.Context, _ *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	a.begun.Add(1)
	defer a.ended.Add(1)
	select {
	case <-a.slow:
		return &pb.DeleteTopicResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *adminServer) ListOffsets(context.Context, *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	panic("a secret of the server")
}

// The first call of a connection may have a large request, which arrives together with the call's name: the offsets of a thousand
// partitions are asked for with tens of kilobytes.
func TestLargeFirstCall(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Node: 1, Services: Services{Admin: &adminServer{}}})
	defer closeServer(t, s)
	d := &Dialer{}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	topic := strings.Repeat("t", 100_000)
	m, err := d.Admin(s.Addr().String()).Metadata(ctx, &pb.MetadataRequest{Topics: []string{topic}})
	if err != nil || m.ClusterId != "["+topic+"]" {
		t.Fatal(err)
	}
}

func TestAdmin(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	a := &adminServer{slow: make(chan struct{})}
	s := startServer(t, ServerOptions{Node: 1, Services: Services{Admin: a}, Logger: log.logger()})
	defer closeServer(t, s)
	d := &Dialer{}
	defer d.Close()
	client := d.Admin(s.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	m, err := client.Metadata(ctx, &pb.MetadataRequest{Topics: []string{"a", "b"}})
	if err != nil || m.ClusterId != "[a b]" {
		t.Fatal(m, err)
	}
	if left := time.Duration(a.timeout.Load()); left <= 0 || left > 2*time.Second {
		t.Errorf("the deadline did not arrive: %s left", left)
	}
	var e *kerr.Error
	if _, err := client.CreateTopic(ctx, &pb.CreateTopicRequest{}); !errors.As(err, &e) || e.Code != kerr.NotController || e.Leader != 4 || e.Message != "create: node 4 is the controller" {
		t.Errorf("%#v", err)
	}
	if _, err := client.ClusterStatus(ctx, &pb.ClusterStatusRequest{}); kerr.CodeOf(err) != kerr.UnsupportedVersion {
		t.Errorf("unimplemented: %#v", err)
	}
	if _, err := client.ListOffsets(ctx, &pb.ListOffsetsRequest{}); kerr.CodeOf(err) != kerr.Unknown || err.Error() != "internal error: see the log of node 1" {
		t.Errorf("panic: %v", err)
	}
	if log.lines() != 1 || !bytes.Contains([]byte(log.String()), []byte("a secret of the server")) {
		t.Errorf("log of a panic:\n%s", log.String())
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.DeleteTopic(short, &pb.DeleteTopicRequest{}); kerr.CodeOf(err) != kerr.RequestTimedOut {
		t.Errorf("timeout: %v", err)
	}
	eventually(t, time.Second, "the server gave up with the client", func() bool { return a.ended.Load() == 1 })
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			if _, err := client.Metadata(ctx, &pb.MetadataRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if _, err := d.Admin("127.0.0.1:1").Metadata(ctx, &pb.MetadataRequest{}); kerr.CodeOf(err) != kerr.BrokerNotAvailable {
		t.Errorf("nobody there: %v", err)
	}
}
