package raftgroup_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/goutils/leaktest"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Messages that Raft would panic on, or be led astray by, and that no replica of ours sends.
func TestInvalidMessagesAreDropped(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 5, 10)
		caughtUp(t, c)
		to := raftgrouptest.NodeOf(leader.Replica())
		from := to%3 + 1
		last := uint64(leader.Log().LastIndex())
		_, _, term := leader.Leader()
		message := func(kind raftpb.MessageType) *raftpb.Message {
			return &raftpb.Message{
				Type: kind.Enum(), From: new(uint64(raftgrouptest.ReplicaOf(1, from))), To: new(uint64(leader.Replica())),
				Term: new(uint64(term)), Index: new(last), LogTerm: new(uint64(term)), Commit: new(last),
			}
		}
		entry := func(index uint64, data []byte) *raftpb.Entry {
			return &raftpb.Entry{Index: new(index), Term: new(uint64(term)), Type: raftpb.EntryNormal.Enum(), Data: data}
		}
		cases := map[string]func() *raftpb.Message{
			"context of 4 bytes": func() *raftpb.Message {
				m := message(raftpb.MsgHeartbeatResp)
				m.Context = []byte{1, 2, 3, 4}
				return m
			},
			"acknowledges what is not there": func() *raftpb.Message {
				m := message(raftpb.MsgAppResp)
				m.Index = new(last + 100)
				return m
			},
			"proposal":           func() *raftpb.Message { return message(raftpb.MsgProp) },
			"local":              func() *raftpb.Message { return message(raftpb.MsgStorageAppendResp) },
			"transfer":           func() *raftpb.Message { return message(raftpb.MsgTransferLeader) },
			"term 0":             func() *raftpb.Message { m := message(raftpb.MsgApp); m.Term = nil; return m },
			"term of the clouds": func() *raftpb.Message { m := message(raftpb.MsgVote); m.Term = new(uint64(math.MaxUint64)); return m },
			"from nobody":        func() *raftpb.Message { m := message(raftpb.MsgApp); m.From = nil; return m },
			"from itself":        func() *raftpb.Message { m := message(raftpb.MsgApp); m.From = m.To; return m },
			"from a storage thread": func() *raftpb.Message {
				m := message(raftpb.MsgApp)
				m.From = new(uint64(math.MaxUint64))
				return m
			},
			"from another node": func() *raftpb.Message {
				m := message(raftpb.MsgAppResp)
				m.From = new(uint64(raftgrouptest.ReplicaOf(1, from%3+1)))
				return m
			},
			"gap": func() *raftpb.Message {
				m := message(raftpb.MsgApp)
				m.Term, m.Entries = new(uint64(term)+1), []*raftpb.Entry{entry(last+2, nil)}
				return m
			},
			"damaged batch": func() *raftpb.Message {
				m := message(raftpb.MsgApp)
				b := raftgrouptest.Batch([]byte("damaged"))
				b[len(b)-1] ^= 1
				m.Term, m.Entries = new(uint64(term)+1), []*raftpb.Entry{entry(last+1, b)}
				return m
			},
			"snapshot of nothing":  func() *raftpb.Message { return message(raftpb.MsgSnap) },
			"read without context": func() *raftpb.Message { m := message(raftpb.MsgReadIndex); m.Term = nil; return m },
		}
		for name, invalid := range cases {
			before := c.Nodes[to].Host.Metrics().DroppedInvalid
			c.Net.Inject(from, to, 1, invalid())
			require.True(t, raftgrouptest.Until(time.Second, func() bool {
				return c.Nodes[to].Host.Metrics().DroppedInvalid == before+1
			}), "%s: not dropped", name)
		}
		c.Net.Inject(from, to, 99, message(raftpb.MsgApp))
		m := message(raftpb.MsgApp)
		m.To = new(uint64(4711))
		c.Net.Inject(from, to, 1, m)
		require.True(t, raftgrouptest.Until(time.Second, func() bool {
			m := c.Nodes[to].Host.Metrics()
			return m.DroppedUnknown == 2
		}))
		require.True(t, leader.IsLeader())
		propose(t, c, leader, 5, 10)
	})
}

