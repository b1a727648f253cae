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
	// refreshes bring nothing new it grows to a troubleShare-th of how long that has lasted, and to refreshIntervalMax at most, and by
	// up to a quarter more: clients that have lost the same leader shall not go on asking in step.
	refreshInterval    = 50 * time.Millisecond
	refreshIntervalMax = time.Second
	troubleShare       = 6
	// maxAskTopics and maxAskPartitions bound what is asked for at once, and with it the answer. A topic of which nothing is known may have more
	// partitions than that.
	maxAskTopics     = 200
	maxAskPartitions = 10_000
	// hedgeDelay is after how long without an answer the next node is asked as well: a frozen node answers nothing at all.
	hedgeDelay = 250 * time.Millisecond
	// unknownGrace is how long a topic must be unknown before that is believed: the nodes asked may not have heard of it yet.
	unknownGrace = 2 * time.Second
	// unknownMemory is for how long it counts that nodes did not know a topic: if it was asked for long ago, it may have been created since.
	unknownMemory = 2 * unknownGrace
	// unknownVoices is how many nodes must say so, if there are as many that answer.
	unknownVoices = 3
)

// metadataCache keeps the newest snapshot of the topics that somebody asked for. One goroutine refreshes it, never twice at the same time. What is
// known already is asked for when somebody doubts it, topic by topic, or when it is old, at most every refreshInterval. A topic that is
// wanted for the first time is asked for at once, alone or with others that are new as well.
type metadataCache struct {
	client  *Client
	current atomic.Pointer[metadata]
	kick    chan struct{} // capacity 1: a refresh is wanted
	hurry   chan struct{} // capacity 1: and the pause after the last one is cut short
	fresh   chan struct{} // capacity 1: there is a topic that nobody has asked for yet

	mu struct {
		sync.Mutex
		wanted    map[string]struct{}
		fresh     map[string]struct{}  // wanted, not asked for yet
		doubted   map[string]struct{}  // to be asked for with the next refresh
		missing   map[string]*absence  // wanted, unknown to the nodes
		answered  map[string]time.Time // when that was asked which the snapshot says of a topic
		changed   chan struct{}        // closed and replaced with each answer and each hint
		refreshes uint64               // completed, successful or not
		err       error                // of the last refresh
		sources   sources
		settled   bool      // the cluster is the right one: it was named, or knows a topic that was asked for
		trouble   time.Time // since when refreshes have brought nothing new; zero: the last one did
		ended     time.Time // the last refresh
		began     time.Time // the last request for metadata
		reach     reach
		denied    denials
	}
}

// absence is a topic that nodes which are up to date do not know.
type absence struct {
	since, last time.Time
	asked       time.Time           // when what was answered last had been asked
	said        map[string]struct{} // by whom
}

func (m *metadataCache) init(c *Client) {
	m.client = c
	m.kick = make(chan struct{}, 1)
	m.hurry = make(chan struct{}, 1)
	m.fresh = make(chan struct{}, 1)
	m.mu.wanted = make(map[string]struct{})
	m.mu.fresh = make(map[string]struct{})
	m.mu.doubted = make(map[string]struct{})
	m.mu.missing = make(map[string]*absence)
	m.mu.answered = make(map[string]time.Time)
	m.mu.changed = make(chan struct{})
	m.mu.sources = sources{turn: rand.IntN(1 << 20), shunned: make(map[string]time.Time), foreign: make(map[string]*WrongClusterError)}
	m.current.Store(&metadata{controller: id.NoNode, clusterID: c.opts.ClusterID})
	if c.opts.ClusterID != "" {
		m.mu.settled = true
		c.dialer.MeansCluster(c.opts.ClusterID)
	}
}

// request asks for a refresh of all that is wanted. It does not wait.
func (m *metadataCache) request() {
	m.mu.Lock()
	m.mu.doubted = maps.Clone(m.mu.wanted)
	m.mu.Unlock()
	poke(m.kick)
}

// requestNodes asks for a refresh of the nodes and the controller.
func (m *metadataCache) requestNodes() { poke(m.kick) }

// requestFor asks for a refresh of one topic.
func (m *metadataCache) requestFor(topic string) {
	m.mu.Lock()
	m.mu.doubted[topic] = struct{}{}
	m.mu.Unlock()
	poke(m.kick)
}

