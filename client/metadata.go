package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// refreshInterval is the least time between two refreshes: what bounds the load when many partitions lose their leader.
	refreshInterval = 50 * time.Millisecond
	// hedgeDelay is after how long without an answer the next node is asked as well: a frozen node answers nothing at all.
	hedgeDelay = 250 * time.Millisecond
	// unknownGrace is how long a topic must be unknown before that is believed: the node asked may not have heard of it yet.
	unknownGrace = 2 * time.Second
)

// metadata is a snapshot of what is known of the cluster. It is never changed once it is published.
type metadata struct {
	clusterID  string
	index      uint64 // of the metadata log: tells older answers from newer ones
	controller id.Node
	nodes      map[id.Node]string // rpc addresses
	topics     map[string]*topicMeta
}

type topicMeta struct {
	name            string
	id              id.Topic
	partitions      []partitionMeta // by number
	maxMessageBytes int
}

type partitionMeta struct {
	leader id.Node
	epoch  id.Epoch
}

// leader is where a partition is led, as far as is known.
type leader struct {
	node  id.Node
	addr  string
	epoch id.Epoch
	topic id.Topic
}

// leader returns who leads a partition; false when nobody is known, or the topic or partition is not.
func (m *metadata) leader(tp id.TopicPartition) (leader, bool) {
	t := m.topics[tp.Topic]
	if t == nil || int(tp.Partition) >= len(t.partitions) || tp.Partition < 0 {
		return leader{}, false
	}
	p := t.partitions[tp.Partition]
	addr, ok := m.nodes[p.leader]
	return leader{node: p.leader, addr: addr, epoch: p.epoch, topic: t.id}, ok
}

// metadataCache keeps the newest snapshot of the topics that somebody asked for. One goroutine refreshes it: when it is asked
// to, when it is old, never twice at the same time and at most every refreshInterval.
type metadataCache struct {
	client  *Client
	current atomic.Pointer[metadata]
	kick    chan struct{} // capacity 1: a refresh is wanted

	mu struct {
		sync.Mutex
		wanted    map[string]struct{}
		missing   map[string]time.Time // wanted, unknown to the nodes since
		changed   chan struct{}        // closed and replaced at the end of each refresh and at each hint
		refreshes uint64               // completed, successful or not
		err       error                // of the last refresh
		server    string               // that answered last
	}
}

func (m *metadataCache) init(c *Client) {
	m.client = c
	m.kick = make(chan struct{}, 1)
	m.mu.wanted = make(map[string]struct{})
	m.mu.missing = make(map[string]time.Time)
	m.mu.changed = make(chan struct{})
	m.current.Store(&metadata{controller: id.NoNode})
}

// request asks for a refresh. It does not wait.
func (m *metadataCache) request() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// changed returns a channel that is closed when the snapshot may have changed.
func (m *metadataCache) changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

// want makes a topic part of every refresh.
func (m *metadataCache) want(topic string) {
	m.mu.Lock()
	m.mu.wanted[topic] = struct{}{}
	m.mu.Unlock()
}

// refreshes is how many refreshes have ended, well or not.
func (m *metadataCache) refreshes() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.refreshes
}

// missingFor is how long the nodes have said that a topic does not exist; 0 when they have not.
func (m *metadataCache) missingFor(topic string) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.mu.missing[topic]
	if !ok {
		return 0
	}
	return max(time.Since(since), 1)
}

// topic waits until a topic is known.
func (m *metadataCache) topic(ctx context.Context, name string) (*topicMeta, error) {
	if t := m.current.Load().topics[name]; t != nil {
		return t, nil
	}
	m.want(name)
	start := m.refreshes()
	for {
		changed := m.changed()
		if t := m.current.Load().topics[name]; t != nil {
			return t, nil
		}
		// The first refresh that ends may have begun before this call did.
		if m.missingFor(name) >= unknownGrace && m.refreshes() > start+1 {
			return nil, fmt.Errorf("%w %q: it does not exist; create it first", ErrUnknownTopic, name)
		}
		if err := m.otherRelease(); err != nil && m.refreshes() > start {
			return nil, fmt.Errorf("client: no metadata of topic %q: %w", name, err)
		}
		m.request()
		select {
		case <-changed:
		case <-m.client.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("client: no metadata of topic %q: %w", name, m.because(ctx.Err()))
		}
	}
}

