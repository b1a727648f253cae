package client_test

import (
	"context"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// otherRelease is a node that refuses all calls because its caller is of another release.
type otherRelease struct {
	pb.DRPCAdminUnimplementedServer
}

func (*otherRelease) Metadata(context.Context, *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	return nil, kerr.Errorf(kerr.UnsupportedVersion, "the caller speaks protocol 1-2, node 1 speaks 3: upgrade the caller")
}

// A client of another release than the cluster's is told so, and at once: waiting for metadata does not help.
func TestClusterOfAnotherRelease(t *testing.T) {
	l, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	s, err := rpc.NewServer(rpc.ServerOptions{Listener: l, Node: 1, Services: rpc.Services{Admin: &otherRelease{}}})
	require.NoError(t, err)
	defer func() { _ = s.Close(context.Background()) }()
	c := newClient(t, []string{l.Addr().String()}, 5*time.Second)
	p := newProducer(t, c, client.ProducerOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	err = p.Produce(ctx, client.Record{Topic: "t"}, func(client.Ack) {})
	require.ErrorContains(t, err, "upgrade the caller")
	require.Less(t, time.Since(begin), 20*time.Second)
}
