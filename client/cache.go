package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// refreshInterval is the least time between two refreshes: what bounds the load when many partitions lose their leader. As long as
	// refreshes bring nothing new it grows to a troubleShare-th of how long that has lasted, and to refreshIntervalMax at most.
	refreshInterval    = 50 * time.Millisecond
	refreshIntervalMax = time.Second
	troubleShare       = 8
	// hedgeDelay is after how long without an answer the next node is asked as well: a frozen node answers nothing at all.
	hedgeDelay = 250 * time.Millisecond
	// unknownGrace is how long a topic must be unknown before that is believed: the nodes asked may not have heard of it yet.
	unknownGrace = 2 * time.Second
	// unknownMemory is for how long it counts that nodes did not know a topic: if it was asked for long ago, it may have been created since.
	unknownMemory = 2 * unknownGrace
	// unknownVoices is how many nodes must say so, if there are as many that answer.
	unknownVoices = 3
)

// metadataCache keeps the newest snapshot of the topics that somebody asked for. One goroutine refreshes it: when it is asked
// to, when it is old, never twice at the same time and at most every refreshInterval.
type metadataCache struct {
	client  *Client
	current atomic.Pointer[metadata]
	kick    chan struct{} // capacity 1: a refresh is wanted
	hurry   chan struct{} // capacity 1: and the pause after the last one is cut short

	mu struct {
		sync.Mutex
		wanted    map[string]struct{}
		missing   map[string]*absence // wanted, unknown to the nodes
		changed   chan struct{}       // closed and replaced with each answer and each hint
		refreshes uint64              // completed, successful or not
		err       error               // of the last refresh
		sources   sources
		settled   bool      // the cluster is the right one: it was named, or knows a topic that was asked for
		trouble   time.Time // since when refreshes have brought nothing new; zero: the last one did
		ended     time.Time // the last refresh
		reach     reach
		denied    map[string]denial // by topic
	}
}

// absence is a topic that nodes which are up to date do not know.
type absence struct {
	since, last time.Time
	said        map[string]struct{} // by whom
}

func (m *metadataCache) init(c *Client) {
	m.client = c
	m.kick = make(chan struct{}, 1)
	m.hurry = make(chan struct{}, 1)
	m.mu.wanted = make(map[string]struct{})
	m.mu.missing = make(map[string]*absence)
	m.mu.changed = make(chan struct{})
	m.mu.sources = sources{turn: rand.IntN(1 << 20), shunned: make(map[string]time.Time), foreign: make(map[string]*WrongClusterError)}
	m.current.Store(&metadata{controller: id.NoNode, clusterID: c.opts.ClusterID})
	if c.opts.ClusterID != "" {
		m.mu.settled = true
		c.dialer.MeansCluster(c.opts.ClusterID)
	}
}

// request asks for a refresh. It does not wait.
func (m *metadataCache) request() { poke(m.kick) }