// because adds what the last refresh failed with to err.
func (m *metadataCache) because(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.err == nil {
		return err
	}
	return fmt.Errorf("%w (last error: %w)", err, m.mu.err)
}

// run is the refreshing goroutine.
func (m *metadataCache) run() {
	ctx := m.client.ctx
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.kick:
		case <-time.After(m.client.opts.MetadataMaxAge):
		}
		m.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(refreshInterval):
		}
	}
}

func (m *metadataCache) refresh(ctx context.Context) {
	m.mu.Lock()
	req := &pb.MetadataRequest{Topics: make([]string, 0, len(m.mu.wanted))}
	for t := range m.mu.wanted {
		req.Topics = append(req.Topics, t)
	}
	m.mu.Unlock()
	slices.Sort(req.Topics)
	req.NodesOnly = len(req.Topics) == 0

	resp, server, err := m.fetch(ctx, req)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.refreshes++
	known := m.mu.err != nil
	m.mu.err = err
	if err == nil {
		m.mu.server = server
		m.publishLocked(m.current.Load().merge(resp))
		m.noteMissingLocked(resp)
	} else if ctx.Err() == nil && !known {
		m.client.opts.Logger.Warn("no node answers with metadata", "error", err)
	}
	m.announceLocked()
}

func (m *metadataCache) publishLocked(next *metadata) { m.current.Store(next) }

