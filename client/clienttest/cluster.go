package clienttest

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Fault is what happens to one produce request.
type Fault uint8

// The faults.
const (
	None        Fault = iota
	Refuse            // NOT_LEADER, nothing is written
	RefuseAfter       // NOT_LEADER, but the batch is written: leadership was lost while it was replicated
	Throttle          // THROTTLING_QUOTA_EXCEEDED, nothing is written
	Drop              // the connection breaks before the batch is written
	DropAfter         // the connection breaks after the batch is written
	LoseAck           // the batch is written and never answered
	Swallow           // the batch is neither written nor answered
	Twice             // the batch arrives twice, one answer is lost
	Reject            // INVALID_RECORD, nothing is written
	MoveLeader        // the partition moves to another node, then Refuse
	MoveAfter         // the batch is written, the partition moves, the connection breaks
	NumFaults         // how many there are
	Pause             // the batch is written, and the producer told to send nothing for PauseTime

	// Discard is no fault: the batch is acknowledged and not kept, for benchmarks.
	Discard
	// RejectTime refuses the batch with INVALID_TIMESTAMP, and nothing is written.
	RejectTime
	// RejectOld is RejectTime, for a first record that is older than OldestTime.
	RejectOld
)

// OldestTime is the oldest timestamp that a node takes, as RejectOld says.
const OldestTime = 500

// Cluster is some nodes that share all partitions.
type Cluster struct {
	t     testing.TB
	id    string
	nodes []*node

	mu        sync.Mutex
	topics    map[string]*topic
	denied    map[string]bool
	byID      map[id.Topic]*topic
	fault     func(id.TopicPartition, batch.Batch) Fault
	producers id.Producer
	// noProducers refuses producer ids; producersAsked counts how often one was asked for.
	noProducers    bool
	producersAsked int
	controller     id.Node
	level          int32 // the feature level
	index          uint64
	metadata       int // requests for it
	described      int // topics that were asked for with those
	changed        chan struct{}
}

type topic struct {
	name       string
	id         id.Topic
	configs    map[string]string
	partitions []*partition
	replicas   int
}

type partition struct {
	tp        id.TopicPartition
	leader    id.Node
	epoch     id.Epoch
	log       []byte // batches
	index     []place
	start     id.Offset
	next      id.Offset
	producers map[id.Producer]*producer
}

// place is where the batch with a base offset begins in the log.
type place struct {
	base id.Offset
	at   int
}

type producer struct {
	epoch id.ProducerEpoch
	last  []sent // at most five
}

type sent struct {
	first, last id.Sequence
	base        id.Offset
}

// New starts a cluster of n nodes, with ids from 1, that ends with the test.
func New(t testing.TB, n int) *Cluster {
	t.Helper()
	return NewWithID(t, n, "test-cluster")
}

// NewWithID is New for a cluster with an id of its own, for tests with more than one.
func NewWithID(t testing.TB, n int, clusterID string) *Cluster {
	t.Helper()
	c := &Cluster{
		t: t, id: clusterID, topics: make(map[string]*topic), byID: make(map[id.Topic]*topic), controller: 1, level: 1, producers: 1000,
		changed: make(chan struct{}),
	}
	for i := range n {
		c.nodes = append(c.nodes, &node{cluster: c, id: id.Node(i + 1), addr: rpctest.FreeAddress()})
	}
	for _, n := range c.nodes {
		if err := n.start(); err != nil {
			t.Fatalf("start node %d: %v", n.id, err)
		}
	}
	t.Cleanup(c.close)
	return c
}

func (c *Cluster) close() {
	for _, n := range c.nodes {
		n.ice.thaw()
		n.stop()
	}
}

// Servers are the addresses of the nodes.
func (c *Cluster) Servers() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.addr)
	}
	return out
}

// CreateTopic makes a topic whose partitions are led by the nodes in turn.
func (c *Cluster) CreateTopic(name string, partitions int, configs map[string]string) id.Topic {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.createLocked(name, partitions, min(3, len(c.nodes)), configs).id
}

