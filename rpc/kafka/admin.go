package kafka

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/wal/id"
)

// What several of the administrative APIs need.

// defaultTimeout bounds what comes without a time, maxTimeout what comes with a long one: a call holds up those behind it on its connection.
const (
	defaultTimeout = 15 * time.Second
	maxTimeout     = 2 * time.Minute
)

// parallel is how many parts of one request are worked on at once, where each takes a command of its own.
const parallel = 16

// within returns the context of a request that says how long it may take; 0 or less: the default.
func (c *call) within(ms int32) (context.Context, context.CancelFunc) {
	d := min(time.Duration(ms)*time.Millisecond, maxTimeout)
	if d <= 0 {
		d = defaultTimeout
	}
	return context.WithTimeout(c.ctx, d)
}

// each calls do for 0 to n-1, several at once, and returns when all have returned.
func each(n int, do func(i int)) {
	var work errgroup.Group
	work.SetLimit(parallel)
	for i := range n {
		work.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = work.Wait()
}

// occurrences counts how often each key is there.
func occurrences[T any, K comparable](list []T, key func(*T) K) map[K]int {
	n := make(map[K]int, len(list))
	for i := range list {
		n[key(&list[i])]++
	}
	return n
}

// operations returns what the caller may do with a resource, a bit for each operation.
func (c *call) operations(r acl.Resource) (bits int32) {
	for _, op := range c.broker().AuthorizedOperations(c.caller, r) {
		bits |= 1 << op
	}
	return bits
}

// offline returns those of the replicas whose nodes do not seem to be alive, or are not known.
func offline(nodes []broker.Node, replicas []id.Node) []int32 {
	dead := func(n id.Node) bool {
		i := slices.IndexFunc(nodes, func(o broker.Node) bool { return o.ID == n })
		return i < 0 || !nodes[i].Alive
	}
	return idsOf(slices.DeleteFunc(slices.Clone(replicas), func(n id.Node) bool { return !dead(n) }))
}

// internal tells whether a topic is the system's own.
func internal(topic string) bool { return strings.HasPrefix(topic, "__") }