// doubt asks for a refresh of what a node leads: it is not reached.
func (m *metadataCache) doubt(node id.Node) {
	m.mu.Lock()
	for name, t := range m.current.Load().topics {
		if slices.ContainsFunc(t.partitions, func(p partitionMeta) bool { return p.leader == node }) {
			m.mu.doubted[name] = struct{}{}
		}
	}
	m.mu.Unlock()
	poke(m.kick)
}

// urgent is doubt for something that has just broken, and may not wait for as long as what has been broken for a while.
func (m *metadataCache) urgent(node id.Node) {
	m.mu.Lock()
	m.mu.trouble = time.Time{}
	m.mu.Unlock()
	m.doubt(node)
	poke(m.hurry)
}

// changed returns a channel that is closed when the snapshot may have changed.
func (m *metadataCache) changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

// want keeps a topic in the snapshot.
func (m *metadataCache) want(topic string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.mu.wanted[topic]; ok {
		return
	}
	m.mu.wanted[topic] = struct{}{}
	m.mu.fresh[topic] = struct{}{}
	poke(m.fresh)
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
	if err := m.mu.denied.of(topic); err != nil {
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
	start, begin := m.refreshes(), time.Now()
	for {
		changed := m.changed()
		if t := m.current.Load().topics[name]; t != nil {
			return t, nil
		}
		if err := m.absent(name); err != nil && m.askedSince(name, begin) {
			return nil, err
		}
		if err := m.otherRelease(); err != nil && m.refreshes() > start {
			return nil, fmt.Errorf("client: no metadata of topic %q: %w", name, err)
		}
		if m.asked(name) {
			m.requestFor(name)
		}
		select {
		case <-changed:
		case <-m.client.ctx.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("client: no metadata of topic %q: %w", name, m.because(ctx.Err()))
		}
	}
}

// answeredSince tells whether the snapshot says of a topic what nodes said when they were asked after a time.
func (m *metadataCache) answeredSince(topic string, begin time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.answered[topic].After(begin)
}

// askedSince tells whether nodes have said that they do not know a topic when they were asked after a time. The refresh that ends next may have begun
// before that, and the topic may have been created meanwhile. If no node answers for it, all that is said is that of other servers.
func (m *metadataCache) askedSince(topic string, begin time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d, ok := m.mu.denied[topic]; ok {
		return d.at.After(begin)
	}
	if a := m.mu.missing[topic]; a != nil {
		return a.asked.After(begin)
	}
	return m.mu.began.After(begin)
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

// unreachable returns since when no node has answered, and why; zero: one has.
func (m *metadataCache) unreachable() (since time.Time, cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.reach.since, m.mu.reach.err
}

// asked tells whether a wanted topic has been asked for before: then it has its turn with the others.
func (m *metadataCache) asked(topic string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, fresh := m.mu.fresh[topic]
	return !fresh
}

// run is the refreshing goroutine.
func (m *metadataCache) run() {
	ctx := m.client.ctx
	old := time.NewTimer(m.client.opts.MetadataMaxAge)
	defer old.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	wanted, ended, notBefore := false, time.Time{}, time.Time{}
	for {
		var due <-chan time.Time
		if wanted {
			timer.Reset(time.Until(notBefore))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-m.fresh:
			m.introduce(ctx)
		case <-m.hurry:
			if soon := ended.Add(refreshInterval); soon.Before(notBefore) {
				notBefore = soon
			}
		case <-m.kick:
			wanted = true
		case <-old.C:
			m.request()
		case <-due:
			wanted = false
			pause := m.refresh(ctx)
			ended = time.Now()
			notBefore = ended.Add(pause)
			old.Reset(m.client.opts.MetadataMaxAge)
		}
	}
}

// introduce asks for the topics that are wanted for the first time. What that brings says nothing about those that are waited for already.
func (m *metadataCache) introduce(ctx context.Context) {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.mu.fresh))
	clear(m.mu.fresh)
	m.mu.Unlock()
	if len(names) == 0 {
		return
	}
	err := m.askAll(ctx, names, false)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endedLocked(ctx, err)
}