func (c *Cluster) createLocked(name string, partitions, replicas int, configs map[string]string) *topic {
	t := &topic{name: name, configs: configs, replicas: replicas}
	c.index++
	copy(t.id[:14], name)
	t.id[14], t.id[15] = byte(c.index>>8), byte(c.index)
	for i := range partitions {
		t.partitions = append(t.partitions, &partition{
			tp: id.TopicPartition{Topic: name, Partition: id.Partition(i)}, leader: c.nodes[i%len(c.nodes)].id, epoch: 1,
			producers: make(map[id.Producer]*producer),
		})
	}
	c.topics[name], c.byID[t.id] = t, t
	return t
}

// Supplant deletes a topic and gives its name to another one, as if that had been created and filled in between.
func (c *Cluster) Supplant(name, by string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, t := c.topics[name], c.topics[by]
	delete(c.byID, old.id)
	delete(c.topics, by)
	t.name, c.topics[name] = name, t
	for _, p := range t.partitions {
		p.tp.Topic = name
	}
	c.index++
	c.announceLocked()
}

// Recreate deletes a topic and creates another one of its name. It returns the values that were in the partitions of the old one.
func (c *Cluster) Recreate(name string, partitions int) (was [][]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.topics[name]
	for _, p := range old.partitions {
		was = append(was, c.values(p.tp, p.log))
	}
	delete(c.byID, old.id)
	c.createLocked(name, partitions, old.replicas, old.configs)
	c.announceLocked()
	return was
}

// Deny forbids everything with a topic.
func (c *Cluster) Deny(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.denied == nil {
		c.denied = make(map[string]bool)
	}
	c.denied[topic] = true
	c.announceLocked()
}

// DenyProducers refuses producer ids to everybody, until AllowProducers, and returns how often one was asked for before.
func (c *Cluster) DenyProducers() (asked int) { return c.denyProducers(true) }

// AllowProducers gives producer ids again, and returns how often one was asked for before.
func (c *Cluster) AllowProducers() (asked int) { return c.denyProducers(false) }

func (c *Cluster) denyProducers(deny bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noProducers = deny
	return c.producersAsked
}

func denied(topic string) *kerr.Error {
	return kerr.Errorf(kerr.TopicAuthorizationFailed, "User:test may not use topic %q", topic)
}

// SetFault makes f decide what happens to each produce request. f is called with the cluster locked.
func (c *Cluster) SetFault(f func(id.TopicPartition, batch.Batch) Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// MoveLeader makes another node lead a partition.
func (c *Cluster) MoveLeader(tp id.TopicPartition, to id.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moveLocked(c.topics[tp.Topic].partitions[tp.Partition], to)
}

func (c *Cluster) moveLocked(p *partition, to id.Node) {
	p.leader = to
	p.epoch++
	c.announceLocked()
}

// nextLeaderLocked is a live node other than the leader, or the leader itself when there is none.
func (c *Cluster) nextLeaderLocked(p *partition) id.Node {
	at := slices.IndexFunc(c.nodes, func(n *node) bool { return n.id == p.leader })
	for i := range c.nodes {
		if n := c.nodes[(at+1+i)%len(c.nodes)]; n.up {
			return n.id
		}
	}
	return p.leader
}

// Kill stops a node; its partitions move to the others.
func (c *Cluster) Kill(n id.Node) {
	victim := c.node(n)
	victim.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	victim.up = false
	for _, t := range c.topics {
		for _, p := range t.partitions {
			if p.leader == n {
				c.moveLocked(p, c.nextLeaderLocked(p))
			}
		}
	}
}

// Restart starts a killed node at its old address.
func (c *Cluster) Restart(n id.Node) {
	if err := c.node(n).start(); err != nil {
		c.t.Errorf("restart node %d: %v", n, err)
	}
}

func (c *Cluster) node(n id.Node) *node {
	return c.nodes[slices.IndexFunc(c.nodes, func(x *node) bool { return x.id == n })]
}

// Leader returns who leads a partition.
func (c *Cluster) Leader(tp id.TopicPartition) id.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[tp.Topic].partitions[tp.Partition].leader
}

