package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// resumeTime bounds how long clients may take to go on at a new leader. It takes them about one and a half seconds at most, of which this
// machine may make more; a client that waits for something else waits for ten, or for as long as the fault lasts.
const resumeTime = 4 * time.Second

// onlyFrom returns a client that has its metadata from one node so far, and knows of the others from that.
func onlyFrom(t *testing.T, cluster *clienttest.Cluster, n id.Node) *client.Client {
	t.Helper()
	return newClient(t, cluster.Servers()[n-1:n], 0)
}

// going is a producer and a consumer of one partition that have done something already.
type going struct {
	t        *testing.T
	producer *client.Producer
	consumer *client.Consumer
	tp       id.TopicPartition
}

func startGoing(t *testing.T, c *client.Client, p id.TopicPartition) *going {
	t.Helper()
	g := &going{
		t: t, producer: newProducer(t, c, client.ProducerOptions{DeliveryTimeout: testTime}), consumer: newConsumer(t, c, client.ConsumerOptions{}), tp: p,
	}
	if err := g.consumer.Assign(p, client.Beginning); err != nil {
		t.Fatal(err)
	}
	g.write("before")
	g.read("before")
	return g
}

func (g *going) produce(value string) <-chan error {
	g.t.Helper()
	done := make(chan error, 1)
	r := client.Record{Topic: g.tp.Topic, Partition: client.At(g.tp.Partition), Value: []byte(value)}
	if err := g.producer.Produce(testContext(g.t), r, func(a client.Ack) { done <- a.Err }); err != nil {
		g.t.Fatal(err)
	}
	return done
}

func (g *going) write(value string) {
	g.t.Helper()
	if err := <-g.produce(value); err != nil {
		g.t.Fatal(err)
	}
}

// read polls until the record with a value has come.
func (g *going) read(value string) {
	g.t.Helper()
	ctx := testContext(g.t)
	for {
		f, err := g.consumer.Poll(ctx)
		if err != nil {
			g.t.Fatal(err)
		}
		for m, err := range f.Records() {
			if err != nil {
				g.t.Fatal(err)
			}
			if string(m.Value) == value {
				return
			}
		}
	}
}

