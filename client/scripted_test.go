package client_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// script is a cluster whose nodes say what the test wants. Topic "test" has one partition.
type script struct {
	pb.DRPCAdminUnimplementedServer
	addresses map[id.Node]string // as metadata names them
	leader    id.Node
	epoch     atomic.Int32
	requests  atomic.Int64 // to produce and to subscribe
	conns     atomic.Int64
}

var scriptTopic = id.Topic{1}

func (s *script) Metadata(context.Context, *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	out := &pb.MetadataResponse{ClusterId: "scripted", Controller: 1, MetadataIndex: 1}
	for n, addr := range s.addresses {
		out.Nodes = append(out.Nodes, &pb.Node{Id: int32(n), RpcAddress: addr, Alive: true})
	}
	out.Topics = []*pb.Topic{{Name: "test", Id: scriptTopic[:], Partitions: []*pb.Partition{{Partition: 0, Leader: int32(s.leader), Epoch: 1}}}}
	return out, nil
}

func (s *script) InitProducerID(context.Context, *pb.InitProducerIDRequest) (*pb.InitProducerIDResponse, error) {
	return &pb.InitProducerIDResponse{ProducerId: 7}, nil
}

// serve starts a node that refuses everything and names another one, in an epoch that is newer each time.
func (s *script) serve(t *testing.T, self, names id.Node) string {
	t.Helper()
	l, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	server, err := rpc.NewServer(rpc.ServerOptions{
		Listener: l, Node: self, ClusterID: "scripted", WrapConn: func(c net.Conn) net.Conn { s.conns.Add(1); return c },
		Services: rpc.Services{
			Admin: s,
			Produce: func(p *rpc.ProduceStream) error {
				return p.Recv(func(r rpc.ProduceRequest) {
					s.requests.Add(1)
					p.Send(rpc.ProduceResponse{Correlation: r.Correlation, Code: kerr.NotLeaderOrFollower, Leader: names, Epoch: id.Epoch(s.epoch.Add(1))})
				}, nil)
			},
			Fetch: func(f *rpc.FetchStream) error {
				refused := make(chan uint32, 100_000)
				var sender sync.WaitGroup
				sender.Go(func() {
					for sub := range refused {
						_ = f.Send(rpc.FetchEvent{Subscription: sub, Code: kerr.NotLeaderOrFollower, Leader: names, Epoch: id.Epoch(s.epoch.Add(1))})
					}
				})
				err := f.Recv(func(c rpc.FetchCommand) error {
					if c.Kind == rpc.Subscribe {
						s.requests.Add(1)
						refused <- c.Subscription
					}
					return nil
				})
				close(refused)
				sender.Wait()
				return err
			},
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Close(ctx)
	})
	return l.Addr().String()
}

// TestNodesThatNameEachOther as the leader, in ever newer epochs, are asked less and less often.
func TestNodesThatNameEachOther(t *testing.T) {
	waits(t)
	const time2, most = 2 * time.Second, 40
	newScript := func(t *testing.T) (*script, *client.Client) {
		s := &script{leader: 1, addresses: make(map[id.Node]string)}
		s.epoch.Store(1)
		one, two := s.serve(t, 1, 2), s.serve(t, 2, 1)
		s.addresses[1], s.addresses[2] = one, two
		return s, newClient(t, []string{one, two}, 0)
	}
	t.Run("consumer", func(t *testing.T) {
		s, c := newScript(t)
		k := newConsumer(t, c, client.ConsumerOptions{})
		require.NoError(t, k.Assign(tp("test", 0), 0))
		ctx, cancel := context.WithTimeout(t.Context(), time2)
		defer cancel()
		_, err := k.Poll(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, s.requests.Load(), int64(most))
		require.Greater(t, s.requests.Load(), int64(2))
	})
	t.Run("producer", func(t *testing.T) {
		s, c := newScript(t)
		p := newProducer(t, c, client.ProducerOptions{DeliveryTimeout: time2})
		require.NoError(t, p.Produce(t.Context(), client.Record{Topic: "test"}, nil))
		require.NoError(t, p.Flush(testContext(t)))
		require.LessOrEqual(t, s.requests.Load(), int64(most))
		require.Greater(t, s.requests.Load(), int64(2))
	})
}

// TestAddressOfAnotherNode: what answers there is left alone, and the user is told in the end.
func TestAddressOfAnotherNode(t *testing.T) {
	waits(t)
	t.Run("another node", func(t *testing.T) {
		s := &script{leader: 1, addresses: make(map[id.Node]string)}
		stranger := s.serve(t, 3, id.NoNode)
		elsewhere(t, s, stranger, func(err error) { require.ErrorContains(t, err, "answers node 3, node 1 was expected") })
		require.LessOrEqual(t, s.conns.Load(), int64(40), "connections")
	})
	t.Run("another cluster", func(t *testing.T) {
		other := clienttest.NewWithID(t, 1, "other") // node 1 as well
		s := &script{leader: 1, addresses: make(map[id.Node]string)}
		elsewhere(t, s, other.Servers()[0], func(err error) { require.ErrorIs(t, err, client.ErrWrongCluster) })
	})
}

// elsewhere has node 2 say that node 1 leads, at an address where somebody else answers.
func elsewhere(t *testing.T, s *script, stranger string, check func(error)) {
	t.Helper()
	honest := s.serve(t, 2, id.NoNode)
	s.addresses[1], s.addresses[2] = stranger, honest
	c := newClient(t, []string{honest}, 0)
	p := newProducer(t, c, client.ProducerOptions{DeliveryTimeout: 2 * time.Second})
	k := newConsumer(t, c, client.ConsumerOptions{})
	require.NoError(t, k.Assign(tp("test", 0), 0))
	done := make(chan error, 1)
	require.NoError(t, p.Produce(testContext(t), client.Record{Topic: "test"}, func(a client.Ack) { done <- a.Err }))
	err := <-done
	require.ErrorIs(t, err, client.ErrDeliveryTimeout)
	check(err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = k.Poll(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	check(err)
}
