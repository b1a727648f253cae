package client

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestNewestEpochWins goes through what can be said of a partition whose leader is known to be node 1 in epoch 5.
func TestNewestEpochWins(t *testing.T) {
	known := partitionMeta{leader: 1, epoch: 5}
	gone := partitionMeta{leader: id.NoNode, epoch: 5}
	tests := []struct {
		name         string
		known, news  partitionMeta
		fresh, alive bool
		want         partitionMeta
	}{
		{"a newer leader", known, partitionMeta{2, 7}, true, true, partitionMeta{2, 7}},
		{"a newer leader, from a node that is cut off", known, partitionMeta{2, 7}, false, true, partitionMeta{2, 7}},
		{"an older leader", known, partitionMeta{2, 4}, true, true, known},
		{"an older leader when there is none", gone, partitionMeta{2, 4}, true, true, gone},
		{"the same one again", gone, partitionMeta{1, 5}, false, false, known},
		{"nobody, from a node that is cut off", known, partitionMeta{id.NoNode, 9}, false, false, known},
		{"nobody, from one that does not see the leader", known, partitionMeta{id.NoNode, 5}, true, false, gone},
		{"nobody, from one that sees the leader", known, partitionMeta{id.NoNode, 5}, true, true, known},
		{"nobody, from one that is behind", known, partitionMeta{id.NoNode, 4}, true, false, known},
		{"an election: nobody yet, and the epoch may never have a leader", known, partitionMeta{id.NoNode, 9}, true, true, gone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.known.update(tt.news, tt.fresh, tt.alive); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// newTestCache returns a cache that nobody refreshes.
func newTestCache(t *testing.T, servers ...string) *metadataCache {
	t.Helper()
	c := &Client{opts: Options{Servers: servers}.withDefaults()}
	c.cache.init(t.Context(), &c.opts, &c.dialer, &c.wg)
	return &c.cache
}

func testAnswer(cluster string, age time.Duration, topics ...*pb.Topic) *pb.MetadataResponse {
	return &pb.MetadataResponse{
		ClusterId: cluster, MetadataIndex: 3, AgeMs: age.Milliseconds(), Topics: topics,
		Nodes: []*pb.Node{{Id: 1, RpcAddress: "a:1", Alive: true}, {Id: 2, RpcAddress: "b:1", Alive: true}, {Id: 3, RpcAddress: "c:1", Alive: true}},
	}
}

func testTopic(leader, epoch int32) *pb.Topic {
	return &pb.Topic{Name: "t", Id: make([]byte, 16), Partitions: []*pb.Partition{{Leader: leader, Epoch: epoch}}}
}

func unknownTopic() *pb.Topic {
	return &pb.Topic{Name: "t", ErrorCode: int32(kerr.UnknownTopicOrPartition)}
}

// TestHintsNeedAnEpoch: a node that refuses a request names the leader that it knows. It may know less than the client.
func TestHintsNeedAnEpoch(t *testing.T) {
	m := newTestCache(t, "a:1")
	if enough, err := m.take("a:1", &pb.MetadataRequest{Topics: []string{"t"}}, testAnswer("c", 0, testTopic(1, 5))); !enough || err != nil {
		t.Fatal(enough, err)
	}
	tp := id.TopicPartition{Topic: "t"}
	for _, h := range []struct {
		node  id.Node
		epoch id.Epoch
		want  bool
	}{{2, 4, false}, {2, 5, false}, {2, 0, false}, {id.NoNode, 9, false}, {9, 9, false}, {2, 6, true}, {1, 5, false}} {
		if got := m.hint(tp, id.Topic{}, h.node, h.epoch); got != h.want {
			t.Errorf("node %d in epoch %d: taken %v, want %v", h.node, h.epoch, got, h.want)
		}
	}
	if l, _ := m.current.Load().leader(tp); l.node != 2 || l.epoch != 6 {
		t.Errorf("%+v", l)
	}
}

// TestHintOfADeletedTopic: the topic was deleted and created again, and its epochs begin anew. A node still answers what it was asked of the
// old one.
func TestHintOfADeletedTopic(t *testing.T) {
	m := newTestCache(t, "a:1")
	req := &pb.MetadataRequest{Topics: []string{"t"}}
	old, anew := testTopic(1, 50), testTopic(2, 3)
	anew.Id[0] = 1
	for _, topic := range []*pb.Topic{old, anew} {
		if _, err := m.take("a:1", req, testAnswer("c", 0, topic)); err != nil {
			t.Fatal(err)
		}
	}
	tp := id.TopicPartition{Topic: "t"}
	if m.hint(tp, id.Topic(old.Id), 1, 51) {
		t.Error("the leader of the deleted topic is taken for that of the new one")
	}
	if l, ok := m.current.Load().leader(tp); !ok || l.node != 2 || l.epoch != 3 {
		t.Errorf("%+v", l)
	}
	if !m.hint(tp, id.Topic(anew.Id), 1, 4) {
		t.Error("the new topic's next leader is not taken over")
	}
}

// TestNodeAtANewAddress: a node was started again at another address, and leads again. Its old one has gone without a word.
func TestNodeAtANewAddress(t *testing.T) {
	c, err := New(Options{Servers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.NewConsumer(ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tp := id.TopicPartition{Topic: "t"}
	k.mu.Lock()
	old := newFetchStream(k, 1, "127.0.0.1:2") // nobody runs it
	cur := &cursor{tp: tp, next: 7, stream: old, subscription: 1, epoch: 5, heard: time.Now()}
	old.subscriptions[1], k.mu.streams[1] = cur, old
	known := func(epoch id.Epoch) *metadata {
		return &metadata{
			nodes:  map[id.Node]string{1: "127.0.0.1:1"},
			topics: map[string]*topicMeta{"t": {name: "t", partitions: []partitionMeta{{leader: 1, epoch: epoch}}}},
		}
	}
	if k.watchLocked(cur, known(5), time.Now()); cur.stream != old {
		t.Error("left in the epoch that it was subscribed in")
	}
	if k.watchLocked(cur, known(6), time.Now()); cur.stream != nil {
		t.Error("stays at the old address")
	}
	l, _ := known(6).leader(tp)
	if s, _ := k.streamToLocked(l, time.Now()); s == nil || s == old || s.addr != l.addr {
		t.Errorf("subscribes at %+v", s)
	}
	k.mu.Unlock()
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if old.ctx.Err() == nil {
		t.Error("the old stream is kept")
	}
}

// TestSourcesGoRound: who answered last is asked again, but not if that brought nothing new.
func TestSourcesGoRound(t *testing.T) {
	s := sources{shunned: map[string]time.Time{}, foreign: map[string]*WrongClusterError{}}
	nodes := map[id.Node]string{1: "a", 2: "b", 3: "c"}
	now := time.Now()
	order := func() []string { return s.order(nodes, []string{"c", "seed"}, now) }
	s.good("b")
	if got := order(); got[0] != "b" || len(got) != 4 {
		t.Errorf("%v: who answered last comes first, everybody once", got)
	}
	first := make(map[string]bool)
	for range 5 {
		s.refreshed(false)
		first[order()[0]] = true
	}
	if len(first) != 4 {
		t.Errorf("only %v were asked first in five refreshes without news", first)
	}
	s.refreshed(true)
	s.good("a")
	s.shun("a", now)
	s.wrongCluster(&WrongClusterError{Server: "b"})
	if got := order(); got[3] != "b" || got[2] != "a" {
		t.Errorf("%v: who does not know comes behind the others, and who is of another cluster last", got)
	}
	now = now.Add(2 * shunTime)
	if got := order(); slices.Index(got, "a") == 2 || got[3] != "b" {
		t.Errorf("%v: who did not know is asked again", got)
	}
}

// TestRefreshesSlowDown: what is broken for long is asked about seldom.
func TestRefreshesSlowDown(t *testing.T) {
	m := newTestCache(t, "a:1")
	now := time.Now()
	asked := make(map[int]int) // by second
	for begin := now; now.Sub(begin) < 20*time.Second; {
		asked[int(now.Sub(begin)/time.Second)]++
		now = now.Add(m.pauseLocked(false, now))
	}
	if asked[0] < 10 || asked[19] > 1 {
		t.Errorf("refreshes by second: %v", asked)
	}
	if pause := m.pauseLocked(true, now); pause != refreshInterval {
		t.Errorf("after news %v", pause)
	}
}

// TestLeaderlessPartitionIsAskedAboutSeldom counts the refreshes that a client makes which has nothing to do but to wait for a leader.
func TestLeaderlessPartitionIsAskedAboutSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestCache(t, "a:1")
		m.want("t")
		answer := testAnswer("c", 0, testTopic(int32(id.NoNode), 7))
		var pauses []time.Duration
		for begin := time.Now(); time.Since(begin) < 30*time.Second; {
			m.mu.Lock() // a refresh whose every answer is the same, as the end of it sees it
			before := m.current.Load()
			m.mu.Unlock()
			_, _ = m.take("a:1", &pb.MetadataRequest{Topics: []string{"t"}}, answer)
			_, _ = m.take("a:1", &pb.MetadataRequest{Topics: []string{"other"}}, testAnswer("c", 0, &pb.Topic{Name: "other", Id: make([]byte, 16)}))
			m.mu.Lock()
			pause := m.restLocked(m.current.Load().news(before), time.Now())
			m.mu.Unlock()
			pauses = append(pauses, pause)
			time.Sleep(pause) // of the bubble's clock
		}
		seen := make(map[time.Duration]bool)
		for _, pause := range pauses[len(pauses)-10:] {
			if pause < time.Second || pause > 2*time.Second {
				t.Errorf("a pause of %v", pause)
			}
			seen[pause] = true
		}
		if len(seen) < 5 {
			t.Errorf("pauses %v: clients go on in step", seen)
		}
	})
}

// TestAnswersAreBounded: many topics are not asked for at once, nor large ones.
func TestAnswersAreBounded(t *testing.T) {
	known := &metadata{topics: map[string]*topicMeta{}}
	var names []string
	for i := range 450 {
		name := fmt.Sprintf("t%03d", i)
		names = append(names, name)
		if i >= 400 {
			known.topics[name] = &topicMeta{name: name, partitions: make([]partitionMeta, 3000)}
		}
	}
	var sizes []int
	for len(names) > 0 {
		n := known.atOnce(names)
		sizes = append(sizes, n)
		names = names[n:]
	}
	if !slices.Equal(sizes[:3], []int{maxAskTopics, maxAskTopics, 3}) || len(sizes) != 2+17 {
		t.Errorf("%v", sizes)
	}
}

// TestUnknownTopicIsNotBelievedAtOnce: nodes that are up to date must have said so, several of them, for a while.
func TestUnknownTopicIsNotBelievedAtOnce(t *testing.T) {
	req := &pb.MetadataRequest{Topics: []string{"t"}}
	for _, tt := range []struct {
		name   string
		answer func(m *metadataCache, n int)
		want   bool
	}{
		{"all say so", func(m *metadataCache, n int) {
			_, _ = m.take([]string{"a:1", "b:1", "c:1"}[n%3], req, testAnswer("c", 0, unknownTopic()))
		}, true},
		{"one alone says so", func(m *metadataCache, _ int) { _, _ = m.take("a:1", req, testAnswer("c", 0, unknownTopic())) }, false},
		{"all are cut off", func(m *metadataCache, n int) {
			_, _ = m.take([]string{"a:1", "b:1", "c:1"}[n%3], req, testAnswer("c", time.Minute, unknownTopic()))
		}, false},
		{"the others do not answer", func(m *metadataCache, _ int) {
			_ = m.refused("b:1", kerr.Errorf(kerr.BrokerNotAvailable, "gone"))
			_ = m.refused("c:1", kerr.Errorf(kerr.BrokerNotAvailable, "gone"))
			_, _ = m.take("a:1", req, testAnswer("c", 0, unknownTopic()))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newTestCache(t, "a:1")
				for n := range 30 {
					tt.answer(m, n)
					if err := m.absent("t"); err != nil && n < 20 {
						t.Fatalf("believed after %d answers in %v", n+1, time.Duration(n)*100*time.Millisecond)
					}
					time.Sleep(100 * time.Millisecond) // of the bubble's clock
				}
				if err := m.absent("t"); (err != nil) != tt.want {
					t.Errorf("after three seconds: %v", err)
				}
			})
		})
	}
}

// TestUnknownLongAgo: that a topic was unknown half a minute ago does not count: it may have been created since, and the one node that has
// answered since may not have heard of it.
func TestUnknownLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestCache(t, "a:1")
		say := func(n int) {
			_, _ = m.take([]string{"a:1", "b:1", "c:1"}[n%3], &pb.MetadataRequest{Topics: []string{"t"}}, testAnswer("c", 0, unknownTopic()))
		}
		for n := range 30 {
			say(n)
			time.Sleep(100 * time.Millisecond) // of the bubble's clock
		}
		if m.absent("t") == nil {
			t.Fatal("not believed after three seconds")
		}
		time.Sleep(30 * time.Second)
		if err := m.absent("t"); err != nil {
			t.Errorf("nobody was asked for half a minute: %v", err)
		}
		say(0)
		if err := m.absent("t"); err != nil {
			t.Errorf("one node has not heard of it yet: %v", err)
		}
	})
}

// TestClusterIsRemembered: whose answers are used.
func TestClusterIsRemembered(t *testing.T) {
	req := &pb.MetadataRequest{Topics: []string{"t"}}
	m := newTestCache(t, "a:1", "x:1")
	if enough, err := m.take("x:1", req, testAnswer("mistake", 0, unknownTopic())); enough || err != nil {
		t.Errorf("the first answer, of a cluster that does not know the topic: enough %v, %v", enough, err)
	}
	if enough, err := m.take("a:1", req, testAnswer("right", 0, testTopic(1, 5))); !enough || err != nil {
		t.Errorf("the cluster that knows the topic: enough %v, %v", enough, err)
	}
	if _, err := m.take("x:1", req, testAnswer("mistake", 0, testTopic(3, 99))); err == nil {
		t.Error("another cluster is believed, now that the right one is known")
	}
	if l, ok := m.current.Load().leader(id.TopicPartition{Topic: "t"}); !ok || l.node != 1 {
		t.Errorf("%+v", l)
	}
	if got := m.addresses(); got[len(got)-1] != "x:1" {
		t.Errorf("%v: the stranger is asked before others", got)
	}
}
