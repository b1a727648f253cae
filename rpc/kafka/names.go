package kafka

import (
	"context"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// topics finds topics by the names that requests have for them, and remembers those that there are. For one goroutine, but for forget.
//
// The broker takes batches and readers by the topic's id, so one that was deleted and made again is not taken for the old one: what is known
// is forgotten with the first refusal that says so.
type topics struct {
	known map[string]id.Topic
	stale atomic.Bool
}

// topicsKept bounds what is remembered of what a client has asked for.
const topicsKept = 1000

// forget says that what is known may be wrong. Any goroutine.
func (k *topics) forget() { k.stale.Store(true) }

// find returns the id of a topic, or why there is none for the caller.
func (k *topics) find(ctx context.Context, b broker.Topics, c *broker.Caller, name []byte) (id.Topic, *kerr.Error) {
	if k.stale.Swap(false) || len(k.known) >= topicsKept {
		clear(k.known)
	}
	if topic, ok := k.known[string(name)]; ok {
		return topic, nil
	}
	m, err := b.Metadata(ctx, c, broker.MetadataQuery{Topics: []string{string(name)}})
	switch {
	case err != nil:
		return id.Topic{}, kerr.Errorf(kerr.CodeOf(err), "%v", err)
	case len(m.Topics) == 0:
		return id.Topic{}, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic %.249q does not exist", name)
	case m.Topics[0].Err != nil:
		return id.Topic{}, m.Topics[0].Err
	}
	if k.known == nil {
		k.known = make(map[string]id.Topic)
	}
	k.known[string(name)] = m.Topics[0].ID
	return m.Topics[0].ID, nil
}

// gone tells whether an error says that a topic is not what it was.
func gone(err *kerr.Error) bool {
	return err != nil && (err.Code == kerr.UnknownTopicOrPartition || err.Code == kerr.UnknownTopicID)
}
