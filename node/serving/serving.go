package serving

import (
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/broker"
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
}

// Broker implements broker.Broker on one node.
type Broker struct {
	o Options
}

var _ broker.Broker = (*Broker)(nil)

// New returns the broker of a node. It starts nothing, and needs no closing.
func New(o Options) *Broker { return &Broker{o: o} }
