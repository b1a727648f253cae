package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// crowdEnv is how many connections TestGreedyCrowd has; 4000 need a limit of 10,000 open files.
const crowdEnv = "QUORUMLOG_CROWD"

// greedy is a producer that keeps far more unanswered than one may, whatever it is told.
type greedy struct {
	topic   id.Topic
	wire    []byte
	pace    time.Duration
	answers struct{ taken, throttled, other atomic.Int64 }
	ends    atomic.Int64
}

// run sends until the test ends. What is answered is sent again with the next tick.
func (g *greedy) run(address string, stop <-chan struct{}) error {
	const pipelined = 12
	d := &rpc.Dialer{ClientID: "greedy", Timeout: patience}
	c, err := d.DialProduce(context.Background(), address)
	if err != nil {
		return err
	}
	received := make(chan struct{})
	var unanswered atomic.Int64
	go func() {
		defer close(received)
		_ = c.Recv(func(r rpc.ProduceResponse) {
			unanswered.Add(-1)
			switch r.Code {
			case kerr.None:
				g.answers.taken.Add(1)
			case kerr.ThrottlingQuotaExceeded:
				g.answers.throttled.Add(1)
			default:
				g.answers.other.Add(1)
			}
		})
	}()
	defer func() {
		_ = c.Close()
		<-received
	}()
	tick := time.NewTicker(g.pace)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-received:
			g.ends.Add(1)
			return nil
		case <-tick.C:
		}
		for unanswered.Load() < pipelined {
			unanswered.Add(1)
			if c.Send(rpc.ProduceRequest{Topic: g.topic, Acks: rpc.AcksAll, Batch: g.wire}) != nil {
				break
			}
		}
		_ = c.Flush()
	}
}

// leak opens connections of each kind that clients leak, and keeps them open: what the node closes is opened again.
func leak(address string, n int, stop <-chan struct{}) {
	beginning := drpcwire.AppendFrame(nil, drpcwire.Frame{ID: drpcwire.ID{Stream: 1, Message: 2}, Kind: drpcwire.KindMessage, Data: make([]byte, 64<<10)})
	says := [][]byte{
		nil, // nothing
		invoke("/quorumlog.Log/Produce"),
		join(invoke("/quorumlog.Admin/CreateTopic"), beginning, beginning, beginning, beginning), // most of a large request
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					if i%4 == 3 { // an idle client that goes on saying that it is there
						_ = conn.Close()
						leakIdle(address, stop)
						return
					}
					_, _ = conn.Write(says[i%4])
					closed := make(chan struct{})
					go func() {
						defer close(closed)
						_, _ = io.Copy(io.Discard, conn)
					}()
					select {
					case <-closed:
					case <-stop:
					}
					_ = conn.Close()
					<-closed
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
			}
		})
	}
	all.Wait()
}

// leakIdle is a producer that has nothing to say.
func leakIdle(address string, stop <-chan struct{}) {
	c, err := (&rpc.Dialer{ClientID: "idle", Timeout: patience}).DialProduce(context.Background(), address)
	if err != nil {
		return
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		_ = c.Recv(func(rpc.ProduceResponse) {})
	}()
	select {
	case <-stop:
	case <-received:
	}
	_ = c.Close()
	<-received
}

// scrape returns the values of a node's metrics whose names begin with a prefix.
func scrape(t *testing.T, address, prefix string) map[string]float64 {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[strings.TrimPrefix(name, "quorumlog_")] = v
		}
	}
	return values
}

// TestGreedyCrowd has half of many connections leaked and the other half greedy: a healthy producer and a consumer are served beside them, and
// the node's memory stays within its bounds.
func TestGreedyCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	n, lasts := 120, 3*time.Second
	if text := os.Getenv(crowdEnv); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		lasts = 30 * time.Second
	}
	ctx := testContext(t)
	d := launch(t, founderArgs(t, t.TempDir(), 1, "--metrics", "127.0.0.1:0", "--log-level", "info", "--max-produce-mb", "1", "--cache-mb", "32")...)
	port, _, metrics := d.ports()
	c := newClient(t, port)
	makeTopic(t, c, client.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1})
	makeTopic(t, c, client.TopicSpec{Name: "theirs", Partitions: 1, ReplicationFactor: 1})
	admin := new(rpc.Dialer)
	defer admin.Close()
	m, err := admin.Admin(port).Metadata(ctx, &pb.MetadataRequest{Topics: []string{"theirs"}})
	if err != nil {
		t.Fatal(err)
	}
	service, err := produceSteadily(ctx, []string{port}, "t")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "service", func() bool { return service.records.Load() > 20 })
	pid := d.command.Process.Pid
	before, linesBefore := memory(t, pid, "VmRSS"), len(d.errout.lines(""))

	var b batch.Builder
	b.Append(batch.Record{Timestamp: time.Now().UnixMilli(), Value: make([]byte, 8<<10)})
	wire, err := b.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		t.Fatal(err)
	}
	g := &greedy{topic: id.Topic(m.GetTopics()[0].GetId()), wire: wire, pace: 100 * time.Millisecond * time.Duration(max(n/120, 1))}
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { leak(port, n/2, stop) })
	for range n / 2 {
		all.Go(func() {
			if err := g.run(port, stop); err != nil {
				t.Errorf("a greedy producer: %v", err)
			}
		})
	}
	eventually(t, "the crowd", func() bool { return scrape(t, metrics, "quorumlog_connections")["connections"] > float64(n)*0.7 })
	eventually(t, "greed", func() bool { return g.answers.throttled.Load() > 100 && g.answers.taken.Load() > 100 })
	service.longest.Store(0)
	begun, served := time.Now(), service.records.Load()
	eventually(t, "service beside them", func() bool { return service.records.Load() > served+100 && time.Since(begun) > lasts })
	took, records := time.Since(begun), service.records.Load()-served
	seen := scrape(t, metrics, "quorumlog_")
	after := memory(t, pid, "VmHWM")
	close(stop)
	all.Wait()
	close(service.stop)
	if err := <-service.done; err != nil {
		t.Errorf("the service failed: %v", err)
	}
	longest := time.Duration(service.longest.Load())
	t.Logf("%d connections: %d records of the healthy within %v, longest pause %v; greedy: %d taken, %d throttled, %d other, %d ended; memory %d -> %d MiB; %d lines",
		n, records, took.Round(time.Millisecond), longest.Round(time.Millisecond), g.answers.taken.Load(), g.answers.throttled.Load(), g.answers.other.Load(),
		g.ends.Load(), before>>20, after>>20, len(d.errout.lines(""))-linesBefore)
	for _, name := range []string{"connections", "connections_refused_total", "connections_dropped_total", "connections_evicted_total", "calls_refused_total",
		"produce_in_flight_bytes", "produce_refused_in_flight_total"} {
		t.Logf("%s %v", name, seen[name])
	}
	if longest > 5*time.Second {
		t.Errorf("the service stood still for %v", longest)
	}
	if most := int64(150+n/5) << 20; after-before > most { // 100 KiB and a half for each connection: drpc's buffers, and goroutines
		t.Errorf("memory went up from %d to %d MiB", before>>20, after>>20)
	}
	if seen["produce_refused_in_flight_total"] == 0 {
		t.Error("nobody was throttled for the node's bound")
	}
	if lines := len(d.errout.lines("")) - linesBefore; lines > 20*(int(took/time.Second)+10) {
		t.Errorf("%d connections cost %d lines", n, lines)
	}
	if !d.alive() {
		t.Fatal("the node is gone")
	}
	d.terminate()
}
