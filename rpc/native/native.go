package native

import (
	"context"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// Peers is what nodes ask each other about themselves. It is no client's business, and has no words in package broker.
type Peers interface {
	RegisterNode(context.Context, *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error)
	Identify(context.Context, *pb.IdentifyRequest) (*pb.IdentifyResponse, error)
	CheckReach(context.Context, *pb.CheckReachRequest) (*pb.CheckReachResponse, error)
}

// Services returns what a server serves clients with, over a broker.
func Services(b broker.Broker, p Peers) rpc.Services {
	return rpc.Services{Admin: &admin{broker: b, peers: p}, Produce: Produce(b), Fetch: Fetch(b)}
}
