package node_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// rawProducer speaks to one node's only partition of topic "t", one batch of one record after the other.
type rawProducer struct {
	t       *testing.T
	topic   id.Topic
	leader  int // of the cluster's nodes, from 0
	conn    *rpc.ProduceConn
	answers chan rpc.ProduceResponse
}

func newRawProducer(t *testing.T, c *nodetest.Cluster) *rawProducer {
	t.Helper()
	all := int32(len(c.Nodes))
	created, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: all})
	if err != nil {
		t.Fatal(err)
	}
	p := &rawProducer{t: t, topic: id.Topic(created.GetTopic().GetId())}
	p.connect(c, 0)
	return p
}

// connect connects the producer to the leader that node i knows of.
func (p *rawProducer) connect(c *nodetest.Cluster, i int) {
	t := p.t
	t.Helper()
	nodetest.Eventually(t, "a leader", func() bool {
		m, err := c.Admin(i).Metadata(c.Context(), &pb.MetadataRequest{Topics: []string{"t"}})
		if err != nil || len(m.GetTopics()) != 1 || len(m.GetTopics()[0].GetPartitions()) != 1 {
			return false
		}
		p.leader = int(m.GetTopics()[0].GetPartitions()[0].GetLeader()) - 1
		return p.leader >= 0 && c.Nodes[p.leader].Node != nil
	})
	conn, err := new(rpc.Dialer).DialProduce(c.Context(), c.Nodes[p.leader].RPCAddress())
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan rpc.ProduceResponse, 2000)
	p.conn, p.answers = conn, answers
	go func() { _ = conn.Recv(func(r rpc.ProduceResponse) { answers <- r }) }()
	t.Cleanup(func() { _ = conn.Close() })
}

