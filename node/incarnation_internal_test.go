package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"github.com/quorumlog/quorumlog/node/membership"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// answering is an administrative service that says which start of which node it is.
type answering struct {
	pb.DRPCAdminUnimplementedServer
	node id.Node
	boot uint64
}

func (a *answering) ClusterStatus(context.Context, *pb.ClusterStatusRequest) (*pb.ClusterStatusResponse, error) {
	return &pb.ClusterStatusResponse{AnsweredBy: int32(a.node), Nodes: []*pb.NodeStatus{{BootEpoch: a.boot}}}, nil
}

// TestTwinsOfAnotherNode has gossip say that a node id is in use twice, while a node starts, and the second process answers. It ends a node only
// if the id is its own.
func TestTwinsOfAnotherNode(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer(rpc.ServerOptions{Listener: listener, Node: 1, Services: rpc.Services{Admin: &answering{node: 1, boot: 7}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close(t.Context()) }()
	twin := membership.Member{Self: membership.Self{Node: 1, Boot: 7, RPCAddress: server.Addr().String()}}
	cause := errors.New("in use twice")
	for own, ends := range map[id.Node]bool{1: true, 8: false} {
		n := newNode(Options{NodeID: own, AdvertisedAddress: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)}, fileShares{})
		n.dialer = &rpc.Dialer{}
		n.duplicated(membership.Event{Kind: membership.Duplicate, Node: 1, Member: twin, Err: cause})
		if ended := len(n.fatal) > 0; ended != ends {
			t.Errorf("node %d, told of two processes that are node 1: ends %v, want %v", own, ended, ends)
		}
		if err := n.dialer.Close(); err != nil {
			t.Error(err)
		}
	}
}