// Trim deletes the batches that lie whole below an offset.
func (c *Cluster) Trim(tp id.TopicPartition, below id.Offset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.topics[tp.Topic].partitions[tp.Partition]
	p.start = max(p.start, min(below, p.next))
	c.announceLocked()
}

// Corrupt flips a bit in the last batch of a partition, and returns a function that flips it back.
func (c *Cluster) Corrupt(tp id.TopicPartition) (repair func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.topics[tp.Topic].partitions[tp.Partition]
	at := len(p.log) - 1
	p.log[at] ^= 1
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		p.log[at] ^= 1
	}
}

// CorruptBatch flips a bit in the last byte of the nth batch of a partition.
func (c *Cluster) CorruptBatch(tp id.TopicPartition, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.topics[tp.Topic].partitions[tp.Partition]
	end := len(p.log)
	if n+1 < len(p.index) {
		end = p.index[n+1].at
	}
	p.log[end-1] ^= 1
}

// Append writes a batch as a producer's that is not idempotent.
func (c *Cluster) Append(tp id.TopicPartition, b batch.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.appendLocked(c.topics[tp.Topic].partitions[tp.Partition], b); err != nil {
		c.t.Errorf("append to %s: %v", tp, err)
	}
}

// Log returns a copy of the batches of a partition.
func (c *Cluster) Log(tp id.TopicPartition) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.topics[tp.Topic].partitions[tp.Partition].log)
}

// Values returns the values of all records of a partition, in order.
func (c *Cluster) Values(tp id.TopicPartition) []string { return c.values(tp, c.Log(tp)) }

func (c *Cluster) values(tp id.TopicPartition, log []byte) []string {
	var out []string
	for rest := log; len(rest) > 0; {
		b, more, err := batch.Next(rest)
		if err != nil {
			c.t.Fatalf("log of %s: %v", tp, err)
		}
		rest = more
		r := b.Records()
		for r.Next() {
			out = append(out, string(r.Record().Value))
		}
		if err := r.Err(); err != nil {
			c.t.Fatalf("log of %s: %v", tp, err)
		}
	}
	return out
}

// MetadataRequests is how many there were.
func (c *Cluster) MetadataRequests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metadata
}

// TopicsAskedFor is how many topics all requests for metadata together have named.
func (c *Cluster) TopicsAskedFor() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.described
}

// announceLocked wakes the fetch streams.
func (c *Cluster) announceLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (t *topic) maxMessageBytes() int {
	if n, err := strconv.Atoi(t.configs["max.message.bytes"]); err == nil {
		return n
	}
	return 1 << 20
}

// appendLocked does what a leader does with a batch: duplicates are recognized, others are appended in order or refused.
func (c *Cluster) appendLocked(p *partition, b batch.Batch) (id.Offset, *kerr.Error) {
	if err := batch.CheckProduce(b, c.topics[p.tp.Topic].maxMessageBytes()); err != nil {
		code := kerr.InvalidRecord
		if _, large := err.(*batch.TooLargeError); large {
			code = kerr.MessageTooLarge
		}
		return id.NoOffset, kerr.Errorf(code, "%v", err)
	}
	if base, done, err := p.sequence(b); done || err != nil {
		return base, err
	}
	b = slices.Clone(b)
	base := p.next
	b.Stamp(base, p.epoch)
	p.index = append(p.index, place{base, len(p.log)})
	p.log = append(p.log, b...)
	p.next = b.NextOffset()
	c.announceLocked()
	return base, nil
}

