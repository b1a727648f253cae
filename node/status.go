package node

import (
	"fmt"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
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