// quiet waits until nobody asks for metadata any more: what is asked already would find the new leader by accident.
func quiet(t *testing.T, cluster *clienttest.Cluster) {
	t.Helper()
	seen, since := 0, time.Now()
	waitFor(t, "the clients to be content", func() bool {
		if n := cluster.MetadataRequests(); n != seen {
			seen, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// goesOn has a record acknowledged that is in flight, or about to be, at a leader that will not answer.
func (g *going) goesOn(elect func()) {
	g.t.Helper()
	done := g.produce("after")
	begin := time.Now()
	elect()
	if err := <-done; err != nil {
		g.t.Fatal(err)
	}
	if took := time.Since(begin); took > resumeTime {
		g.t.Errorf("the producer went on after %v", took)
	} else {
		g.t.Logf("the producer went on after %v", took.Round(time.Millisecond))
	}
}

// TestIsolatedNodeIsNotBelieved cuts the node off that leads, and from which the client has its metadata. It answers at once, with what was
// true before.
func TestIsolatedNodeIsNotBelieved(t *testing.T) {
	waits(t)
	for _, c := range []struct {
		name  string
		after func(*clienttest.Cluster) // once it is cut off
	}{
		{"it names itself and says how old that is", func(*clienttest.Cluster) {}},
		{"it names itself and nobody could tell", func(c *clienttest.Cluster) { c.Young(1) }},
		{"it names nobody", func(c *clienttest.Cluster) { c.StepDown(1) }},
		{"it names nobody and nobody could tell", func(c *clienttest.Cluster) { c.Young(1); c.StepDown(1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster, _ := newCluster(t, 3)
			cluster.CreateTopic("test", 1, nil)
			g := startGoing(t, onlyFrom(t, cluster, 1), tp("test", 0))
			cluster.Isolate(1)
			c.after(cluster)
			g.goesOn(func() { cluster.MoveLeader(g.tp, 2) })
			g.readsOn(time.Now())
		})
	}
}

// consumerLeaves has a client that only reads from the leader: nothing of its own fails or is late. The leader fails without a word, and
// another client writes to the next one.
func consumerLeaves(t *testing.T, fail func(*clienttest.Cluster)) {
	t.Helper()
	cluster, _ := newCluster(t, 3)
	cluster.CreateTopic("test", 1, nil)
	g := startGoing(t, onlyFrom(t, cluster, 1), tp("test", 0))
	p := newProducer(t, onlyFrom(t, cluster, 2), client.ProducerOptions{})
	quiet(t, cluster)
	fail(cluster)
	cluster.MoveLeader(g.tp, 2)
	begin := time.Now()
	if err := p.Produce(testContext(t), client.Record{Topic: "test", Value: []byte("after")}, nil); err != nil {
		t.Fatal(err)
	}
	g.readsOn(begin)
}

// readsOn has the record read that goesOn, or somebody else, has written.
func (g *going) readsOn(begin time.Time) {
	g.t.Helper()
	g.read("after")
	if took := time.Since(begin); took > resumeTime {
		g.t.Errorf("the consumer went on after %v", took)
	} else {
		g.t.Logf("the consumer went on after %v", took.Round(time.Millisecond))
	}
}

// TestConsumerLeavesAnIsolatedLeader is TestIsolatedNodeIsNotBelieved for a client that only reads.
func TestConsumerLeavesAnIsolatedLeader(t *testing.T) {
	waits(t)
	consumerLeaves(t, func(c *clienttest.Cluster) { c.Isolate(1) })
}

// TestFrozenNode stops the leader as SIGSTOP does.
func TestFrozenNode(t *testing.T) {
	waits(t)
	t.Run("producer", func(t *testing.T) {
		cluster, _ := newCluster(t, 3)
		cluster.CreateTopic("test", 1, nil)
		g := startGoing(t, onlyFrom(t, cluster, 1), tp("test", 0))
		quiet(t, cluster)
		cluster.Freeze(1)
		g.goesOn(func() { cluster.MoveLeader(g.tp, 2) })
	})
	t.Run("consumer", func(t *testing.T) { consumerLeaves(t, func(c *clienttest.Cluster) { c.Freeze(1) }) })
	t.Run("while it is dialled", func(t *testing.T) {
		cluster, _ := newCluster(t, 3)
		cluster.CreateTopic("test", 2, nil)
		c, err := client.New(client.Options{Servers: cluster.Servers()[1:2], DialTimeout: testTime})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		g := startGoing(t, c, tp("test", 1))
		quiet(t, cluster)
		cluster.Freeze(1)
		g.tp = tp("test", 0) // which node 1 leads
		g.goesOn(func() { cluster.MoveLeader(g.tp, 3) })
	})
}

// TestNodeOutOfReach has one node that the client alone does not reach: the partitions of the others go on as if nothing were.
func TestNodeOutOfReach(t *testing.T) {
	waits(t)
	cluster, _ := newCluster(t, 3)
	cluster.CreateTopic("test", 3, nil)
	c := onlyFrom(t, cluster, 1)
	g := startGoing(t, c, tp("test", 1)) // led by node 2
	cluster.Freeze(1)                    // to which nothing else leads: its partition stays where it is
	p := newProducer(t, c, client.ProducerOptions{DeliveryTimeout: 2 * time.Second})
	lost := make(chan error, 1)
	r := client.Record{Topic: "test", Partition: client.At(0), Value: []byte("v")}
	if err := p.Produce(testContext(t), r, func(a client.Ack) { lost <- a.Err }); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		begin := time.Now()
		g.write("v")
		if took := time.Since(begin); took > resumeTime {
			t.Fatalf("a record to a node that is well took %v", took)
		}
	}
	cluster.MoveLeader(g.tp, 3)
	g.write("after")
	g.read("after")
	if err := <-lost; err == nil {
		t.Error("the frozen node has acknowledged a record")
	}
}

// TestTopicThatAnIsolatedNodeDoesNotKnow was created behind its back.
func TestTopicThatAnIsolatedNodeDoesNotKnow(t *testing.T) {
	for _, young := range []bool{false, true} {
		t.Run(fmt.Sprintf("young=%v", young), func(t *testing.T) {
			cluster, _ := newCluster(t, 3)
			cluster.CreateTopic("old", 1, nil)
			c := onlyFrom(t, cluster, 1)
			startGoing(t, c, tp("old", 0))
			cluster.Isolate(1)
			if young {
				cluster.Young(1)
			}
			cluster.CreateTopic("new", 1, nil)
			cluster.MoveLeader(tp("new", 0), 2)
			p := newProducer(t, c, client.ProducerOptions{})
			if a := produceAll(t, p, "new", 0, 1); a.firstFailure() != nil {
				t.Error(a.firstFailure())
			}
			if _, err := c.Admin().DescribeTopics(testContext(t), "new"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAllNodesAreIsolated has every node say that it had no word from a majority: a topic that they do not know may exist.
func TestAllNodesAreIsolated(t *testing.T) {
	waits(t)
	cluster, c := newCluster(t, 2)
	cluster.Isolate(1)
	cluster.Isolate(2)
	waitFor(t, "them to notice", func() bool {
		m, err := c.Admin().Metadata(testContext(t))
		return err == nil && len(m.Nodes) == 2 // what they know is better than nothing
	})
	p := newProducer(t, c, client.ProducerOptions{})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := p.Produce(ctx, client.Record{Topic: "test"}, nil)
	if errors.Is(err, client.ErrUnknownTopic) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a topic that nobody up to date was asked for: %v", err)
	}
}

// TestServersOfTwoClusters names a node that founded a cluster by mistake before those of the right one.
func TestServersOfTwoClusters(t *testing.T) {
	waits(t)
	right, _ := newCluster(t, 3)
	wrong := clienttest.NewWithID(t, 1, "by-mistake")
	right.CreateTopic("test", 1, nil)
	servers := slices.Concat(wrong.Servers(), right.Servers())

	t.Run("the one that has the topic", func(t *testing.T) {
		c := newClient(t, servers, 0)
		g := startGoing(t, c, tp("test", 0))
		g.write("v")
		m, err := c.Admin().Metadata(testContext(t))
		if err != nil || m.ClusterID != "test-cluster" {
			t.Errorf("%+v, %v", m, err)
		}
	})
	t.Run("the one that was named", func(t *testing.T) {
		c, err := client.New(client.Options{Servers: servers, ClusterID: "test-cluster"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 10 {
			spec := client.TopicSpec{Name: "t" + string(rune('a'+i)), Partitions: 1, ReplicationFactor: 3}
			if err := c.Admin().CreateTopic(testContext(t), spec); err != nil {
				t.Fatal(err) // the wrong one has one node
			}
		}
	})
	t.Run("a topic that neither has", func(t *testing.T) {
		c := newClient(t, servers, 0)
		p := newProducer(t, c, client.ProducerOptions{})
		err := p.Produce(testContext(t), client.Record{Topic: "nowhere"}, nil)
		if !errors.Is(err, client.ErrUnknownTopic) || !errors.Is(err, client.ErrWrongCluster) {
			t.Errorf("%v: it has to say that two clusters were asked", err)
		}
		t.Log(err)
	})
	t.Run("none of the right one", func(t *testing.T) {
		c, err := client.New(client.Options{Servers: wrong.Servers(), ClusterID: "test-cluster"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Admin().ListTopics(testContext(t)); !errors.Is(err, client.ErrWrongCluster) {
			t.Error(err)
		}
		if err := c.Admin().CreateTopic(testContext(t), client.TopicSpec{Name: "here"}); !errors.Is(err, client.ErrWrongCluster) {
			t.Error(err)
		}
		p := newProducer(t, c, client.ProducerOptions{})
		if err := p.Produce(testContext(t), client.Record{Topic: "test"}, nil); !errors.Is(err, client.ErrWrongCluster) {
			t.Error(err)
		} else {
			t.Log(err)
		}
	})
}
