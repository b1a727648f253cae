package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// lobby serves the port of a node that has no place in a cluster yet. It says who it is: founders need to know that it belongs to no
// cluster, and the controller gives a place only to those whom it reaches. All else is refused, with a word that is worth another try.
type lobby struct {
	pb.DRPCAdminUnimplementedServer
	node *Node
}

// visit is the listener as a server has it that does not own it: closing it ends the accepting, and leaves the port open.
type visit struct{ net.Listener }

type deadliner interface{ SetDeadline(time.Time) error }

// Close implements net.Listener.
func (v visit) Close() error { return v.Listener.(deadliner).SetDeadline(time.Unix(1, 0)) }

// openLobby begins to serve; leave ends that, and the listener is as it was. What is dialled in between waits in the listener's queue.
func (n *Node) openLobby() (leave func() error, err error) {
	listener, ok := n.listener.(deadliner)
	if !ok {
		return nil, fmt.Errorf("the listener %T has no deadline", n.listener)
	}
	l := &lobby{node: n}
	server, err := rpc.NewServer(rpc.ServerOptions{
		Listener: visit{n.listener}, Node: n.options.NodeID, Logger: n.logger, MaxConnections: n.shares.clients, PeerConnections: n.shares.peers,
		TLS: n.serverTLS(), ClusterName: n.options.ClusterName,
		Services: rpc.Services{
			Admin: l, Peer: l,
			Produce: func(*rpc.ProduceStream) error { return l.refuse() },
			Fetch:   func(*rpc.FetchStream) error { return l.refuse() },
		},
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return errors.Join(server.Close(ctx), listener.SetDeadline(time.Time{}))
	}, nil
}

func (l *lobby) refuse() error {
	return kerr.Errorf(kerr.BrokerNotAvailable, "node %d waits for a place in cluster %q: ask another node",
		l.node.options.NodeID, l.node.options.ClusterName)
}

// Identify answers as long as the node has no cluster. From then on it is silent here, and the node's own server has the answer.
func (l *lobby) Identify(context.Context, *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	n := l.node
	return &pb.IdentifyResponse{
		NodeId: int32(n.options.NodeID), StoreId: n.identity.StoreID, BootEpoch: n.identity.Boot, Founding: n.options.Founding == Bootstrap,
	}, nil
}

// Metadata implements pb.DRPCAdminServer: a client that asks this node takes another one. The calls that are not here are made at a node
// that Metadata has named.
func (l *lobby) Metadata(context.Context, *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	return nil, l.refuse()
}

// CreateTopic implements pb.DRPCAdminServer.
func (l *lobby) CreateTopic(context.Context, *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	return nil, l.refuse()
}

// DeleteTopic implements pb.DRPCAdminServer.
func (l *lobby) DeleteTopic(context.Context, *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	return nil, l.refuse()
}

// AlterTopicConfig implements pb.DRPCAdminServer.
func (l *lobby) AlterTopicConfig(context.Context, *pb.AlterTopicConfigRequest) (*pb.AlterTopicConfigResponse, error) {
	return nil, l.refuse()
}

// ListOffsets implements pb.DRPCAdminServer.
func (l *lobby) ListOffsets(context.Context, *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	return nil, l.refuse()
}

// OffsetForLeaderEpoch implements pb.DRPCAdminServer.
func (l *lobby) OffsetForLeaderEpoch(context.Context, *pb.OffsetForLeaderEpochRequest) (*pb.OffsetForLeaderEpochResponse, error) {
	return nil, l.refuse()
}

// DeleteRecords implements pb.DRPCAdminServer.
func (l *lobby) DeleteRecords(context.Context, *pb.DeleteRecordsRequest) (*pb.DeleteRecordsResponse, error) {
	return nil, l.refuse()
}

// InitProducerID implements pb.DRPCAdminServer.
func (l *lobby) InitProducerID(context.Context, *pb.InitProducerIDRequest) (*pb.InitProducerIDResponse, error) {
	return nil, l.refuse()
}

// ClusterStatus implements pb.DRPCAdminServer.
func (l *lobby) ClusterStatus(context.Context, *pb.ClusterStatusRequest) (*pb.ClusterStatusResponse, error) {
	return nil, l.refuse()
}

// RegisterNode implements pb.DRPCAdminServer.
func (l *lobby) RegisterNode(context.Context, *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	return nil, l.refuse()
}

// UnregisterNode implements pb.DRPCAdminServer.
func (l *lobby) UnregisterNode(context.Context, *pb.UnregisterNodeRequest) (*pb.UnregisterNodeResponse, error) {
	return nil, l.refuse()
}

// CheckReach implements pb.DRPCAdminServer.
func (l *lobby) CheckReach(context.Context, *pb.CheckReachRequest) (*pb.CheckReachResponse, error) {
	return nil, l.refuse()
}

// PartitionStatus implements pb.DRPCAdminServer.
func (l *lobby) PartitionStatus(context.Context, *pb.PartitionStatusRequest) (*pb.PartitionStatusResponse, error) {
	return nil, l.refuse()
}

// TransferLeader implements pb.DRPCAdminServer.
func (l *lobby) TransferLeader(context.Context, *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	return nil, l.refuse()
}

// Hello implements rpc.PeerHandler: no lane opens, so nothing else of it is called with effect.
func (l *lobby) Hello(peer rpc.PeerHello) (rpc.PeerHello, uint64, error) { return peer, 0, l.refuse() }

// Step implements rpc.PeerHandler.
func (l *lobby) Step(_ id.Node, _ id.Group, _ *raftpb.Message, data rpc.Loan) {
	if data != nil {
		data.Release()
	}
}

// Stepped implements rpc.PeerHandler.
func (l *lobby) Stepped() {}

// PeerOpened implements rpc.PeerHandler.
func (l *lobby) PeerOpened(id.Node) {}

// Health implements rpc.PeerHandler.
func (l *lobby) Health(id.Node, rpc.Health) {}

// News implements rpc.PeerHandler.
func (l *lobby) News(id.Node, uint64, rpc.News) bool { return true }

// PeerClosed implements rpc.PeerHandler.
func (l *lobby) PeerClosed(id.Node, uint64) {}
