package fetching

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestWhoHasNoCreditIsTold: that the leader has moved, and that the replica is gone.
func TestWhoHasNoCreditIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*replica)
		want    kerr.Code
	}{
		"another leader": {func(p *replica) { p.move(false) }, kerr.NotLeaderOrFollower},
		"deleted":        {(*replica).close, kerr.UnknownTopicOrPartition},
	} {
		for _, credit := range []int64{0, 1000} {
			t.Run(name, func(t *testing.T) {
				h := newHub(t, Options{})
				s := h.NewSession()
				defer s.Close()
				p := newReplica(t, 100)
				require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Credit: credit}))
				drain(t, s)
				woken(s)
				p.move(true) // a new term, the same leader
				require.Empty(t, drain(t, s))
				woken(s)
				c.happens(p)
				require.True(t, woken(s))
				got := drain(t, s)
				require.Len(t, got, 1)
				require.Equal(t, c.want, kerr.CodeOf(got[0].Err))
				require.Empty(t, s.subscriptions)
			})
		}
	}
}

// TestServeEnded: who is ahead of a quota hears of ends alone. The others keep their order, and nothing that came meanwhile is missed.
func TestServeEnded(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	var replicas []*replica
	for i := range 4 {
		p := newReplica(t, 100)
		p.commit(3)
		replicas = append(replicas, p)
		require.NoError(t, s.Subscribe(Subscription{ID: ID(i), Partition: p, Credit: int64(i%3) * 1000}))
	}
	var got recorder
	require.NoError(t, s.ServeEnded(&got))
	require.Empty(t, got.said)
	replicas[1].move(false)
	replicas[3].close()
	require.NoError(t, s.ServeEnded(&got))
	require.Len(t, got.said, 2)
	require.Equal(t, kerr.NotLeaderOrFollower, kerr.CodeOf(got.said[0].Err))
	require.Equal(t, kerr.UnknownTopicOrPartition, kerr.CodeOf(got.said[1].Err))
	require.NoError(t, s.ServeEnded(&got))
	require.Len(t, got.said, 2)
	require.NoError(t, s.Credit(0, 1000))
	rest := drain(t, s)
	require.Equal(t, []ID{2, 0}, []ID{rest[0].Subscription, rest[1].Subscription})
}

// TestDamage: what cannot be read ends its subscription, and no other.
func TestDamage(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	p := newReplica(t, 100)
	p.batch = p.batch[:20]
	p.hw.Store(1)
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: broken{p}, Credit: 1}))
	require.NoError(t, s.Subscribe(Subscription{ID: 2, Partition: newReplica(t, 100), Credit: 1}))
	got := drain(t, s)
	require.Len(t, got, 2)
	require.ErrorIs(t, got[0].Err, errBroken)
	require.NoError(t, got[1].Err)
}

type broken struct{ *replica }

var errBroken = errors.New("broken")

func (broken) Read(dst []byte, _ id.Offset, _ partition.ReadLimit, _ int) ([]byte, id.Offset, error) {
	return append(dst, 1, 2, 3), 0, errBroken
}
