package kafka

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// adminBroker answers with its functions. What a test does not expect to be asked it leaves out, and the call panics.
type adminBroker struct {
	broker.Broker
	metadata     func(broker.MetadataQuery) (*broker.Metadata, error)
	create       func(broker.NewTopic) (*broker.Topic, error)
	remove       func(name string) (id.Topic, error)
	alter        func(broker.ConfigChange) error
	topicConfigs func(topic string) ([]broker.Config, error)
	nodeConfigs  func() ([]broker.Config, error)
	low          func([]broker.Deletion) []broker.LowWatermark
	ends         func([]broker.EpochQuery) []broker.EpochEnd
	transfer     func(broker.Transfer) error
	status       func() (*broker.ClusterStatus, error)
	dirs         func() ([]broker.LogDir, error)
	operations   []acl.Operation
	bindings     func(acl.Filter) ([]acl.Binding, error)
	createACLs   func([]acl.Binding) error
	deleteACLs   func([]acl.Filter) ([][]acl.Binding, error)
	users        func(names []string) ([]broker.User, error)
	alterUsers   func(broker.UserChange) error
	quotas       func(broker.QuotaFilter) ([]broker.Quota, error)
	alterQuotas  func(broker.QuotaChange) error
	upgrade      func(broker.FeatureLevel) error
}

// bounded panics for a change without a deadline.
func bounded(ctx context.Context) {
	if _, ok := ctx.Deadline(); !ok {
		panic("a call without a deadline")
	}
}

func (b *adminBroker) Metadata(_ context.Context, _ *broker.Caller, q broker.MetadataQuery) (*broker.Metadata, error) {
	return b.metadata(q)
}

func (b *adminBroker) CreateTopic(ctx context.Context, _ *broker.Caller, t broker.NewTopic) (*broker.Topic, error) {
	bounded(ctx)
	return b.create(t)
}

func (b *adminBroker) DeleteTopic(ctx context.Context, _ *broker.Caller, name string) (id.Topic, error) {
	bounded(ctx)
	return b.remove(name)
}

func (b *adminBroker) AlterTopicConfig(ctx context.Context, _ *broker.Caller, change broker.ConfigChange) (map[string]string, error) {
	bounded(ctx)
	return nil, b.alter(change)
}

func (b *adminBroker) TopicConfigs(_ context.Context, _ *broker.Caller, topic string) ([]broker.Config, error) {
	return b.topicConfigs(topic)
}

func (b *adminBroker) NodeConfigs(context.Context, *broker.Caller) ([]broker.Config, error) {
	return b.nodeConfigs()
}

func (b *adminBroker) DeleteRecords(ctx context.Context, _ *broker.Caller, d []broker.Deletion) []broker.LowWatermark {
	bounded(ctx)
	return b.low(d)
}

func (b *adminBroker) OffsetForLeaderEpoch(_ context.Context, _ *broker.Caller, q []broker.EpochQuery) []broker.EpochEnd {
	return b.ends(q)
}

func (b *adminBroker) TransferLeader(ctx context.Context, _ *broker.Caller, t broker.Transfer) (id.Node, id.Epoch, error) {
	bounded(ctx)
	return 1, 2, b.transfer(t)
}

func (b *adminBroker) ClusterStatus(context.Context, *broker.Caller) (*broker.ClusterStatus, error) {
	return b.status()
}

func (b *adminBroker) LogDirs(context.Context, *broker.Caller) ([]broker.LogDir, error) {
	return b.dirs()
}

func (b *adminBroker) AuthorizedOperations(*broker.Caller, acl.Resource) []acl.Operation {
	return b.operations
}

func (b *adminBroker) DescribeACLs(_ context.Context, _ *broker.Caller, f acl.Filter) ([]acl.Binding, error) {
	return b.bindings(f)
}

func (b *adminBroker) CreateACLs(ctx context.Context, _ *broker.Caller, list []acl.Binding) error {
	bounded(ctx)
	return b.createACLs(list)
}

