package native

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"storj.io/drpc"
	"storj.io/drpc/drpcmetadata"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fake is a broker that notes what it is asked, and answers what the test wants.
type fake struct {
	broker.Broker
	asked     any
	caller    broker.Caller
	forwarded bool
	due       time.Duration
	err       error

	topic     *broker.Topic
	status    *broker.ClusterStatus
	partition *broker.PartitionStatus
	configs   map[string]string
}

// note takes what was asked, and for how long.
func (f *fake) note(ctx context.Context, c *broker.Caller, asked any) error {
	due, ok := ctx.Deadline()
	if !ok {
		return errors.New("a call without a deadline")
	}
	f.asked, f.caller, f.forwarded, f.due = asked, *c, broker.IsForwarded(ctx), time.Until(due)
	return f.err
}

func (f *fake) CreateTopic(ctx context.Context, c *broker.Caller, t broker.NewTopic) (*broker.Topic, error) {
	return f.topic, f.note(ctx, c, t)
}

func (f *fake) DeleteTopic(ctx context.Context, c *broker.Caller, name string) (id.Topic, error) {
	return topic, f.note(ctx, c, name)
}

func (f *fake) AlterTopicConfig(ctx context.Context, c *broker.Caller, change broker.ConfigChange) (map[string]string, error) {
	return f.configs, f.note(ctx, c, change)
}

func (f *fake) InitProducerID(ctx context.Context, c *broker.Caller) (id.Producer, error) {
	return 77, f.note(ctx, c, nil)
}

func (f *fake) UpgradeCluster(ctx context.Context, c *broker.Caller, level broker.FeatureLevel) (broker.Upgrade, error) {
	return broker.Upgrade{Was: 1, Is: 2}, f.note(ctx, c, level)
}

func (f *fake) UnregisterNode(ctx context.Context, c *broker.Caller, node id.Node) error {
	return f.note(ctx, c, node)
}

func (f *fake) TransferLeader(ctx context.Context, c *broker.Caller, t broker.Transfer) (id.Node, id.Epoch, error) {
	return 3, 9, f.note(ctx, c, t)
}

func (f *fake) ClusterStatus(ctx context.Context, c *broker.Caller) (*broker.ClusterStatus, error) {
	return f.status, f.note(ctx, c, nil)
}

func (f *fake) PartitionStatus(ctx context.Context, c *broker.Caller, topic string, p id.Partition) (*broker.PartitionStatus, error) {
	return f.partition, f.note(ctx, c, fmt.Sprintf("%s-%d", topic, p))
}

