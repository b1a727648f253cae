package node

import (
	"fmt"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/wal"
)

// selfStatus is what this node says about itself, but for its replicas.
func (n *Node) selfStatus() broker.NodeStatus {
	scrub := n.stores.Metrics()
	return broker.NodeStatus{
		ScrubErrors: scrub.ScrubErrors, LastScrub: scrub.LastScrub,
		Node:  broker.Node{ID: n.options.NodeID, RPCAddress: n.advertised(), Version: Version, Alive: true},
		State: n.stateText(), Trouble: n.trouble(), Protocol: fmt.Sprintf("quorumlog/%d", rpc.Protocol), FsyncClass: n.fsyncClass(),
		MetricsAddress: n.metricsAddress(), DiskFreeBytes: n.freeBytes(), BootEpoch: n.identity.Boot, AcceptsProduce: n.acceptsProduce(),
		RefusedReplicas:    n.replicas.RefusedCount(),
		OldestFeatureLevel: broker.FeatureLevel(placement.OldestLevel), SupportedFeatureLevel: broker.FeatureLevel(placement.SupportedLevel),
	}
}

// fsyncClass is the class as other nodes and users are told it.
func (n *Node) fsyncClass() string {
	if n.options.Storage.Fsync == wal.FsyncNone {
		return rpc.FsyncClassNone
	}
	return rpc.FsyncClassAll
}
