package node

import (
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
)

// Version is this release's.
const Version = rpc.Release

// askTimeout bounds a question to another node for an answer that is incomplete without it, askParallel how many are asked at once.
const (
	askTimeout  = time.Second
	askParallel = 16
)

// selfStatus is what this node says about itself, but for its replicas.
func (n *Node) selfStatus() broker.NodeStatus {
	return broker.NodeStatus{
		Node:  broker.Node{ID: n.options.NodeID, RPCAddress: n.advertised(), Version: Version, Alive: true},
		State: n.stateText(), Trouble: n.trouble(), Protocol: fmt.Sprintf("quorumlog/%d", rpc.Protocol), FsyncClass: n.fsyncClass(),
		MetricsAddress: n.metricsAddress(), DiskFreeBytes: n.freeBytes(), BootEpoch: n.identity.Boot, AcceptsProduce: n.acceptsProduce(),
		RefusedReplicas:    n.replicas.RefusedCount(),
		OldestFeatureLevel: broker.FeatureLevel(placement.OldestLevel), SupportedFeatureLevel: broker.FeatureLevel(placement.SupportedLevel),
	}
}
