package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// hungServer accepts connections and answers nothing. It counts them.
func hungServer(t *testing.T) (addr string, accepted *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted = new(atomic.Int32)
	var serving sync.WaitGroup
	serving.Go(func() {
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			accepted.Add(1)
			conns = append(conns, c)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String(), accepted
}

// TestHungServerIsLeft: a call that meets it first costs a fraction of a second, and the next ones do not meet it.
func TestHungServerIsLeft(t *testing.T) {
	cluster := clienttest.New(t, 1)
	addr, accepted := hungServer(t)
	c, err := New(Options{Servers: append([]string{addr}, cluster.Servers()...)})
	require.NoError(t, err)
	defer c.Close()
	c.cache.mu.Lock()
	c.cache.mu.sources.turn = 0
	c.cache.mu.Unlock()
	begin := time.Now()
	require.NoError(t, c.Admin().CreateTopic(t.Context(), TopicSpec{Name: "a", Partitions: 1}))
	require.Less(t, time.Since(begin), 4*time.Second)
	require.NotZero(t, accepted.Load(), "it was not asked first")
	c.cache.mu.Lock()
	rank := c.cache.mu.sources.rank(addr, time.Now().Add(shunTime/2))
	c.cache.mu.Unlock()
	require.Equal(t, 1, rank, "it is not remembered")
	before := accepted.Load()
	for range 5 {
		_, err := c.Admin().ListTopics(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, before, accepted.Load())
}

// slowAdmin takes long for what it does, and answers all else at once.
type slowAdmin struct {
	pb.DRPCAdminUnimplementedServer
	calls atomic.Int32
}

func (s *slowAdmin) Metadata(context.Context, *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	return &pb.MetadataResponse{ClusterId: "slow", MetadataIndex: 1}, nil
}

func (s *slowAdmin) DeleteTopic(ctx context.Context, _ *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	s.calls.Add(1)
	return &pb.DeleteTopicResponse{}, pause(ctx, 4*hedgeDelay)
}

// TestSlowCallIsNotAHungServer: it is not given up, or what it does would be done twice.
func TestSlowCallIsNotAHungServer(t *testing.T) {
	s := new(slowAdmin)
	var servers []string
	for range 2 {
		l, err := rpc.Listen(t.Context(), "127.0.0.1:0")
		require.NoError(t, err)
		server, err := rpc.NewServer(rpc.ServerOptions{Listener: l, Node: 1, ClusterID: "slow", Services: rpc.Services{Admin: s}})
		require.NoError(t, err)
		defer func() { _ = server.Close(context.Background()) }()
		servers = append(servers, l.Addr().String())
	}
	c, err := New(Options{Servers: servers})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Admin().DeleteTopic(t.Context(), "t"))
	require.EqualValues(t, 1, s.calls.Load())
}

// TestShunnedForLonger: who fails again when it is asked again is left alone for longer, and one good answer ends that.
func TestShunnedForLonger(t *testing.T) {
	s := sources{shunned: map[string]time.Time{}, foreign: map[string]*WrongClusterError{}}
	now := time.Now()
	var last time.Duration
	for n := range 10 {
		s.shun("a", now)
		s.shun("a", now) // by another call that had begun
		d := s.shunned["a"].Sub(now)
		if d < last || d > shunTimeMax || n == 1 && d <= shunTime {
			t.Errorf("failure %d: shunned for %v", n+1, d)
		}
		last, now = d, now.Add(d)
	}
	s.fresh("a")
	s.shun("a", now)
	require.Equal(t, shunTime, s.shunned["a"].Sub(now))
}
