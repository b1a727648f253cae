package node_test

import (
	"context"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// sickCluster is three nodes on simulated disks, a topic with replicas on all, and producers for each of its partitions.
type sickCluster struct {
	*nodetest.Cluster
	t      *testing.T
	client *client.Client
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	acked [partitions]int
	last  [partitions]time.Time
	gap   [partitions]time.Duration
	err   error
}

const (
	topic      = "t"
	partitions = 6
)

func startSick(t *testing.T) *sickCluster {
	t.Helper()
	c := &sickCluster{Cluster: nodetest.StartSimulated(t, 3, 1), t: t}
	var err error
	if c.client, err = client.New(client.Options{Servers: c.Servers()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.client.Close() })
	nodetest.Eventually(t, "three voters of the metadata", func() bool {
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && len(status.GetMetadata().GetVoters()) == 3
	})
	if err := c.client.Admin().CreateTopic(c.Context(), client.TopicSpec{Name: topic, Partitions: partitions, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "each node to lead two partitions", func() bool { return c.leads(0) == 2 && c.leads(1) == 2 && c.leads(2) == 2 })
	return c
}

// status is what a node says of itself.
func (c *sickCluster) status(i int) *pb.NodeStatus {
	s, err := c.Admin(i).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
	if err != nil {
		return nil
	}
	for _, n := range s.GetNodes() {
		if n.GetNode().GetId() == int32(i+1) {
			return n
		}
	}
	return nil
}

func (c *sickCluster) leads(i int) int { return int(c.status(i).GetPartitionsLed()) }

// fill leaves a disk less than the reserve, and more than anything here needs.
func (c *sickCluster) fill(i int) { c.Disk(i).SetCapacity(c.Disk(i).Used() + 100<<20) }

func (c *sickCluster) empty(i int) { c.Disk(i).SetCapacity(0) }

// hang has the writes of a node's log wait until the returned function is called.
func (c *sickCluster) hang(i int) (release func()) {
	hung := make(chan struct{})
	dir := c.Nodes[i].Options.DataDir
	c.Disk(i).SetHook(func(op disksim.Op) error {
		if d := path.Dir(op.Name); !op.Pebble && op.Kind == disksim.OpWrite && (d == dir+"/journal" || path.Dir(d) == dir+"/logs") {
			<-hung
		}
		return nil
	})
	release = sync.OnceFunc(func() {
		c.Disk(i).SetHook(nil)
		close(hung)
	})
	c.t.Cleanup(release) // before the cluster's, which could not stop
	return release
}

// produce produces numbers to each partition until stop.
func (c *sickCluster) produce() {
	p, err := c.client.NewProducer(client.ProducerOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(c.Context())
	for n := range partitions {
		c.last[n] = time.Now()
		c.done.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				value := strconv.AppendInt(nil, int64(i), 10)
				if err := p.Produce(c.Context(), client.Record{Topic: topic, Partition: client.At(id.Partition(n)), Value: value}, func(a client.Ack) { c.ack(n, a) }); err != nil {
					return
				}
				<-tick.C
			}
		})
	}
	stop := c.cancel
	c.cancel = func() {
		stop()
		c.done.Wait()
		if err := p.Close(c.Context()); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *sickCluster) ack(n int, a client.Ack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if a.Err != nil {
		c.err = a.Err
		return
	}
	c.gap[n] = max(c.gap[n], now.Sub(c.last[n]))
	c.last[n] = now
	c.acked[n]++
}

// more waits until each partition has taken so many more records.
func (c *sickCluster) more(records int) {
	c.t.Helper()
	c.mu.Lock()
	before := c.acked
	c.mu.Unlock()
	nodetest.Eventually(c.t, "records in each partition", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for n := range before {
			if c.acked[n] < before[n]+records {
				return false
			}
		}
		return true
	})
}

// stop ends the producers and checks that all records are there, once and in order.
func (c *sickCluster) stop() {
	c.t.Helper()
	c.cancel()
	if c.err != nil {
		c.t.Errorf("a record failed: %v", c.err)
	}
	c.t.Logf("acknowledged: %v; longest time without: %v", c.acked, c.gap)
	c.read()
}

