package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// stranger is somebody who connects to a port and says what does not belong there.
type stranger struct {
	name  string
	port  string // tcp address
	say   []byte
	flood bool          // goes on with zeros for as long as they are taken
	limit time.Duration // to be hung up on
}

const (
	gib = 1 << 30
	// soon bounds what is wrong at first sight, silent what must show itself in time, and idle what looks like a client that died.
	soon   = 3 * time.Second
	silent = 8 * time.Second
	idle   = 16 * time.Second
)

func wireFrame(kind drpcwire.Kind, message uint64, data []byte) []byte {
	return drpcwire.AppendFrame(nil, drpcwire.Frame{ID: drpcwire.ID{Stream: 1, Message: message}, Kind: kind, Data: data, Done: true})
}

// claim is the header of a drpc frame that promises n bytes.
func claim(kind drpcwire.Kind, message, n uint64) []byte {
	b := []byte{byte(kind)<<1 | 1}
	for _, v := range []uint64{1, message, n} {
		b = drpcwire.AppendVarint(b, v)
	}
	return b
}

func invoke(name string) []byte { return wireFrame(drpcwire.KindInvoke, 1, []byte(name)) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func noise(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	b[0] = first
	return b
}

// anywhere is what strangers say on any port.
func anywhere(port string) []stranger {
	tlsHello := append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise(506, 7)...)
	kafka := append([]byte{0, 0, 0, 40, 0, 18, 0, 3, 0, 0, 0, 1, 0, 8}, "consumer and some more bytes of it"...)
	return []stranger{
		{"silence", port, nil, false, silent},
		{"one byte", port, []byte{1}, false, silent},
		{"noise", port, noise(4096, 0xff), false, silent},
		{"tls", port, tlsHello, false, silent},
		{"kafka", port, kafka, false, silent},
		{"ssh", port, []byte("SSH-2.0-OpenSSH_9.7\r\n"), false, silent},
		{"1 GiB, big endian", port, binary.BigEndian.AppendUint32(nil, gib), true, silent},
		{"1 GiB, little endian", port, binary.LittleEndian.AppendUint32(nil, gib), true, silent},
		{"zeros", port, make([]byte, 4096), true, silent},
	}
}

// onRPC are the strangers of the rpc port. Those of spoken say what a client or node says, and then nothing more, or garbage.
func onRPC(port string, spoken map[string][]byte) []stranger {
	list := append(anywhere(port), []stranger{
		{"http", port, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false, soon},
		{"drpc's magic, then noise", port, append([]byte("DRPC!!!1"), noise(4096, 0xff)...), false, soon},
		{"drpc's magic, then silence", port, []byte("DRPC!!!1"), false, silent},
		{"1 GiB name", port, claim(drpcwire.KindInvoke, 1, gib), true, soon},
		{"half a name", port, append(claim(drpcwire.KindInvoke, 1, 20), "/quorumlog"...), false, silent},
		{"1 GiB metadata", port, claim(drpcwire.KindInvokeMetadata, 1, gib), true, soon},
		{"unknown call", port, invoke("/quorumlog.Admin/Explode"), false, silent},
		{"call without request", port, invoke("/quorumlog.Admin/Metadata"), false, silent},
		{"1 GiB request", port, join(invoke("/quorumlog.Admin/CreateTopic"), claim(drpcwire.KindMessage, 2, gib)), true, soon},
		{"noise for a request", port, join(invoke("/quorumlog.Admin/CreateTopic"), wireFrame(drpcwire.KindMessage, 2, noise(3000, 0xff))), false, idle},
	}...)
	for _, name := range []string{"/quorumlog.Peer/Lane", "/quorumlog.Log/Produce", "/quorumlog.Log/Fetch"} {
		list = append(list, []stranger{
			{name + ", then silence", port, invoke(name), false, silent},
			{name + ", then 1 GiB", port, join(invoke(name), claim(drpcwire.KindMessage, 2, gib)), true, soon},
			{name + ", then noise", port, join(invoke(name), wireFrame(drpcwire.KindMessage, 2, noise(3000, 1))), false, soon},
		}...)
	}
	for name, said := range spoken {
		list = append(list, []stranger{
			{name + " in full, then silence", port, said, false, idle},
			{name + " in full, then 1 GiB", port, join(said, claim(drpcwire.KindMessage, 3, gib)), true, soon},
			{name + " in full, then noise", port, join(said, wireFrame(drpcwire.KindMessage, 3, noise(3000, 1))), false, soon},
			{name + " in full, then a frame of 1 GiB", port, join(said, wireFrame(drpcwire.KindMessage, 3, []byte{0, 0, 0, 0x40, 1, 2, 3})), true, soon},
		}...)
	}
	return list
}