func (p *rawProducer) send(at time.Time, trailer batch.Trailer, timeout time.Duration) {
	p.t.Helper()
	var b batch.Builder
	b.Append(batch.Record{Timestamp: at.UnixMilli(), Value: []byte("v")})
	wire, err := b.Finish(nil, trailer)
	if err == nil {
		err = p.conn.Send(rpc.ProduceRequest{Topic: p.topic, Acks: rpc.AcksAll, Timeout: timeout, Batch: wire})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *rawProducer) answer() rpc.ProduceResponse {
	p.t.Helper()
	if err := p.conn.Flush(); err != nil {
		p.t.Fatal(err)
	}
	select {
	case r := <-p.answers:
		return r
	case <-time.After(time.Minute):
		p.t.Fatal("no answer")
		panic("unreachable")
	}
}

// identity returns a fresh producer's.
func identity(t *testing.T, c *nodetest.Cluster) batch.Trailer {
	t.Helper()
	r, err := c.Admin(0).InitProducerID(c.Context(), &pb.InitProducerIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return batch.Trailer{Producer: id.Producer(r.GetProducerId())}
}

// TestRetryAfterSilence is the whole way: a partition that was silent for three days, a batch whose answer gets lost, 1500 batches of
// others, the batch again. It is in the log once.
func TestRetryAfterSilence(t *testing.T) {
	c := nodetest.Start(t, 1)
	p, now := newRawProducer(t, c), time.Now()
	mine := identity(t, c)
	p.send(now.Add(-72*time.Hour), batch.Plain(batch.None), 0)
	p.answer()
	p.send(now, mine, 0)
	first := p.answer()
	if first.Code != kerr.None {
		t.Fatal(first)
	}
	for range 1500 {
		p.send(now, batch.Plain(batch.None), 0)
	}
	for range 1500 {
		p.answer()
	}
	p.send(now, mine, 0)
	if r := p.answer(); r.Code != kerr.None || r.BaseOffset != first.BaseOffset {
		t.Errorf("the batch is at offset %d; sent again it is at %d, too (%v)", first.BaseOffset, r.BaseOffset, r.Code)
	}
}

// TestProducersExpire: a producer is remembered for at least as long as was promised, and is forgotten some time after, by all replicas.
func TestProducersExpire(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	const promised = 2 * time.Second
	for i := range c.Nodes {
		c.StopNode(i)
		c.Nodes[i].Options.Timing.ProducerExpiry = promised
		c.StartNode(i)
		c.AwaitReady(i)
	}
	p, mine := newRawProducer(t, c), identity(t, c)
	sent := time.Now()
	var first, second rpc.ProduceResponse
	try := func() (rpc.ProduceResponse, bool) {
		p.send(sent, mine, 0)
		r := p.answer()
		if r.Code != kerr.None {
			p.connect(c, 0) // the leadership may have moved
		}
		return r, r.Code == kerr.None
	}
	nodetest.Eventually(t, "the batch to be taken", func() (taken bool) {
		first, taken = try()
		return taken
	})
	nodetest.Eventually(t, "the batch to be taken for a new one", func() (taken bool) {
		second, taken = try()
		return taken && second.BaseOffset != first.BaseOffset
	})
	if took := time.Since(sent); took < promised {
		t.Errorf("the producer was forgotten after %v", took)
	}
	c.StopNode(p.leader)
	others := (p.leader + 1) % len(c.Nodes)
	nodetest.Eventually(t, "another leader to go on behind the entry that says so", func() bool {
		p.connect(c, others)
		p.send(sent, batch.Plain(batch.None), 0)
		return p.answer().Code == kerr.None
	})
}

// TestMadeUpProducers: a producer id that was not given out is refused, and the batch may come again.
func TestMadeUpProducers(t *testing.T) {
	c := nodetest.Start(t, 1)
	p, mine := newRawProducer(t, c), identity(t, c)
	for _, madeUp := range []id.Producer{mine.Producer + 1_000_000, 1<<63 - 1} {
		p.send(time.Now(), batch.Trailer{Producer: madeUp}, 0)
		r := p.answer()
		if r.Code != kerr.CoordinatorLoadInProgress || !r.Code.Retriable() || !strings.Contains(r.Message, "was not given out") {
			t.Errorf("producer %d: %v %s", madeUp, r.Code, r.Message)
		}
	}
	p.send(time.Now(), mine, 0)
	if r := p.answer(); r.Code != kerr.None || r.BaseOffset != 0 {
		t.Errorf("the first batch of producer %d: %+v", mine.Producer, r)
	}
}

// TestProduceTimeout: a batch that is not committed in the time that its request gives is answered, with how far it came. Sent again it
// waits for the first one, and is written once.
func TestProduceTimeout(t *testing.T) {
	c := &sickCluster{Cluster: nodetest.StartSimulated(t, 1, 1), t: t}
	p, mine := newRawProducer(t, c.Cluster), identity(t, c.Cluster)
	p.send(time.Now(), mine, 0)
	p.answer()
	release := c.hang(0)
	mine.BaseSequence = 1
	p.send(time.Now(), mine, 300*time.Millisecond)
	if r := p.answer(); r.Code != kerr.RequestTimedOut || !strings.Contains(r.Message, "appended at offset 1") {
		t.Errorf("%v: %s", r.Code, r.Message)
	}
	p.send(time.Now(), mine, 0)
	release()
	if r := p.answer(); r.Code != kerr.None || r.BaseOffset != 1 {
		t.Errorf("sent again: %+v", r)
	}
	p.send(time.Now(), batch.Plain(batch.None), 0)
	if r := p.answer(); r.BaseOffset != 2 {
		t.Errorf("the next batch is at %d", r.BaseOffset)
	}
}

// changeView gives the replicas of a stopped node another view.
func changeView(t *testing.T, n *nodetest.Node, change func(view []byte) []byte) {
	t.Helper()
	store, err := wal.Open(context.Background(), wal.Options{Dir: n.Options.DataDir, JournalFileBytes: n.Options.Storage.JournalFileBytes})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range store.Logs() {
		if l.Group() == id.MetadataGroup {
			continue
		}
		st := l.State()
		l.TakeCut(wal.State{Applied: st.Applied, ConfState: st.ConfState, View: change(st.View)})
		done, hs := make(chan struct{}), l.HardState()
		hs.Term, hs.Vote = hs.Term+1, id.NoReplica // something new, or there is no cut
		store.Submit([]*wal.Append{{Log: l, HardState: &hs, Done: func(*wal.Append) { close(done) }}})
		<-done
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestViewOfALaterRelease: a view with something that this release does not know costs no replica. The node says so and is not ready; the
// release that knows it goes on as if nothing had happened.
func TestViewOfALaterRelease(t *testing.T) {
	c := nodetest.Start(t, 1)
	p, mine := newRawProducer(t, c), identity(t, c)
	p.send(time.Now(), mine, 0)
	p.answer()
	c.StopNode(0)
	var known []byte
	changeView(t, c.Nodes[0], func(view []byte) []byte {
		known = view
		return envelope.Append(nil, envelope.Section{Kind: 999, Version: 1, Body: []byte("what is not known yet")})
	})
	c.StartNode(0)
	nodetest.Eventually(t, "the node to say so", func() bool { return strings.Contains(c.Log(), "of a later release") })
	c.StopNode(0)
	changeView(t, c.Nodes[0], func([]byte) []byte { return known })
	c.StartNode(0)
	c.AwaitReady(0)
	if strings.Contains(c.Log(), "is refused, for good") {
		t.Error("a replica was refused")
	}
}