func (c *sickCluster) read() {
	c.t.Helper()
	consumer, err := c.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	left := 0
	var next [partitions]int
	for n := range partitions {
		left += c.acked[n]
		if err := consumer.Assign(id.TopicPartition{Topic: topic, Partition: id.Partition(n)}, client.Beginning); err != nil {
			c.t.Fatal(err)
		}
	}
	for left > 0 {
		fetch, err := consumer.Poll(c.Context())
		if err != nil {
			c.t.Fatalf("%d records are missing: %v", left, err)
		}
		for r, err := range fetch.Records() {
			if err != nil {
				c.t.Fatal(err)
			}
			if want := strconv.Itoa(next[r.Partition]); string(r.Value) != want {
				c.t.Fatalf("partition %d has %s where %s belongs", r.Partition, r.Value, want)
			}
			next[r.Partition]++
			left--
		}
	}
}

// TestFullNodeGivesUp fills the disk of a node that leads: the others lead at once, producers and consumers notice nothing, the node says
// what is wrong, is given nothing by the balancer, and leads what it should when there is space again.
func TestFullNodeGivesUp(t *testing.T) {
	t.Parallel()
	c := startSick(t)
	c.produce()
	c.more(10)
	c.fill(1)
	nodetest.Eventually(t, "node 2 to lead nothing", func() bool { return c.leads(1) == 0 })
	s := c.status(1)
	if s.GetState() != "disk full" || s.GetAcceptsProduce() || !strings.Contains(s.GetErrorMessage(), "free some space") {
		t.Errorf("it says: %v", s)
	}
	c.more(200) // more than a second, and two looks of the balancer
	if n := c.leads(1); n != 0 {
		t.Errorf("it was given %d partitions", n)
	}
	if s := c.status(2); s.GetState() != "ready" || !s.GetAcceptsProduce() || s.GetErrorMessage() != "" {
		t.Errorf("another node says: %v", s)
	}
	admin := c.client.Admin()
	for name, replicas := range map[string]int{"few": 2, "many": 3} { // one that does not need the full node, and one that does
		if err := admin.CreateTopic(c.Context(), client.TopicSpec{Name: name, Partitions: 4, ReplicationFactor: replicas}); err != nil {
			t.Fatal(err)
		}
		described, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{Topics: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range described.GetTopics()[0].GetPartitions() {
			if slices.Contains(p.GetReplicas(), 2) != (replicas == 3) {
				t.Errorf("a partition of topic %s is on %v", name, p.GetReplicas())
			}
		}
		if err := admin.DeleteTopic(c.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	c.empty(1)
	nodetest.Eventually(t, "node 2 to lead again", func() bool { return c.leads(1) == 2 })
	c.more(10)
	c.stop()
	for n, gap := range c.gap {
		if gap > 5*time.Second { // what is checked to the tenth of a second in raftgroup; here the machine is busy
			t.Errorf("partition %d took nothing for %v", n, gap)
		}
	}
}

// TestHungNodeGivesUp has the disk of a node that leads hang, controller included: others lead within two seconds, and producers are
// answered until then. It comes back by itself.
func TestHungNodeGivesUp(t *testing.T) {
	t.Parallel()
	c := startSick(t)
	c.produce()
	c.more(10)
	release := c.hang(0)
	begin := time.Now()
	nodetest.Eventually(t, "node 1 to lead nothing", func() bool { return c.leads(0) == 0 })
	t.Logf("it led nothing after %v", time.Since(begin))
	nodetest.Eventually(t, "another controller", func() bool {
		s, err := c.Admin(1).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && s.GetController() > 1
	})
	if s := c.status(0); s.GetState() != "disk stalled" || s.GetAcceptsProduce() || !strings.Contains(s.GetErrorMessage(), "does not answer") ||
		!strings.Contains(s.GetErrorMessage(), c.Nodes[0].Options.DataDir) {
		t.Errorf("it says: %v", s)
	}
	c.more(200)
	if n := c.leads(0); n != 0 {
		t.Errorf("it was given %d partitions", n)
	}
	release()
	nodetest.Eventually(t, "node 1 to lead again", func() bool { return c.leads(0) == 2 })
	c.more(10)
	c.stop()
	for n, gap := range c.gap {
		if gap > 5*time.Second {
			t.Errorf("partition %d took nothing for %v", n, gap)
		}
	}
}

// console returns what the metrics port of a node says on a path.
func (c *sickCluster) console(i int, path string) (code int, text string) {
	c.t.Helper()
	r, err := http.Get("http://" + c.status(i).GetMetricsAddress() + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestBadDiskIsSaid: whoever balances load by /readyz, alarms on gauges or reads logs learns of a bad disk, how it is bad, and of
// its end.
func TestBadDiskIsSaid(t *testing.T) {
	t.Parallel()
	c := startSick(t)
	c.produce()
	const well = "ready\n"
	said := func(ready, full, stalled, log string) {
		t.Helper()
		nodetest.Eventually(t, "the node to say that it is "+log, func() bool {
			code, text := c.console(1, "/readyz")
			_, metrics := c.console(1, "/metrics")
			return (code == http.StatusOK) == (ready == well) && strings.Contains(text, ready) &&
				strings.Contains(metrics, "\nquorumlog_disk_full "+full+"\n") && strings.Contains(metrics, "\nquorumlog_disk_stalled "+stalled+"\n") &&
				strings.Contains(metrics, "\nquorumlog_ready "+strconv.Itoa(one(ready == well))+"\n") && strings.Contains(c.Log(), log)
		})
	}
	said(well, "0", "0", "")
	c.fill(1)
	said("free some space", "1", "0", "the disk is full: the node takes no records")
	c.empty(1)
	said(well, "0", "0", "the disk is well: the node takes records and leaderships again")
	release := c.hang(1)
	said("disk does not answer", "0", "1", "the disk does not answer: the node hands over what it leads")
	release()
	said(well, "0", "0", "")
	c.stop()
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestAllNodesFull: with all disks full everything has its leader, is read, and records and topics can be deleted; the nodes stop and start again,
// and go on when there is space.
func TestAllNodesFull(t *testing.T) {
	t.Parallel()
	c := startSick(t)
	c.produce()
	c.more(10)
	c.cancel()
	full := func(i int) bool { return c.status(i).GetState() == "disk full" }
	for i := range 3 {
		c.fill(i)
	}
	nodetest.Eventually(t, "all nodes to be full", func() bool { return full(0) && full(1) && full(2) })
	led := func() int { return c.leads(0) + c.leads(1) + c.leads(2) }
	nodetest.Eventually(t, "everything to be led", func() bool { return led() == partitions })
	c.read()
	for i := range 3 {
		c.StopNode(i)
	}
	for i := range 3 {
		c.StartNode(i)
	}
	for i := range 3 {
		c.AwaitReady(i)
	}
	nodetest.Eventually(t, "everything to be led again", func() bool { return led() == partitions })
	c.read()
	all := client.TopicPartition{Topic: topic, Partition: 0}
	if d, err := c.client.Admin().DeleteRecords(c.Context(), map[client.TopicPartition]client.Offset{all: client.End}); err != nil || d[0].LowWatermark == 0 {
		t.Errorf("deleting records with all disks full: %v, %v", d, err)
	}
	if err := c.client.Admin().DeleteTopic(c.Context(), topic); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "the replicas to be gone", func() bool {
		return c.status(0).GetReplicas()+c.status(1).GetReplicas()+c.status(2).GetReplicas() == 0
	})
	for i := range 3 {
		c.empty(i)
	}
	nodetest.Eventually(t, "all nodes to be well", func() bool {
		return c.status(0).GetState() == "ready" && c.status(1).GetState() == "ready" && c.status(2).GetState() == "ready"
	})
}

// TestReadyMeansLeaders: a node that hears of no leader of what it holds is not ready, whatever it held before.
func TestReadyMeansLeaders(t *testing.T) {
	c := startSick(t)
	said := func(code int, text string) {
		t.Helper()
		nodetest.Eventually(t, "the node to say "+text, func() bool {
			got, said := c.console(0, "/readyz")
			return got == code && strings.Contains(said, text)
		})
	}
	said(http.StatusOK, "ready")
	c.StopNode(1)
	said(http.StatusOK, "ready")
	c.CrashNode(2, nodetest.Kill)
	said(http.StatusServiceUnavailable, "no leader")
	c.StartNode(1)
	said(http.StatusOK, "ready")
}