// Gossip's messages are a byte of type and msgpack behind a label.
const (
	gossipPing     = 0
	gossipAlive    = 4
	gossipPushPull = 6
)

func label(cluster string) []byte { return append([]byte{244, byte(len(cluster))}, cluster...) }

func packText(s string) []byte { return append([]byte{0xa0 | byte(len(s))}, s...) }

func packMap(n int) []byte { return []byte{0x80 | byte(n)} }

// pushPull is the head of an exchange of states.
func pushPull(nodes, userState uint32) []byte {
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0xce}, n) }
	return join([]byte{gossipPushPull}, packMap(3), packText("Nodes"), number(nodes), packText("UserStateLen"), number(userState), packText("Join"), []byte{0xc3})
}

// hugeText is a field whose value claims 1 GiB.
func hugeText(field string) []byte { return join(packText(field), []byte{0xdb, 0x40, 0, 0, 0}) }

func onGossip(port, cluster string) []stranger {
	ours := label(cluster)
	return append(anywhere(port), []stranger{
		{"http", port, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false, silent},
		{"another cluster", port, join(label("another"), pushPull(1, 0)), false, silent},
		{"half a label", port, ours[:4], false, silent},
		{"a label", port, ours, false, silent},
		{"a label, then noise", port, join(ours, noise(4096, 99)), false, silent},
		{"half a push/pull", port, join(ours, pushPull(3, 0)), false, silent},
		{"push/pull of a thousand million nodes", port, join(ours, pushPull(gib, 0)), true, silent},
		{"push/pull with 1 GiB of user state", port, join(ours, pushPull(0, gib)), true, silent},
		{"push/pull with 1 GiB of name", port, join(ours, pushPull(1, 0), packMap(8), hugeText("Name")), true, silent},
		{"push/pull with 1 GiB of key", port, join(ours, pushPull(1, 0), packMap(8), []byte{0xdb, 0x40, 0, 0, 0}), true, silent},
		{"push/pull with 1 GiB of meta", port, join(ours, pushPull(1, 0), packMap(8), packText("Meta"), []byte{0xc6, 0x40, 0, 0, 0}), true, silent},
		{"push/pull with 1 Gi elements", port, join(ours, pushPull(1, 0), packMap(8), packText("Vsn"), []byte{0xdd, 0x40, 0, 0, 0}), true, silent},
		{"push/pull of a map of 1 Gi", port, join(ours, pushPull(1, 0), []byte{0xdf, 0x40, 0, 0, 0}), true, silent},
		{"ping with 1 GiB of name", port, join(ours, []byte{gossipPing}, packMap(4), hugeText("Node")), true, silent},
		{"half a ping", port, join(ours, []byte{gossipPing}, packMap(4)), false, silent},
		{"compressed", port, join(ours, []byte{9}, packMap(2), packText("Algo"), []byte{0}, hugeText("Buf")), true, silent},
		{"encrypted", port, join(ours, []byte{10, 0x40, 0, 0, 0}), true, silent},
		{"user message", port, join(ours, []byte{8}, packMap(1), packText("UserMsgLen"), []byte{0xce, 0x40, 0, 0, 0}), true, silent},
	}...)
}