// serveAdmin serves a broker, and returns how another node sees it, and a client.
func serveAdmin(t *testing.T, b broker.Broker) (broker.Remote, pb.DRPCAdminClient) {
	t.Helper()
	listener, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	server, err := rpc.NewServer(rpc.ServerOptions{Listener: listener, Services: Services(b, nil)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	d := &rpc.Dialer{}
	t.Cleanup(func() { _ = d.Close() })
	client := d.Admin(server.Addr().String())
	return Remote(client), client
}

// TestRemote: a call that is passed on is what the other node's broker is asked, and its answer, or refusal, is what the first one gets.
func TestRemote(t *testing.T) {
	described := &broker.Topic{
		Name: "t", ID: topic, ReplicationFactor: 2, Configs: map[string]string{"a": "b"},
		Partitions: []broker.Partition{
			{ID: 0, Group: 5, Leader: 2, Epoch: 4, Replicas: []id.Node{2, 1}, ISR: []id.Node{2}},
			{ID: 1, Group: 6, Leader: id.NoNode, Replicas: []id.Node{1, 2}},
		},
	}
	own := &broker.ClusterStatus{
		ClusterID: "c", ClusterName: "n", Controller: 1, AnsweredBy: 2, Topics: 3, Partitions: 4, FeatureLevel: 5, FeatureLevelKnownToAll: 6,
		Nodes: []broker.NodeStatus{{
			Node:  broker.Node{ID: 2, RPCAddress: "r", GossipAddress: "g", Rack: "k", Version: "v", Alive: true},
			State: "ready", Trouble: "none", Protocol: "p", FsyncClass: "f", MetricsAddress: "m", DiskFreeBytes: 1 << 40, BootEpoch: 1 << 41,
			AcceptsProduce: true, Replicas: 7, PartitionsLed: 8, UnderReplicated: 9, RefusedReplicas: 10, OldestFeatureLevel: 11, SupportedFeatureLevel: 12,
		}},
	}
	f := &fake{topic: described, status: own, configs: map[string]string{"x": "y"}, partition: &broker.PartitionStatus{
		Group: 1, Replica: 2, Role: "leader", Leader: 3, Epoch: 4, HighWatermark: 5, LogStart: 6, LogEnd: 7, Commit: 8, Applied: 9, ISR: []id.Node{3, 1}, Condemned: true,
		Members: []broker.Member{{Node: 1, Replica: 10, Match: 11, InSync: true, Learner: true, LastAck: 12 * time.Millisecond}, {Node: 2, LastAck: -time.Millisecond}},
	}}
	remote, _ := serveAdmin(t, f)
	change := broker.ConfigChange{Topic: "t", Set: map[string]string{"x": "y"}, Remove: []string{"z"}}
	newTopic := broker.NewTopic{Name: "t", Partitions: 2, ReplicationFactor: 2, Configs: map[string]string{"a": "b"}}
	alice := &broker.Caller{
		Principal: broker.Principal{Type: broker.UserType, Name: "alice"}, Host: netip.MustParseAddr("10.1.2.3"), ClientID: "app", Node: id.NoNode,
	}
	transfer := broker.Transfer{Topic: "t", Partition: 1, To: 2}
	type leadership struct {
		node  id.Node
		epoch id.Epoch
	}
	for _, call := range []struct {
		name          string
		do            func(context.Context) (any, error)
		asked, answer any
	}{
		{"create", func(ctx context.Context) (any, error) { return remote.CreateTopic(ctx, alice, newTopic) }, newTopic, described},
		{"delete", func(ctx context.Context) (any, error) { return remote.DeleteTopic(ctx, alice, "t") }, "t", topic},
		{"alter", func(ctx context.Context) (any, error) { return remote.AlterTopicConfig(ctx, alice, change) }, change, f.configs},
		{"producer", func(ctx context.Context) (any, error) { return remote.InitProducerID(ctx, alice) }, nil, id.Producer(77)},
		{"upgrade", func(ctx context.Context) (any, error) { return remote.UpgradeCluster(ctx, alice, 2) }, broker.FeatureLevel(2), broker.Upgrade{Was: 1, Is: 2}},
		{"unregister", func(ctx context.Context) (any, error) { return nil, remote.UnregisterNode(ctx, alice, 4) }, id.Node(4), nil},
		{"transfer", func(ctx context.Context) (any, error) {
			node, epoch, err := remote.TransferLeader(ctx, alice, transfer)
			return leadership{node, epoch}, err
		}, transfer, leadership{3, 9}},
		{"transfer to the preferred one", func(ctx context.Context) (any, error) {
			_, _, err := remote.TransferLeader(ctx, alice, broker.Transfer{Topic: "t", To: id.NoNode})
			return nil, err
		}, broker.Transfer{Topic: "t", To: id.NoNode}, nil},
		{"status", func(ctx context.Context) (any, error) { return remote.ClusterStatus(ctx, alice) }, nil, own},
		{"partition", func(ctx context.Context) (any, error) { return remote.PartitionStatus(ctx, alice, "t", 1) }, "t-1", f.partition},
	} {
		t.Run(call.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			f.err = nil
			answer, err := call.do(ctx)
			require.NoError(t, err)
			require.Equal(t, call.answer, answer)
			require.Equal(t, call.asked, f.asked)
			require.Equal(t, *alice, f.caller)
			require.True(t, f.forwarded)
			require.LessOrEqual(t, f.due, 5*time.Second)

			f.err = &kerr.Error{Code: kerr.NotController, Message: "ask node 3", Leader: 3}
			_, err = call.do(ctx)
			var refused *kerr.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, f.err, refused)
		})
	}
}

// marked is a connection that notes what calls carry.
type marked struct {
	drpc.Conn
	with map[string]string
}

func (m *marked) Invoke(ctx context.Context, _ string, _ drpc.Encoding, _, _ drpc.Message) error {
	m.with, _ = drpcmetadata.Get(ctx)
	return errors.New("not today")
}

// TestWhatIsPassedOnSaysForWhom: every call there is. One without the mark is the node's own: its caller's permissions are asked for again, as
// the node's, and it is passed on again.
func TestWhatIsPassedOnSaysForWhom(t *testing.T) {
	alice := &broker.Caller{Principal: broker.Principal{Type: broker.UserType, Name: "alice"}, Node: id.NoNode}
	conn := &marked{}
	remote, calls := reflect.ValueOf(Remote(pb.NewDRPCAdminClient(conn))), reflect.TypeFor[broker.Remote]()
	for i := range calls.NumMethod() {
		call := calls.Method(i)
		args := []reflect.Value{reflect.ValueOf(t.Context()), reflect.ValueOf(alice)}
		for n := len(args); n < call.Type.NumIn(); n++ {
			args = append(args, reflect.Zero(call.Type.In(n)))
		}
		conn.with = nil
		remote.MethodByName(call.Name).Call(args)
		require.Equal(t, "1", conn.with["quorumlog-forwarded"], call.Name)
		require.Contains(t, conn.with["quorumlog-caller"], "alice", call.Name)
	}
}

// TestWhatClientsLeaveOut: Kafka's word for a default is one here, and a request without a time has fifteen seconds.
func TestWhatClientsLeaveOut(t *testing.T) {
	f := &fake{}
	_, client := serveAdmin(t, f)
	_, err := client.CreateTopic(t.Context(), &pb.CreateTopicRequest{Name: "t", ReplicationFactor: -1, ValidateOnly: true})
	require.NoError(t, err)
	require.Equal(t, broker.NewTopic{Name: "t", ValidateOnly: true}, f.asked)
	require.False(t, f.forwarded)
	require.InDelta(t, defaultTimeout.Seconds(), f.due.Seconds(), 5)
	_, err = client.DeleteTopic(t.Context(), &pb.DeleteTopicRequest{Name: "t", TimeoutMs: 40_000})
	require.NoError(t, err)
	require.InDelta(t, 40, f.due.Seconds(), 10)
}