// sequence applies Kafka's rules: a producer that is not known may begin anywhere.
func (p *partition) sequence(b batch.Batch) (base id.Offset, duplicate bool, err *kerr.Error) {
	if b.Producer() == id.NoProducer {
		return id.NoOffset, false, nil
	}
	s := p.producers[b.Producer()]
	if s == nil {
		s = &producer{epoch: b.ProducerEpoch()}
		p.producers[b.Producer()] = s
	}
	switch {
	case b.ProducerEpoch() < s.epoch:
		return id.NoOffset, false, kerr.Errorf(kerr.InvalidProducerEpoch, "epoch %d, current is %d", b.ProducerEpoch(), s.epoch)
	case b.ProducerEpoch() > s.epoch:
		if b.BaseSequence() != 0 {
			return id.NoOffset, false, kerr.Errorf(kerr.OutOfOrderSequence, "new epoch begins at %d", b.BaseSequence())
		}
		s.epoch, s.last = b.ProducerEpoch(), nil
	}
	for _, old := range s.last {
		if old.first == b.BaseSequence() && old.last == b.LastSequence() {
			return old.base, true, nil
		}
	}
	if n := len(s.last); n > 0 && b.BaseSequence() != s.last[n-1].last.Add(1) {
		return id.NoOffset, false, kerr.Errorf(kerr.OutOfOrderSequence, "sequence %d, %d is next", b.BaseSequence(), s.last[n-1].last.Add(1))
	}
	s.last = append(s.last, sent{b.BaseSequence(), b.LastSequence(), p.next})
	if len(s.last) > 5 {
		s.last = s.last[1:]
	}
	return id.NoOffset, false, nil
}

// ForgetProducers makes a partition forget what it knows of its producers.
func (c *Cluster) ForgetProducers(tp id.TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.topics[tp.Topic].partitions[tp.Partition].producers = make(map[id.Producer]*producer)
}

// FenceProducers makes a partition refuse the producers it knows, as if newer incarnations of them had written.
func (c *Cluster) FenceProducers(tp id.TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.topics[tp.Topic].partitions[tp.Partition].producers {
		p.epoch, p.last = math.MaxInt16, nil
	}
}

// read returns whole batches from the one that holds offset from on.
func (p *partition) read(from id.Offset, limit int) (out []byte, next id.Offset) {
	at, found := slices.BinarySearchFunc(p.index, from, func(x place, o id.Offset) int { return int(x.base - o) })
	if !found {
		at--
	}
	if at < 0 {
		return nil, from
	}
	next = from
	for rest := p.log[p.index[at].at:]; len(rest) > 0; {
		b, more, err := batch.Next(rest)
		if err != nil {
			panic(fmt.Sprintf("clienttest: %v", err))
		}
		if len(out) > 0 && len(out)+len(b) > limit {
			break
		}
		out, next, rest = append(out, b...), b.NextOffset(), more
	}
	return out, next
}

// node is one server.
type node struct {
	cluster *Cluster
	id      id.Node
	addr    string
	server  *rpc.Server
	up      bool
	view    *view // nil: it is not cut off
	ice     ice

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (n *node) start() error {
	l, err := rpc.Listen(context.Background(), n.addr)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.conns = make(map[net.Conn]struct{})
	n.mu.Unlock()
	server, err := rpc.NewServer(rpc.ServerOptions{
		Listener: l, Node: n.id, WrapConn: n.remember, ClusterID: n.cluster.id, Age: n.age,
		Services: rpc.Services{Admin: &admin{node: n}, Produce: n.produce, Fetch: n.fetch},
	})
	if err != nil {
		return err
	}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.server, n.up = server, true
	return nil
}

// stop ends the server as a killed process does: connections break in the middle of whatever they were doing.
func (n *node) stop() {
	n.breakConnections()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = n.server.Close(ctx)
}

func (n *node) remember(c net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	icy := &icyConn{Conn: c, ice: &n.ice, closed: make(chan struct{})}
	n.conns[icy] = struct{}{}
	return icy
}

func (n *node) breakConnections() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
	}
	clear(n.conns)
}
