package serving

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/fetching"
	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Replicas are the partitions that the node holds.
type Replicas interface {
	// Find returns the open replica of a partition, Group that of a group, or nil.
	Find(topic id.Topic, p id.Partition) *partition.Partition
	Group(g id.Group) *partition.Partition
	All() []*partition.Partition
	// Refusal returns why this node's replica of a group is refused, if it is.
	Refusal(g id.Group) (wal.Refusal, bool)
}

// Nodes is what this node knows of the others.
type Nodes struct {
	// Resolve returns where a node serves.
	Resolve func(id.Node) (address string, ok bool)
	// KafkaAddress returns where clients of Kafka's protocol find a node; empty: nowhere, as far as is known.
	KafkaAddress func(id.Node) string
	// Alive tells whether a node seems to be up: a hint, good enough to choose where new replicas go.
	Alive func(id.Node) bool
	// TakesLeaderships tells whether a node seems to be up, with a disk that can take records.
	TakesLeaderships func(id.Node) bool
	// Reachable tells which of the registered nodes are reached; those of which nothing is known are dialled first, and those that do not
	// seem to be up if the others are fewer than wanted.
	Reachable func(ctx context.Context, wanted int) (fit func(id.Node) bool)
	// IsUp tells whether a registered node lives, as far as can be found out.
	IsUp func(context.Context, *placement.Node) bool
	// Remote returns a node at its address, to pass calls on to.
	Remote func(node id.Node, address string) broker.Remote
}

// Options are what a Broker works on. All are required.
type Options struct {
	Node                   id.Node
	ClusterID, ClusterName string
	Logger                 *slog.Logger

	Host       *raftgroup.Host // of the groups of Replicas
	Turns      *Turns          // told of the end of each of Host's turns
	Pressure   func() wal.Pressure
	Space      func() wal.Space
	Replicas   Replicas
	Fetching   *fetching.Hub
	Leaders    *leaders.Table
	Controller *controller.Controller
	Nodes      Nodes
	// SegmentBytes is where segments of topics roll that say nothing about it.
	SegmentBytes int64
	// Age is how old what this node knows may be: see broker.Metadata.
	Age func() time.Duration
	// InFlightBytes bounds the unanswered batches of all connections together, 256 MiB by default, or a quarter of GOMEMLIMIT.
	InFlightBytes int64
	// Authorizer is asked for each batch, and for each piece that is read. All else is asked by who is in front of the Broker.
	Authorizer broker.Authorizer
	// Self is what the node says of itself, but for its replicas.
	Self func() broker.NodeStatus
}

// Broker implements broker.Broker on one node.
type Broker struct {
	o        Options
	inFlight *budget.Fair
}

var _ broker.Broker = (*Broker)(nil)

// New returns the broker of a node. It starts nothing, and needs no closing.
func New(o Options) *Broker {
	if o.InFlightBytes <= 0 { // no more than a quarter of what the process is to take (GOMEMLIMIT)
		o.InFlightBytes = min(defaultInFlight, debug.SetMemoryLimit(-1)/4)
	}
	return &Broker{o: o, inFlight: budget.NewFair(o.InFlightBytes, leastInFlight)}
}

// InFlight returns the bytes of all unanswered batches, and how many batches were refused because there were too many.
func (b *Broker) InFlight() (bytes int64, refused uint64) {
	return b.inFlight.Used(), b.inFlight.Refused()
}

// defaultTimeout bounds calls that come without a deadline, and those for which a minute would be too much.
const defaultTimeout = 15 * time.Second

// askTimeout bounds a question to another node for an answer that is incomplete without it, askParallel how many are asked at once.
const (
	askTimeout  = time.Second
	askParallel = 16
)