// refresh asks for what is in doubt, and returns how long to leave the nodes alone then.
func (m *metadataCache) refresh(ctx context.Context) time.Duration {
	m.mu.Lock()
	var names []string
	for name := range m.mu.doubted {
		if _, ok := m.mu.wanted[name]; ok {
			names = append(names, name)
			delete(m.mu.fresh, name)
		}
	}
	clear(m.mu.doubted)
	if time.Since(m.mu.ended) > 2*refreshIntervalMax {
		m.mu.trouble = time.Time{} // it is over: nobody has asked
	}
	before := m.current.Load()
	all := !m.mu.trouble.IsZero()
	m.mu.Unlock()
	slices.Sort(names)

	err := m.askAll(ctx, names, all)

	m.mu.Lock()
	defer m.mu.Unlock()
	news := m.current.Load().news(before)
	m.mu.sources.refreshed(news)
	m.endedLocked(ctx, err)
	return m.restLocked(news, time.Now())
}

// restLocked is pauseLocked with what keeps clients out of step.
func (m *metadataCache) restLocked(news bool, now time.Time) time.Duration {
	pause := m.pauseLocked(news, now)
	return pause + rand.N(pause/4)
}

// endedLocked notes the end of a refresh.
func (m *metadataCache) endedLocked(ctx context.Context, err error) {
	m.mu.refreshes++
	if err != nil && m.mu.err == nil && ctx.Err() == nil {
		m.client.opts.Logger.Warn("no node answers with metadata that is up to date", "error", err)
	}
	m.mu.err = err
	m.mu.reach.refreshed(m.mu.began, err)
	m.announceLocked()
}

// askAll asks for topics, as many at a time as one answer may have.
func (m *metadataCache) askAll(ctx context.Context, names []string, all bool) error {
	if len(names) == 0 {
		return m.ask(ctx, &pb.MetadataRequest{NodesOnly: true}, all)
	}
	for len(names) > 0 {
		n := m.current.Load().atOnce(names)
		if err := m.ask(ctx, &pb.MetadataRequest{Topics: names[:n]}, all); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
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

// doubtful has an address asked after others.
func (m *metadataCache) doubtful(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.sources.shun(addr, time.Now())
}

// noteMissingLocked keeps since when nodes that should know say that a wanted topic does not exist, and stops wanting it at the end.
func (m *metadataCache) noteMissingLocked(server string, resp *pb.MetadataResponse) {
	now := time.Now()
	for _, t := range resp.Topics {
		if denialOf(t) == nil || !stale(ageOf(resp)) { // who was cut off does not know what was allowed since
			m.mu.denied.note(t)
		}
		if m.current.Load().topics[t.Name] != nil {
			delete(m.mu.missing, t.Name)
			if !stale(ageOf(resp)) && resp.MetadataIndex >= m.current.Load().index {
				m.mu.answered[t.Name] = m.mu.began
			}
			continue
		}
		delete(m.mu.answered, t.Name)
		if kerr.Code(t.ErrorCode) != kerr.UnknownTopicOrPartition || stale(ageOf(resp)) || resp.MetadataIndex < m.current.Load().index {
			continue
		}
		a := m.mu.missing[t.Name]
		switch {
		case a != nil && now.Sub(a.since) > 2*unknownGrace+time.Minute:
			delete(m.mu.missing, t.Name)
			delete(m.mu.wanted, t.Name)
		case a == nil || now.Sub(a.last) > unknownMemory:
			m.mu.missing[t.Name] = &absence{since: now, last: now, asked: m.mu.began, said: map[string]struct{}{server: {}}}
		default:
			a.last, a.asked = now, m.mu.began
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

// ranked is addresses, and how many of them are to be asked before the others.
func (m *metadataCache) ranked() (servers []string, first int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	servers = m.mu.sources.order(m.current.Load().nodes, m.client.opts.Servers, now)
	for first < len(servers) && m.mu.sources.rank(servers[first], now) == 0 {
		first++
	}
	return servers, first
}

// errNoMajority says that nodes answer, and none of them knows more than it did when it lost its peers.
var errNoMajority = errors.New("client: no node that answers has had word from a majority of the cluster lately")

// ask asks one node after the other, each as soon as the one before has failed, is slow or has not enough to say, and takes what they
// answer. It ends with the first answer that is enough; where there is none, a moment after the first one.
//
// Once a refresh has brought nothing new, all are asked: in a cut cluster those who hear the majority of the metadata, and are up to date by
// that, may not hear the majority of a partition. Whoever leads it now is known on the other side only.
func (m *metadataCache) ask(ctx context.Context, req *pb.MetadataRequest, all bool) error {
	type result struct {
		resp   *pb.MetadataResponse
		server string
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, m.client.opts.RequestTimeout)
	defer cancel()
	m.mu.Lock()
	m.mu.began = time.Now()
	m.mu.Unlock()
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
	answered := false
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