// packets are datagrams for the gossip port.
func packets(cluster string) [][]byte {
	ours := label(cluster)
	list := [][]byte{
		{}, {0}, noise(1400, 0xff), noise(60000, 0xff), ours, join(label("another"), []byte{gossipPing}), join(ours, noise(1400, 99)),
		join(ours, []byte{7, 255}), join(ours, []byte{7, 1, 0xff, 0xff, gossipAlive}), join(ours, []byte{12, 1, 2, 3, 4, gossipAlive}),
		join(ours, []byte{9}, packMap(2), packText("Algo"), []byte{0}, hugeText("Buf")), join(ours, []byte{10}, noise(200, 0)),
	}
	for kind := byte(0); kind <= 13; kind++ {
		body := join([]byte{kind}, packMap(8), hugeText("Node"))
		list = append(list, join(ours, body), join(ours, []byte{kind}, packMap(8), packText("Meta"), []byte{0xc6, 0x40, 0, 0, 0}),
			join(ours, []byte{kind}, packMap(8), packText("Vsn"), []byte{0xdd, 0x40, 0, 0, 0}), join(ours, []byte{kind}), join(ours, []byte{kind}, noise(300, 0xc1)),
			join(ours, []byte{7, 1, 0, byte(len(body))}, body))
	}
	return list
}

func onMetrics(port string) []stranger {
	return append(anywhere(port), []stranger{
		{"half a request", port, []byte("GET /metrics HT"), false, silent},
		{"headers without end", port, []byte("GET /metrics HTTP/1.1\r\nX: "), true, silent},
		{"1 GiB body", port, []byte("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n"), true, silent},
		{"1 GiB chunk", port, []byte("GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n"), true, silent},
		{"a name without end", port, append([]byte("GET /"), bytes.Repeat([]byte("x"), 1<<20)...), true, silent},
		{"http/2", port, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), false, silent},
	}...)
}

// visit says what a stranger says and waits until it is hung up on. It returns how many bytes were taken.
func (s stranger) visit() (sent int64, err error) {
	conn, err := net.Dial("tcp", s.port)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begin := time.Now()
	_ = conn.SetDeadline(begin.Add(s.limit))
	hungUp := make(chan error, 1)
	go func() { hungUp <- drain(conn) }() // answers are read, or they would reset the connection before its time
	n, err := conn.Write(s.say)
	sent = int64(n)
	for zeros := make([]byte, 64<<10); s.flood && err == nil; {
		n, err = conn.Write(zeros)
		sent += int64(n)
	}
	if isTimeout(<-hungUp) {
		return sent, fmt.Errorf("still open after %v", time.Since(begin).Round(time.Millisecond))
	}
	return sent, nil
}

// recording is a proxy that notes what the client says.
type recording struct {
	listener net.Listener
	mu       sync.Mutex
	said     []byte
}

func record(t *testing.T, to string) *recording {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{listener: listener}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		from, err := listener.Accept() // the first connection is the one
		if err != nil {
			return
		}
		onward, err := net.Dial("tcp", to)
		if err != nil {
			_ = from.Close()
			return
		}
		go func() {
			buffer := make([]byte, 4096)
			for {
				n, err := onward.Read(buffer)
				_, _ = from.Write(buffer[:n])
				if err != nil {
					_ = from.Close()
					return
				}
			}
		}()
		buffer := make([]byte, 4096)
		for {
			n, err := from.Read(buffer)
			r.mu.Lock()
			r.said = append(r.said, buffer[:n]...)
			r.mu.Unlock()
			_, _ = onward.Write(buffer[:n])
			if err != nil {
				_ = onward.Close()
				return
			}
		}
	}()
	return r
}

// end stops the recording and returns what was said until then.
func (r *recording) end() []byte {
	_ = r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.said)
}