// FuzzStep shows a replica random messages. It may stop (a message from a peer is believed to be what a replica of ours said),
// but nothing else may happen to the process, or to the other group on the host.
func FuzzStep(f *testing.F) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 60)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			c, err := raftgrouptest.NewCluster(raftgrouptest.Config{Nodes: 3, Groups: 2, Campaign: raftgroup.CampaignPreferred})
			require.NoError(t, err)
			defer c.Close()
			require.NotNil(t, c.AwaitLeader(1, time.Second))
			for data = data[:min(len(data), 600)]; len(data) >= 12; {
				c.Net.Inject(id.Node(data[0]%4), id.Node(data[0]/4%2+1), 1, randomMessage(data))
				data = data[12:]
			}
			pause(10 * time.Millisecond)
			other := c.AwaitLeader(2, time.Second)
			require.NoError(t, (<-c.Propose(other, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err)
		})
	})
}

// randomMessage makes a message of 12 bytes, most often one with plausible numbers.
func randomMessage(b []byte) *raftpb.Message {
	number := func(x byte) *uint64 {
		if x > 250 {
			return new(uint64(math.MaxUint64) - uint64(255-x))
		}
		return new(uint64(x % 32))
	}
	m := &raftpb.Message{
		Type: raftpb.MessageType(b[1] % 24).Enum(), To: new(uint64(raftgrouptest.ReplicaOf(1, id.Node(b[0]/4%2+1)))), From: number(b[2]),
		Term: number(b[3]), LogTerm: number(b[4]), Index: number(b[5]), Commit: number(b[6]), RejectHint: number(b[7]),
		Reject: new(b[8]&1 > 0),
	}
	if b[2] < 200 {
		m.From = new(uint64(raftgrouptest.ReplicaOf(1, id.Node(b[0]%4))))
	}
	if b[8]&2 > 0 {
		m.Context = binary.LittleEndian.AppendUint64(nil, uint64(b[9]))[:b[9]%9]
	}
	for i := range b[10] % 4 {
		e := &raftpb.Entry{Index: new(*m.Index + uint64(i) + 1), Term: number(b[11]), Type: raftpb.EntryType(b[11] % 3).Enum()}
		if b[11]&4 > 0 {
			e.Data = raftgrouptest.Batch(fmt.Append(nil, i))
		} else if b[11]&8 > 0 {
			e.Data = []byte{b[9], b[10], b[11]}
		}
		m.Entries = append(m.Entries, e)
	}
	return m
}

// In real time: everything that a host starts it ends.
func TestHostLeavesNothingBehind(t *testing.T) {
	defer leaktest.AfterTest(t)()
	c, err := raftgrouptest.NewCluster(raftgrouptest.Config{Nodes: 3, Groups: 3, Campaign: raftgroup.CampaignPreferred})
	require.NoError(t, err)
	for g := id.Group(1); g <= 3; g++ {
		propose(t, c, c.AwaitLeader(g, 10*time.Second), 20, 1000)
	}
	require.NoError(t, c.Nodes[1].Host.Close())
	require.NoError(t, c.Nodes[1].Host.Close(), "twice is fine")
	_, err = c.OpenGroup(1, c.Nodes[1].Store.Logs()[0], nil)
	require.ErrorIs(t, err, raftgroup.ErrClosed)
	c.Close()
	require.Empty(t, c.Witness.Problems)
}

// TestAnswerToAnEarlierTerm: a follower answers what the leader of term 3 sent in an earlier term, of whose end that follower knows. The
// leader does not take it for an acknowledgement, whether it comes after the vote that decides or along with it: the follower has nothing
// yet, and is sent all.
func TestAnswerToAnEarlierTerm(t *testing.T) {
	for name, together := range map[string]bool{"later": false, "in the same turn": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := follower(t)
				n.step(message(raftpb.MsgTimeoutNow, 1, 2, 2))
				answer := stored(3, 0)
				v := n.host.Visit()
				v.Step(3, 1, message(raftpb.MsgVoteResp, 1, 3, 3), nil)
				if together {
					v.Step(3, 1, answer, nil)
				}
				v.End()
				synctest.Wait()
				require.True(t, n.group(1).IsLeader())
				if !together {
					n.step(answer)
				}
				sent := n.sends()
				n.step(message(raftpb.MsgHeartbeatResp, 1, 3, 3))
				require.True(t, slices.ContainsFunc(n.sent[sent:], func(m *raftpb.Message) bool {
					return m.GetType() == raftpb.MsgApp && raftgrouptest.NodeOf(id.Replica(m.GetTo())) == 3 && len(m.GetEntries()) > 0
				}), "the follower is sent nothing any more")
			})
		})
	}
}
