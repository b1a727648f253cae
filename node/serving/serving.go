package serving

import (
	"runtime/debug"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Replicas are the partitions that the node holds.
type Replicas interface {
	Find(topic id.Topic, p id.Partition) *partition.Partition // nil: it is not open here
}

// Options are what a Broker works on.
type Options struct {
	Node     id.Node
	Host     *raftgroup.Host // of the groups of Replicas
	Turns    *Turns          // told of the end of each of Host's turns
	Replicas Replicas
	Pressure func() wal.Pressure // of the node's store
	// InFlightBytes bounds the unanswered batches of all connections together, 256 MiB by default, or a quarter of GOMEMLIMIT.
	InFlightBytes int64
	// Authorizer is asked for each batch, and for each piece that is read, whether its caller may do that.
	Authorizer broker.Authorizer
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
