package client

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// staleAfter is how old the knowledge of a node may be without being doubted. A leader of the metadata is heard from twice a second, and the
// others have noticed within 1.5 s that they do not hear from a node any more.
const staleAfter = 1500 * time.Millisecond

// stale tells of a node's word for the age of its knowledge whether others are asked as well. Negative: it never had any.
func stale(age time.Duration) bool { return age < 0 || age > staleAfter }

func ageOf(resp *pb.MetadataResponse) time.Duration {
	return time.Duration(resp.AgeMs) * time.Millisecond
}

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

// partitionMeta is the newest leader that was named, or id.NoNode when it is known to be gone, and its epoch, which never goes back.
type partitionMeta struct {
	leader id.Node
	epoch  id.Epoch
}

// update returns what is known after an answer. An epoch is a Raft term and has one leader at most, so the higher one is right, whoever
// names it and however long the answer took. An answer that names nobody takes a leader away if it comes from somebody who is up to date and
// does not see the leader either; it never moves the epoch, or a node that campaigns in vain could hide every leader of a lower one.
func (known partitionMeta) update(news partitionMeta, fresh, alive bool) partitionMeta {
	switch {
	case news.leader != id.NoNode && news.epoch >= known.epoch:
		return news
	case news.leader != id.NoNode, !fresh, news.epoch < known.epoch, news.epoch == known.epoch && alive:
		return known
	}
	return partitionMeta{leader: id.NoNode, epoch: known.epoch}
}

// leader is where a partition is led, as far as is known.
type leader struct {
	node  id.Node
	addr  string
	epoch id.Epoch
	topic id.Topic
}

// supersedes tells whether this leader is a newer one than that of an epoch at an address: another node, or the same one, started again
// elsewhere. Its old address may be one that answers nothing any more, not even that nobody is there.
func (l leader) supersedes(node id.Node, addr string, epoch id.Epoch) bool {
	return l.epoch > epoch && (l.node != node || l.addr != addr)
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

// merge returns the snapshot that follows from an answer of the same cluster. Topics that it says nothing of stay as they are. Which topics exist is decided by the answer with the higher
// metadata index, who leads them by the higher leader epoch: nodes learn of the two on different ways.
func (m *metadata) merge(resp *pb.MetadataResponse) *metadata {
	next := &metadata{
		clusterID:  resp.ClusterId,
		index:      resp.MetadataIndex,
		controller: id.Node(resp.Controller),
		nodes:      make(map[id.Node]string, len(resp.Nodes)),
		topics:     m.topics,
	}
	if len(resp.Topics) > 0 {
		next.topics = make(map[string]*topicMeta, len(m.topics)+len(resp.Topics))
		maps.Copy(next.topics, m.topics)
	}
	alive := make(map[id.Node]bool, len(resp.Nodes))
	for _, n := range resp.Nodes {
		next.nodes[id.Node(n.Id)] = n.RpcAddress
		alive[id.Node(n.Id)] = n.Alive
	}
	behind := resp.MetadataIndex < m.index
	if behind {
		next.index, next.nodes = m.index, m.nodes
	}
	fresh := !stale(ageOf(resp))
	for _, t := range resp.Topics {
		old := m.topics[t.Name]
		switch {
		case kerr.Code(t.ErrorCode) != kerr.None || len(t.Id) != len(id.Topic{}):
			if !behind {
				delete(next.topics, t.Name)
			}
		case behind && old != nil && old.id != id.Topic(t.Id):
		default:
			next.topics[t.Name] = mergeTopic(old, t, fresh, alive)
		}
	}
	return next
}

func mergeTopic(old *topicMeta, t *pb.Topic, fresh bool, alive map[id.Node]bool) *topicMeta {
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
		if old != nil && old.id == out.id && i < len(old.partitions) {
			out.partitions[i] = old.partitions[i]
		}
	}
	for _, p := range t.Partitions {
		if p.Partition < 0 || int(p.Partition) >= len(out.partitions) {
			continue
		}
		known := &out.partitions[p.Partition]
		*known = known.update(partitionMeta{leader: id.Node(p.Leader), epoch: id.Epoch(p.Epoch)}, fresh, alive[known.leader])
	}
	return out
}

// news tells whether a snapshot has news over an older one: of who leads, or of topics. It is what a refresh is for.
func (m *metadata) news(old *metadata) bool {
	return m.clusterID != old.clusterID || !maps.EqualFunc(m.topics, old.topics, func(a, b *topicMeta) bool {
		return a == b || a.id == b.id && slices.Equal(a.partitions, b.partitions)
	})
}

// maxAskTopics and maxAskPartitions bound what is asked for at once, and with it the answer. A topic of which nothing is known may have more
// partitions than that.
const (
	maxAskTopics     = 200
	maxAskPartitions = 10_000
)

// atOnce is how many of the topics may be asked for in one request.
func (m *metadata) atOnce(names []string) int {
	partitions := 0
	for i, name := range names {
		if t := m.topics[name]; t != nil {
			partitions += len(t.partitions)
		}
		if i > 0 && (i == maxAskTopics || partitions > maxAskPartitions) {
			return i
		}
	}
	return len(names)
}