func (b *adminBroker) DeleteACLs(ctx context.Context, _ *broker.Caller, f []acl.Filter) ([][]acl.Binding, error) {
	bounded(ctx)
	return b.deleteACLs(f)
}

func (b *adminBroker) DescribeUsers(_ context.Context, _ *broker.Caller, names []string) ([]broker.User, error) {
	return b.users(names)
}

func (b *adminBroker) AlterUsers(ctx context.Context, _ *broker.Caller, change broker.UserChange) error {
	bounded(ctx)
	return b.alterUsers(change)
}

func (b *adminBroker) DescribeQuotas(_ context.Context, _ *broker.Caller, f broker.QuotaFilter) ([]broker.Quota, error) {
	return b.quotas(f)
}

func (b *adminBroker) AlterQuotas(ctx context.Context, _ *broker.Caller, change broker.QuotaChange) error {
	bounded(ctx)
	return b.alterQuotas(change)
}

func (b *adminBroker) UpgradeCluster(ctx context.Context, _ *broker.Caller, level broker.FeatureLevel) (broker.Upgrade, error) {
	bounded(ctx)
	return broker.Upgrade{}, b.upgrade(level)
}

// ask sends a request of a version to the row of the table that has it, there and back as bytes.
func ask[Resp kmsg.Response](t *testing.T, b broker.Broker, req kmsg.Request, version int16) Resp {
	t.Helper()
	req.SetVersion(version)
	came := kmsg.RequestForKey(req.Key())
	came.SetVersion(version)
	require.NoError(t, came.ReadFrom(req.AppendTo(nil)))
	c := &call{
		ctx: context.Background(), server: &Server{options: Options{Broker: b, Node: 1}}, version: version,
		caller: &broker.Caller{Principal: broker.Anonymous, Host: netip.MustParseAddr("10.0.0.1")},
	}
	var answer kmsg.Response
	for _, row := range apis {
		if row.key.Int16() == req.Key() {
			require.GreaterOrEqual(t, version, row.min)
			require.LessOrEqual(t, version, row.max)
			answer = row.answer(c, came)
		}
	}
	require.NotNil(t, answer, "the API is not in the table")
	require.Equal(t, version, answer.GetVersion())
	back := req.ResponseKind()
	require.NoError(t, back.ReadFrom(answer.AppendTo(nil)))
	return back.(Resp)
}

// versions calls do with each version of a request that the table has.
func versions(t *testing.T, key kmsg.Key, do func(t *testing.T, version int16)) {
	t.Helper()
	for _, row := range apis {
		if row.key == key {
			for v := row.min; v <= row.max; v++ {
				do(t, v)
			}
			return
		}
	}
	t.Fatalf("%v is not in the table", key)
}

func code(c kerr.Code) int16 { return int16(c) }

// text is a message that a version may not have.
func text(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// threeNodes is a cluster of which node 3 is dead, and led by node 2.
func threeNodes(topics ...broker.Topic) *broker.Metadata {
	return &broker.Metadata{ClusterID: "cluster", Controller: 2, Topics: topics, Nodes: []broker.Node{
		{ID: 1, RPCAddress: "host-1:7001", KafkaAddress: "host-1:9092", Alive: true, Rack: "r1"},
		{ID: 2, RPCAddress: "host-2:7002", KafkaAddress: "host-2:9092", Alive: true},
		{ID: 3, RPCAddress: "host-3:7003", KafkaAddress: "host-3:9092"},
	}}
}

// topicOf is a topic with as many partitions as leaders are given, on nodes 1, 2 and 3, of which 1 is preferred.
func topicOf(name string, leaders ...id.Node) broker.Topic {
	t := broker.Topic{Name: name, ID: id.Topic{byte(len(name)), name[0]}, ReplicationFactor: 3}
	for i, leader := range leaders {
		t.Partitions = append(t.Partitions, broker.Partition{
			ID: id.Partition(i), Leader: leader, Epoch: 4, Replicas: []id.Node{1, 2, 3}, ISR: []id.Node{1, 2},
		})
	}
	return t
}
