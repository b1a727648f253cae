package client

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// TestDenialByANodeThatIsCutOff: the topic may have been allowed since.
func TestDenialByANodeThatIsCutOff(t *testing.T) {
	c, err := New(Options{Servers: []string{"127.0.0.1:1"}, ClusterID: "c"})
	require.NoError(t, err)
	defer c.Close()
	req := &pb.MetadataRequest{Topics: []string{"t"}}
	deny := func(age int64) error {
		_, err := c.cache.take("127.0.0.1:1", req, &pb.MetadataResponse{
			ClusterId: "c", AgeMs: age, Topics: []*pb.Topic{{Name: "t", ErrorCode: int32(kerr.TopicAuthorizationFailed)}},
		})
		require.NoError(t, err)
		return c.cache.absent("t")
	}
	require.NoError(t, deny(-1))
	require.NoError(t, deny(60_000))
	require.ErrorIs(t, deny(10), ErrNotAuthorized)
}