// urgent is request for something that has just broken, and may not wait for as long as what has been broken for a while.
func (m *metadataCache) urgent() {
	m.mu.Lock()
	m.mu.trouble = time.Time{}
	m.mu.Unlock()
	poke(m.kick)
	poke(m.hurry)
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

// absent returns an error once it is believed that a topic does not exist, or that no node of the cluster is among those that are asked.
func (m *metadataCache) absent(topic string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wrong, ok := m.mu.err.(*WrongClusterError); ok { //nolint:errorlint // that of all servers; others are joined
		return wrong
	}
	if err := m.deniedLocked(topic); err != nil {
		return fmt.Errorf("client: topic %q: %w", topic, err)
	}
	a := m.mu.missing[topic]
	if a == nil || time.Since(a.last) > unknownMemory || a.last.Sub(a.since) < unknownGrace || len(a.said) < min(unknownVoices, m.voicesLocked()) {
		return nil
	}
	for _, wrong := range m.mu.sources.foreign {
		return fmt.Errorf("%w %q: cluster %s does not have it; but %w", ErrUnknownTopic, topic, m.current.Load().clusterID, wrong)
	}
	return fmt.Errorf("%w %q: it does not exist; create it first, or correct its name", ErrUnknownTopic, topic)
}

// voicesLocked is how many nodes can be expected to answer.
func (m *metadataCache) voicesLocked() int {
	now := time.Now()
	n := 0
	for _, address := range m.mu.sources.order(m.current.Load().nodes, m.client.opts.Servers, now) {
		if m.mu.sources.rank(address, now) == 0 {
			n++
		}
	}
	return max(n, 1)
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
		if err := m.absent(name); err != nil && m.refreshes() > start+1 {
			return nil, err
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
	if !m.mu.reach.since.IsZero() {
		err = fmt.Errorf("%w: %w", err, ErrNoNodeReachable)
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
		pause := m.refresh(ctx)
		select {
		case <-m.hurry: // before or during the refresh
			pause = refreshInterval
		default:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-m.hurry:
		}
	}
}

// refresh asks for what is wanted, and returns how long to leave the nodes alone then.
func (m *metadataCache) refresh(ctx context.Context) time.Duration {
	m.mu.Lock()
	req := &pb.MetadataRequest{Topics: slices.Sorted(maps.Keys(m.mu.wanted))}
	if time.Since(m.mu.ended) > 2*refreshIntervalMax {
		m.mu.trouble = time.Time{} // it is over: nobody has asked
	}
	before := m.current.Load()
	m.mu.Unlock()
	req.NodesOnly = len(req.Topics) == 0

	began := time.Now()
	err := m.ask(ctx, req)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.refreshes++
	if err != nil && m.mu.err == nil && ctx.Err() == nil {
		m.client.opts.Logger.Warn("no node answers with metadata that is up to date", "error", err)
	}
	m.mu.err = err
	m.mu.reach.refreshed(began, err)
	news := m.current.Load().news(before)
	m.mu.sources.refreshed(news)
	m.announceLocked()
	return m.pauseLocked(news, time.Now())
}

// pauseLocked is how long to leave the nodes alone after a refresh that ends now.
func (m *metadataCache) pauseLocked(news bool, now time.Time) time.Duration {
	m.mu.ended = now
	switch {
	case news:
		m.mu.trouble = time.Time{}
	case m.mu.trouble.IsZero():
		m.mu.trouble = now
	default:
		return min(max(refreshInterval, now.Sub(m.mu.trouble)/troubleShare), refreshIntervalMax)
	}
	return refreshInterval
}

func (m *metadataCache) publishLocked(next *metadata) { m.current.Store(next) }

func (m *metadataCache) announceLocked() {
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// take makes an answer part of the snapshot. It returns whether nobody else need be asked; an error says that it is of no use.
func (m *metadataCache) take(server string, req *pb.MetadataRequest, resp *pb.MetadataResponse) (enough bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if enough, err = m.judgeLocked(server, req, resp); err != nil {
		return false, err
	}
	before := m.current.Load()
	next := before.merge(resp)
	m.publishLocked(next)
	if enough && next.news(before) {
		m.mu.sources.good(server) // of all that are asked it is the one to go on with, from now on
		m.mu.sources.stuck = false
	}
	m.noteMissingLocked(server, resp)
	m.announceLocked()
	return enough, nil
}

// judge is take for an answer that somebody else asked for, which may have other topics than the snapshot. Of the nodes it has all.
func (m *metadataCache) judge(server string, req *pb.MetadataRequest, resp *pb.MetadataResponse) (enough bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if enough, err = m.judgeLocked(server, req, resp); err != nil {
		return false, err
	}
	old := m.current.Load()
	next := old.merge(&pb.MetadataResponse{
		ClusterId: resp.ClusterId, MetadataIndex: resp.MetadataIndex, Controller: resp.Controller, Nodes: resp.Nodes, AgeMs: resp.AgeMs,
	})
	next.topics = old.topics
	m.publishLocked(next)
	return enough, nil
}

// judgeLocked tells whether an answer settles what was asked. That of a node which had no word from a majority lately does not, nor does
// it while it is not settled which cluster is meant.
//
// The cluster is the one that Options name, else that of the first answer. But servers of two clusters may have been named, one founded by
// mistake, and the wrong one answers first: so the first one that knows a topic which is asked for is the right one. From then on all
// others are refused.
func (m *metadataCache) judgeLocked(server string, req *pb.MetadataRequest, resp *pb.MetadataResponse) (enough bool, err error) {
	m.mu.reach.answered(time.Now())
	knows := len(req.Topics) == 0 || slices.ContainsFunc(resp.Topics, func(t *pb.Topic) bool { return kerr.Code(t.ErrorCode) == kerr.None })
	ours := m.current.Load().clusterID
	if ours != resp.ClusterId {
		if ours != "" && (m.mu.settled || !knows) {
			wrong := &WrongClusterError{Server: server, Ours: ours, Theirs: resp.ClusterId}
			m.mu.sources.wrongCluster(wrong)
			return false, wrong
		}
		clear(m.mu.missing)
		m.publishLocked(&metadata{controller: id.NoNode, clusterID: resp.ClusterId})
	}
	if !m.mu.settled && knows {
		m.mu.settled = true
		m.client.dialer.MeansCluster(resp.ClusterId)
	}
	if stale(ageOf(resp)) {
		m.mu.sources.shun(server, time.Now())
		return false, nil
	}
	if m.mu.sources.fresh(server); m.mu.trouble.IsZero() {
		m.mu.sources.good(server)
	}
	return m.mu.settled, nil
}

// settled tells whether it is known which cluster is meant.
func (m *metadataCache) settled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.settled
}

// refused notes why a server did not answer, and returns that as an error that names it.
func (m *metadataCache) refused(server string, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kerr.CodeOf(err) == kerr.InconsistentClusterID {
		m.mu.reach.answered(time.Now())
		wrong := &WrongClusterError{Server: server, Ours: m.current.Load().clusterID, Err: err}
		m.mu.sources.wrongCluster(wrong)
		return wrong
	}
	if isAnswer(err) {
		m.mu.reach.answered(time.Now())
	}
	m.mu.sources.shun(server, time.Now())
	return at(server, err)
}

// noteMissingLocked keeps since when nodes that should know say that a wanted topic does not exist, and stops wanting it at the end.
func (m *metadataCache) noteMissingLocked(server string, resp *pb.MetadataResponse) {
	now := time.Now()
	for _, t := range resp.Topics {
		m.noteDenialLocked(t)
		if m.current.Load().topics[t.Name] != nil {
			delete(m.mu.missing, t.Name)
			continue
		}
		if kerr.Code(t.ErrorCode) != kerr.UnknownTopicOrPartition || stale(ageOf(resp)) || resp.MetadataIndex < m.current.Load().index {
			continue
		}
		a := m.mu.missing[t.Name]
		switch {
		case a != nil && now.Sub(a.since) > 2*unknownGrace+time.Minute:
			delete(m.mu.missing, t.Name)
			delete(m.mu.wanted, t.Name)
		case a == nil || now.Sub(a.last) > unknownMemory:
			m.mu.missing[t.Name] = &absence{since: now, last: now, said: map[string]struct{}{server: {}}}
		default:
			a.last = now
			a.said[server] = struct{}{}
		}
	}
}

// hint takes over what a node said about the leader of a partition when it refused a request. It returns whether that is news. The request
// was for a topic of that id: if another one has its name by now, whose epochs begin anew, the epoch of the old one would be believed for ever.
func (m *metadataCache) hint(tp id.TopicPartition, topic id.Topic, node id.Node, epoch id.Epoch) bool {
	if node == id.NoNode {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.current.Load()
	t := old.topics[tp.Topic]
	if t == nil || t.id != topic || int(tp.Partition) >= len(t.partitions) {
		return false
	}
	known := t.partitions[tp.Partition]
	if epoch < known.epoch || epoch == known.epoch && known.leader != id.NoNode {
		return false
	}
	if _, ok := old.nodes[node]; !ok {
		return false
	}
	next, changed := *old, *t
	changed.partitions = slices.Clone(t.partitions)
	changed.partitions[tp.Partition] = partitionMeta{leader: node, epoch: epoch}
	next.topics = maps.Clone(old.topics)
	next.topics[tp.Topic] = &changed
	m.publishLocked(&next)
	m.announceLocked()
	return true
}

// addresses lists where to ask, best first.
func (m *metadataCache) addresses() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.sources.order(m.current.Load().nodes, m.client.opts.Servers, time.Now())
}

// errNoMajority says that nodes answer, and none of them knows more than it did when it lost its peers.
var errNoMajority = errors.New("client: no node that answers has had word from a majority of the cluster lately")

// ask asks one node after the other, each as soon as the one before has failed, is slow or has not enough to say, and takes what they
// answer. It ends with the first answer that is enough; where there is none, a moment after the first one.
//
// Once a refresh has brought nothing new it asks all: in a cut cluster those who hear the majority of the metadata, and are up to date by
// that, may not hear the majority of a partition. Whoever leads it now is known on the other side only.
func (m *metadataCache) ask(ctx context.Context, req *pb.MetadataRequest) error {
	type result struct {
		resp   *pb.MetadataResponse
		server string
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, m.client.opts.RequestTimeout)
	defer cancel()
	servers := m.addresses()
	results := make(chan result, len(servers))
	open := make(map[string]time.Time) // since when
	defer func() { m.shunSlow(open) }()
	asked := 0
	next := func() {
		if asked == len(servers) {
			return
		}
		server := servers[asked]
		asked++
		open[server] = time.Now()
		m.client.wg.Go(func() {
			resp, err := m.client.dialer.Admin(server).Metadata(ctx, req)
			results <- result{resp, server, err}
		})
	}
	var failures []error
	var settle <-chan time.Time // set by the first answer that was not enough
	all, answered := m.inTrouble(), false
	next()
	for len(open) > 0 {
		select {
		case r := <-results:
			delete(open, r.server)
			enough, err := false, r.err
			if err == nil {
				enough, err = m.take(r.server, req, r.resp)
			} else {
				err = m.refused(r.server, err)
			}
			switch {
			case enough && !all:
				return nil
			case err != nil:
				failures = append(failures, err)
			case settle == nil:
				settle = time.After(2 * hedgeDelay)
			}
			answered = answered || enough
			next()
			continue
		case <-time.After(hedgeDelay):
			next()
			continue
		case <-settle:
		}
		break
	}
	switch {
	case answered:
		return nil
	case settle != nil:
		return m.unsettled(failures)
	}
	return allOf(failures)
}

// inTrouble tells whether the last refresh brought nothing new, and this one follows because somebody still waits for it.
func (m *metadataCache) inTrouble() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.mu.trouble.IsZero()
}

// unsettled is the error of a refresh that had answers, and none that was enough.
func (m *metadataCache) unsettled(failures []error) error {
	if !m.settled() {
		return errors.Join(failures...) // the topic is unknown to all of them
	}
	return errors.Join(append([]error{errNoMajority}, failures...)...)
}

// allOf joins errors. If all servers are of another cluster, it is the first one itself: nothing is to be waited for.
func allOf(failures []error) error {
	if len(failures) == 0 || slices.ContainsFunc(failures, func(err error) bool { return !errors.Is(err, ErrWrongCluster) }) {
		return errors.Join(failures...)
	}
	return failures[0]
}

// shunSlow has those asked later in the future who were overtaken by others.
func (m *metadataCache) shunSlow(open map[string]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for server, since := range open {
		if now.Sub(since) >= hedgeDelay {
			m.mu.sources.shun(server, now)
		}
	}
}
