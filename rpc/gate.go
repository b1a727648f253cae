package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"
	"storj.io/drpc"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// gate bounds the administrative calls that are under way, and the large answers that are being written. There are three doors, so that calls
// that wait for something, as the creation of a topic does for a leader, leave room for those that only look; and so that a node whose
// clients' calls wait for another node answers that node's: two that are full of such calls would wait for each other.
type gate struct {
	node    id.Node
	doors   [gateDoors]*semaphore.Weighted
	answers *semaphore.Weighted // bytes of large answers
	refused atomic.Uint64
}

type door int

const (
	lookDoor door = iota
	changeDoor
	peerDoor
	gateDoors
)

const (
	// gateWait is how long a call waits for its turn; after that it is refused.
	gateWait = 2 * time.Second
	// smallAnswer is an answer that is not counted: a socket takes it, whether the client reads or not.
	smallAnswer = 4 << 10
)

func newGate(node id.Node, calls, bytes int64) *gate {
	g := &gate{node: node, answers: semaphore.NewWeighted(max(bytes, 2*maxAdminResponse))}
	for i := range g.doors {
		g.doors[i] = semaphore.NewWeighted(calls)
	}
	return g
}

// doorOf returns through which door a call comes. That of nodes is for what they pass on, and for calls that clients do not make: with TLS a
// client can take nothing of it.
func doorOf(name string, passedOn bool) door {
	switch {
	case passedOn || peerCalls[name]:
		return peerDoor
	case lookCalls[name]:
		return lookDoor
	}
	return changeDoor
}

// lookCalls are the administrative calls that change nothing and wait for nothing.
var lookCalls = map[string]bool{
	"/quorumlog.Admin/Metadata":             true,
	"/quorumlog.Admin/ListOffsets":          true,
	"/quorumlog.Admin/OffsetForLeaderEpoch": true,
	"/quorumlog.Admin/ClusterStatus":        true,
	"/quorumlog.Admin/PartitionStatus":      true,
	"/quorumlog.Admin/DescribeACLs":         true,
	"/quorumlog.Admin/DescribeUsers":        true,
	"/quorumlog.Admin/DescribeQuotas":       true,
}

// enter lets a call in, when its turn comes. leave must follow unless there is an error; more than once is no harm.
func (g *gate) enter(ctx context.Context, d door) (leave func(), err error) {
	slots := g.doors[d]
	if !slots.TryAcquire(1) {
		ctx, cancel := context.WithTimeout(ctx, gateWait)
		defer cancel()
		if slots.Acquire(ctx, 1) != nil {
			g.refused.Add(1)
			return nil, kerr.Errorf(kerr.ThrottlingQuotaExceeded, "%s has as many administrative calls under way as it may: try again in a moment, or ask another node", nodeName(g.node))
		}
	}
	return sync.OnceFunc(func() { slots.Release(1) }), nil
}

// room waits until a large answer may be written, as long as ctx allows. done must follow unless there is an error.
func (g *gate) room(ctx context.Context, m drpc.Message) (done func(), err error) {
	answer, ok := m.(proto.Message)
	if !ok {
		return func() {}, nil
	}
	n := min(int64(proto.Size(answer)), 2*maxAdminResponse) // too large a one is refused later
	if n <= smallAnswer {
		return func() {}, nil
	}
	if err := g.answers.Acquire(ctx, n); err != nil {
		g.refused.Add(1)
		return nil, kerr.Errorf(kerr.ThrottlingQuotaExceeded, "%s is writing as many large answers as it may: try again in a moment, or ask another node", nodeName(g.node))
	}
	return func() { g.answers.Release(n) }, nil
}
