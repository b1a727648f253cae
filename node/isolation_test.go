package node_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// traffic is one producer and one consumer that go on through everything, and when each partition was last heard of by either.
type traffic struct {
	mu       sync.Mutex
	acked    [partitions]time.Time
	consumed [partitions]time.Time
	errs     []error
}

func (tr *traffic) note(at *[partitions]time.Time, p id.Partition) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	at[p] = time.Now()
}

func (tr *traffic) failed(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.errs = append(tr.errs, err)
}

// since tells whether every partition was written and read after a time.
func (tr *traffic) since(begin time.Time) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for p := range partitions {
		if !tr.acked[p].After(begin) || !tr.consumed[p].After(begin) {
			return false
		}
	}
	return true
}

// start produces to and consumes from all partitions of the topic until the test ends, with a client for each: what the one notices must not
// help the other.
func (tr *traffic) start(t *testing.T, writer, reader *client.Client) {
	t.Helper()
	producer, err := writer.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := reader.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for p := range id.Partition(partitions) {
		if err := consumer.Assign(id.TopicPartition{Topic: topic, Partition: p}, client.End); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { tr.produce(ctx, producer, p) })
	}
	wg.Go(func() {
		for {
			f, err := consumer.Poll(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				tr.failed(err)
				return
			}
			if f.Bytes() > 0 {
				tr.note(&tr.consumed, f.Partition)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = consumer.Close()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = producer.Close(ended)
	})
}

// produce sends one record after the other to a partition.
func (tr *traffic) produce(ctx context.Context, p *client.Producer, partition id.Partition) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		done := make(chan error, 1)
		err := p.Produce(ctx, client.Record{Topic: topic, Partition: client.At(partition), Value: []byte("v")}, func(a client.Ack) { done <- a.Err })
		if err == nil {
			select {
			case err = <-done:
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			tr.failed(err)
			return
		}
		tr.note(&tr.acked, partition)
		<-tick.C
	}
}

// resumeTime is how long clients may take to find leaders that have been elected: 0.7 s on a machine that has little else to do.
const resumeTime = 6 * time.Second

// TestClientsLeaveAnIsolatedNode cuts off the node from which clients have their metadata, in several ways. It goes on answering them,
// at once and with what was true before the cut. The clients go on with the others as soon as those have elected leaders.
func TestClientsLeaveAnIsolatedNode(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3, nodetest.WithNetwork())
	const isolated = 1 // neither the founder nor the controller
	var clients [2]*client.Client
	for i := range clients {
		var err error
		if clients[i], err = client.New(client.Options{Servers: []string{c.Nodes[isolated].RPCAddress()}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = clients[i].Close() })
	}
	nodetest.Eventually(t, "three voters of the metadata", func() bool {
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && len(status.GetMetadata().GetVoters()) == 3
	})
	if err := clients[0].Admin().CreateTopic(c.Context(), client.TopicSpec{Name: topic, Partitions: partitions, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	// leads is how many partitions a node leads, as another one sees it.
	leads := func(leader, asked int) (n int) {
		m, err := c.Admin(asked).Metadata(c.Context(), &pb.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return -1
		}
		for _, p := range m.GetTopics()[0].GetPartitions() {
			if p.GetLeader() == int32(leader+1) {
				n++
			}
		}
		return n
	}
	var tr traffic
	tr.start(t, clients[0], clients[1])
	for _, cut := range []struct {
		name string
		cut  func()
	}{
		{"both ways", func() { c.Isolate(isolated) }},
		{"what it says", func() { c.Cut(isolated, 0); c.Cut(isolated, 2) }},
		{"what it is told", func() { c.Cut(0, isolated); c.Cut(2, isolated) }},
		{"whom it calls", func() { c.Block(isolated, 0); c.Block(isolated, 2) }},
		{"who calls it", func() { c.Block(0, isolated); c.Block(2, isolated) }},
	} {
		nodetest.Eventually(t, "leaders where they should be", func() bool {
			return leads(isolated, 0) == partitions/3 && tr.since(time.Now().Add(-time.Second))
		})
		begin := time.Now()
		cut.cut()
		nodetest.Eventually(t, "the others to lead", func() bool {
			return leads(isolated, 0)+leads(-2, 0)+leads(isolated, 2)+leads(-2, 2) == 0
		})
		elected := time.Now()
		nodetest.Eventually(t, "all partitions to be written and read, "+cut.name, func() bool { return tr.since(elected) })
		took := time.Since(elected)
		t.Logf("%s: others elected after %v, clients went on %v later", cut.name,
			elected.Sub(begin).Round(10*time.Millisecond), took.Round(10*time.Millisecond))
		if took > resumeTime {
			t.Errorf("%s: clients took %v to find the new leaders", cut.name, took)
		}
		c.Heal()
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, err := range tr.errs {
		t.Error(err)
	}
}

// TestHalves cuts five nodes in two halves. The larger one has the metadata's majority and is up to date by that; but of a partition it has
// the old leader alone, and who leads it now is known on the other side only, to nodes of which clients know that they are cut off.
func TestHalves(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 5, nodetest.WithNetwork())
	nodetest.Eventually(t, "five voters of the metadata", func() bool {
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && len(status.GetMetadata().GetVoters()) == 5
	})
	cl, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	if err := cl.Admin().CreateTopic(c.Context(), client.TopicSpec{Name: topic, Partitions: 5, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	partition := func(asked, p int) *pb.Partition {
		m, err := c.Admin(asked).Metadata(c.Context(), &pb.MetadataRequest{Topics: []string{topic}})
		if err != nil || len(m.GetTopics()) == 0 || len(m.GetTopics()[0].GetPartitions()) <= p {
			return nil
		}
		return m.GetTopics()[0].GetPartitions()[p]
	}
	// Of the partition it takes, the old leader is cut off from its two followers, each of which has one half of two.
	leader := int(partition(0, 0).GetLeader()) - 1
	var followers []int
	for _, r := range partition(0, 0).GetReplicas() {
		if int(r)-1 != leader {
			followers = append(followers, int(r)-1)
		}
	}
	p, err := cl.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	produce := func() <-chan error {
		t.Helper()
		done := make(chan error, 1)
		record := client.Record{Topic: topic, Partition: client.At(0), Value: []byte("x")}
		if err := p.Produce(c.Context(), record, func(a client.Ack) { done <- a.Err }); err != nil {
			t.Fatal(err)
		}
		return done
	}
	if err := <-produce(); err != nil {
		t.Fatal(err)
	}
	for i := range c.Nodes {
		for _, f := range followers {
			if i != followers[0] && i != followers[1] {
				c.Cut(i, f)
				c.Cut(f, i)
			}
		}
	}
	underWay := produce() // the old leader has it, and cannot commit it
	nodetest.Eventually(t, "the followers to elect one of them", func() bool {
		l := int(partition(followers[0], 0).GetLeader()) - 1
		return l == followers[0] || l == followers[1]
	})
	elected := time.Now()
	if err := <-underWay; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(elected); took > resumeTime {
		t.Errorf("the producer took %v to find the new leader", took)
	} else {
		t.Logf("the producer went on after %v", took.Round(time.Millisecond))
	}
}