func (m *metadataCache) announceLocked() {
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// noteMissingLocked keeps since when the nodes say that a wanted topic does not exist, and stops wanting it at the end.
func (m *metadataCache) noteMissingLocked(resp *pb.MetadataResponse) {
	now := time.Now()
	for _, t := range resp.Topics {
		if rpc.Code(t.ErrorCode) != rpc.CodeUnknownTopicOrPartition {
			delete(m.mu.missing, t.Name)
			continue
		}
		since, ok := m.mu.missing[t.Name]
		switch {
		case !ok:
			m.mu.missing[t.Name] = now
		case now.Sub(since) > 2*unknownGrace+time.Minute:
			delete(m.mu.missing, t.Name)
			delete(m.mu.wanted, t.Name)
		}
	}
}

// hint takes over what a node said about the leader of a partition when it refused a request. It returns whether that is news.
func (m *metadataCache) hint(tp id.TopicPartition, node id.Node, epoch id.Epoch) bool {
	if node == id.NoNode {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.current.Load()
	l, _ := old.leader(tp)
	t := old.topics[tp.Topic]
	if t == nil || int(tp.Partition) >= len(t.partitions) || node == l.node || epoch < l.epoch {
		return false
	}
	if _, ok := old.nodes[node]; !ok {
		return false
	}
	next, changed := *old, *t
	changed.partitions = slices.Clone(t.partitions)
	changed.partitions[tp.Partition] = partitionMeta{leader: node, epoch: epoch}
	next.topics = make(map[string]*topicMeta, len(old.topics))
	for name, t := range old.topics {
		next.topics[name] = t
	}
	next.topics[tp.Topic] = &changed
	m.publishLocked(&next)
	m.announceLocked()
	return true
}

// addresses lists where to ask, best first: who answered last, the nodes that are known, the seeds.
func (m *metadataCache) addresses() []string {
	m.mu.Lock()
	last := m.mu.server
	m.mu.Unlock()
	var out []string
	add := func(addr string) {
		if addr != "" && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	add(last)
	for _, addr := range m.current.Load().nodes {
		add(addr)
	}
	for _, addr := range m.client.opts.Servers {
		add(addr)
	}
	return out
}

// fetch asks one node after the other, each as soon as the one before has failed or is slow, and returns the first answer.
func (m *metadataCache) fetch(ctx context.Context, req *pb.MetadataRequest) (*pb.MetadataResponse, string, error) {
	type result struct {
		resp   *pb.MetadataResponse
		server string
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, m.client.opts.RequestTimeout)
	defer cancel()
	servers := m.addresses()
	results := make(chan result, len(servers))
	asked, pending := 0, 0
	ask := func() {
		if asked == len(servers) {
			return
		}
		server := servers[asked]
		asked++
		pending++
		m.client.wg.Go(func() {
			resp, err := m.client.dialer.Admin(server).Metadata(ctx, req)
			results <- result{resp, server, err}
		})
	}
	var failures []error
	ask()
	for pending > 0 {
		select {
		case r := <-results:
			pending--
			if r.err == nil {
				return r.resp, r.server, nil
			}
			failures = append(failures, at(r.server, r.err))
			ask()
		case <-time.After(hedgeDelay):
			ask()
		}
	}
	return nil, "", errors.Join(failures...)
}

// merge returns the snapshot that follows from an answer. Which topics exist is decided by the answer with the higher
// metadata index, who leads them by the higher leader epoch: nodes learn of the two on different ways.
func (m *metadata) merge(resp *pb.MetadataResponse) *metadata {
	next := &metadata{
		clusterID:  resp.ClusterId,
		index:      resp.MetadataIndex,
		controller: id.Node(resp.Controller),
		nodes:      make(map[id.Node]string, len(resp.Nodes)),
		topics:     make(map[string]*topicMeta, len(resp.Topics)),
	}
	same := m.clusterID == resp.ClusterId
	alive := make(map[id.Node]bool, len(resp.Nodes))
	for _, n := range resp.Nodes {
		next.nodes[id.Node(n.Id)] = n.RpcAddress
		alive[id.Node(n.Id)] = n.Alive
	}
	if same && m.index > next.index {
		next.index, next.nodes = m.index, m.nodes
	}
	for _, t := range resp.Topics {
		old := m.topics[t.Name]
		if !same {
			old = nil
		}
		stale := same && resp.MetadataIndex < m.index
		switch {
		case rpc.Code(t.ErrorCode) != rpc.CodeNone || len(t.Id) != len(id.Topic{}):
			if stale && old != nil {
				next.topics[t.Name] = old
			}
		case stale && old != nil && old.id != id.Topic(t.Id):
			next.topics[t.Name] = old
		default:
			next.topics[t.Name] = mergeTopic(old, t, alive)
		}
	}
	return next
}

func mergeTopic(old *topicMeta, t *pb.Topic, alive map[id.Node]bool) *topicMeta {
	out := &topicMeta{
		name:            t.Name,
		id:              id.Topic(t.Id),
		partitions:      make([]partitionMeta, len(t.Partitions)),
		maxMessageBytes: DefaultMaxMessageBytes,
	}
	if v, err := strconv.Atoi(t.Configs["max.message.bytes"]); err == nil && v > 0 {
		out.maxMessageBytes = v
	}
	for i := range out.partitions {
		out.partitions[i] = partitionMeta{leader: id.NoNode, epoch: -1}
	}
	for _, p := range t.Partitions {
		if p.Partition < 0 || int(p.Partition) >= len(out.partitions) {
			continue
		}
		news := partitionMeta{leader: id.Node(p.Leader), epoch: id.Epoch(p.Epoch)}
		if old != nil && old.id == out.id && int(p.Partition) < len(old.partitions) {
			known := old.partitions[p.Partition]
			same := known.epoch == news.epoch && news.leader == id.NoNode && alive[known.leader]
			if known.epoch > news.epoch || same {
				news = known
			}
		}
		out.partitions[p.Partition] = news
	}
	return out
}