// spoken records how streams begin: everything up to the first request.
func spoken(t *testing.T, port, clusterID string) map[string][]byte {
	t.Helper()
	said := make(map[string][]byte)
	ctx := testContext(t)
	r := record(t, port)
	produce, err := new(rpc.Dialer).DialProduce(ctx, r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	said["produce"] = r.end()
	_ = produce.Close()
	r = record(t, port)
	fetch, err := new(rpc.Dialer).DialFetch(ctx, r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	said["fetch"] = r.end()
	_ = fetch.Close()
	r = record(t, port)
	peers, err := rpc.NewPeers(rpc.PeerOptions{
		Self:      rpc.PeerHello{ClusterID: clusterID, Node: 77, Boot: 1},
		Resolve:   func(id.Node) []string { return []string{r.listener.Addr().String()} },
		Up:        func(id.Node) {},
		Down:      func(id.Node) {},
		BulkLanes: 1, Ping: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer peers.Close()
	peers.Reset(1)
	eventually(t, "the recording of a lane", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.said) > 40 })
	said["lane"] = r.end()
	return said
}

// memory reads a line such as VmRSS or VmHWM of /proc/PID/status, in bytes.
func memory(t *testing.T, pid int, line string) int64 {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Skipf("no memory of processes here: %v", err)
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in %s", line, status)
	return 0
}

// steady produces and reads one record after the other until it is stopped.
type steady struct {
	records atomic.Int64
	longest atomic.Int64 // nanoseconds between two that were read
	stop    chan struct{}
	done    chan error
}

func produceSteadily(ctx context.Context, servers []string, topic string) (*steady, error) {
	c, err := client.New(client.Options{Servers: servers})
	if err != nil {
		return nil, err
	}
	s := &steady{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer c.Close()
		s.done <- s.run(ctx, c, topic)
	}()
	return s, nil
}

func (s *steady) run(ctx context.Context, c *client.Client, topic string) error {
	producer, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		return err
	}
	consumer, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	defer consumer.Close()
	if err := consumer.Assign(id.TopicPartition{Topic: topic}, client.Beginning); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-s.stop:
			return producer.Close(ctx)
		case <-tick.C:
		}
		acked := make(chan error, 1)
		if err := producer.Produce(ctx, client.Record{Topic: topic, Partition: client.At(0), Value: []byte("steady")}, func(a client.Ack) { acked <- a.Err }); err != nil {
			return err
		}
		if err := <-acked; err != nil {
			return err
		}
		for read := 0; read == 0; {
			fetch, err := consumer.Poll(ctx)
			if err != nil {
				return err
			}
			for _, err := range fetch.Records() {
				if err != nil {
					return err
				}
				read++
			}
		}
		s.records.Add(1)
		now := time.Now()
		s.longest.Store(max(s.longest.Load(), int64(now.Sub(last))))
		last = now
	}
}

// TestStrangers lets strangers loose on every port of a node, all kinds at once and several of each: each is hung up on, costs a line of the log at most
// and no memory, and the node serves all the while.
func TestStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	const each = 3 // strangers of a kind
	ctx := testContext(t)
	dir := t.TempDir()
	d := launch(t, founderArgs(t, dir, 1, "--metrics", "127.0.0.1:0", "--log-level", "info")...)
	port, gossip, metrics := d.ports()
	admin := new(rpc.Dialer)
	defer admin.Close()
	var clusterID string
	eventually(t, "a topic", func() bool {
		_, err := admin.Admin(port).CreateTopic(ctx, &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 1})
		return err == nil
	})
	m, err := admin.Admin(port).Metadata(ctx, &pb.MetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	clusterID = m.GetClusterId()
	cluster := "test-" + filepath.Base(dir)
	all := append(append(onRPC(port, spoken(t, port, clusterID)), onGossip(gossip, cluster)...), onMetrics(metrics)...)
	service, err := produceSteadily(ctx, []string{port}, "t")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "service", func() bool { return service.records.Load() > 20 })
	pid := d.command.Process.Pid
	before, linesBefore := memory(t, pid, "VmHWM"), len(d.errout.lines(""))

	var strangers sync.WaitGroup
	var slowest sync.Map
	for _, s := range all {
		for range each {
			strangers.Go(func() {
				begin := time.Now()
				sent, err := s.visit()
				if err != nil {
					t.Errorf("%s %s: %v", s.port, s.name, err)
				}
				if sent > 64<<20 {
					t.Errorf("%s %s: the node took %d MiB", s.port, s.name, sent>>20)
				}
				slowest.Store(s.port+" "+s.name, time.Since(begin))
			})
		}
	}
	sentPackets := sendPackets(t, gossip, packets(cluster), each)
	strangers.Wait()
	served := service.records.Load()
	eventually(t, "service to go on", func() bool { return service.records.Load() > served+20 })
	close(service.stop)
	if err := <-service.done; err != nil {
		t.Errorf("the service failed: %v", err)
	}
	if longest := time.Duration(service.longest.Load()); longest > 3*time.Second {
		t.Errorf("the service stood still for %v", longest)
	}
	after, lines := memory(t, pid, "VmHWM"), d.errout.lines("")
	t.Logf("%d strangers, %d packets, %d records, longest pause %v, memory %d -> %d MiB, %d lines", each*len(all), sentPackets, service.records.Load(),
		time.Duration(service.longest.Load()).Round(time.Millisecond), before>>20, after>>20, len(lines)-linesBefore)
	if after-before > 100<<20 {
		t.Errorf("memory went up from %d to %d MiB", before>>20, after>>20)
	}
	if n := len(lines) - linesBefore; n > each*len(all) {
		t.Errorf("%d strangers cost %d lines", each*len(all), n)
	}
	if !d.alive() {
		t.Fatal("the node is gone")
	}
	d.terminate()
}

// sendPackets sends each datagram n times and returns how many it sent.
func sendPackets(t *testing.T, to string, datagrams [][]byte, n int) int {
	t.Helper()
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := 0
	for range n {
		for _, b := range datagrams {
			if _, err := conn.Write(b); err != nil {
				t.Errorf("datagram of %d bytes: %v", len(b), err)
			}
			sent++
		}
	}
	return sent
}

// TestCrowd has more silent connections to every port than the process may have files: the node keeps enough of them for its data, and serves those
// who come while others are hung up on.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	if runtime.GOOS == "windows" {
		t.Skip("no limit of files")
	}
	t.Parallel()
	const files, crowd = 400, 500
	ctx := testContext(t)
	args := founderArgs(t, t.TempDir(), 1, "--metrics", "127.0.0.1:0", "--segment-mb", "1")
	d := start(t, exec.Command("/bin/sh", append([]string{"-c", `ulimit -n ` + strconv.Itoa(files) + ` && exec "$0" "$@"`, buildBinary(t)}, args...)...))
	port, gossip, metrics := d.ports()
	c := newClient(t, port)
	makeTopic(t, c, client.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1})
	service, err := produceSteadily(ctx, []string{port}, "t")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "service", func() bool { return service.records.Load() > 5 })
	lines := len(d.errout.lines(""))
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for _, address := range []string{port, gossip, metrics} {
		for range crowd {
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
			if err != nil {
				continue // no more room in the queue of the port
			}
			conns = append(conns, conn)
		}
	}
	makeTopic(t, c, client.TopicSpec{Name: "while-crowded", Partitions: 8, ReplicationFactor: 1}) // takes files
	produceNumbers(t, c, "while-crowded", 0, 1000)
	var open atomic.Int64
	open.Store(int64(len(conns)))
	for _, conn := range conns {
		go func() {
			_ = drain(conn)
			open.Add(-1)
		}()
	}
	if !inTime(20*time.Second, func() bool { return open.Load() == 0 }) {
		t.Errorf("%d of %d silent connections are still open", open.Load(), len(conns))
	}
	served := service.records.Load()
	eventually(t, "service to go on", func() bool { return service.records.Load() > served+20 })
	close(service.stop)
	if err := <-service.done; err != nil {
		t.Errorf("the service failed: %v", err)
	}
	readNumbers(t, c, "while-crowded", 1000)
	said := d.errout.lines("")[lines:]
	t.Logf("%d silent connections, %d records, %d lines, longest pause %v", len(conns), service.records.Load(), len(said), time.Duration(service.longest.Load()).Round(time.Millisecond))
	if len(said) > len(conns) {
		t.Errorf("%d connections cost %d lines", len(conns), len(said))
	}
	d.terminate()
}
