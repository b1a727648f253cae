package authorizer

import (
	"context"
	"slices"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Guard returns a broker whose callers may do what the authorizer allows, whatever the protocol: which call needs what is in broker.Needs. Batches
// and reads are asked about by the broker behind it, which knows the names of their topics.
//
// A node that passes a call on has asked for its caller, so what is broker.Forwarded is not asked again: who may say so is up to the protocol,
// which believes nodes alone.
//
// Each call is written out. One that is new does not compile before somebody has thought about who may make it.
func Guard(b broker.Broker, a broker.Authorizer) broker.Broker {
	if !a.Enabled() {
		return unguarded{b}
	}
	return &guard{b, a}
}

type guard struct {
	broker broker.Broker
	a      broker.Authorizer
}

var _ broker.Broker = (*guard)(nil)

// require returns nil if the caller may make the call.
func (g *guard) require(ctx context.Context, c *broker.Caller, call, topic string) *kerr.Error {
	if broker.IsForwarded(ctx) {
		return nil
	}
	return broker.Require(g.a, c, call, topic)
}

// hideConfigs takes the configs of a topic away from who may not see them.
func (g *guard) hideConfigs(c *broker.Caller, t *broker.Topic) {
	if !g.a.Allowed(c, acl.DescribeConfigs, acl.Resource{Type: acl.Topic, Name: t.Name}) {
		t.Configs = nil
	}
}

// OpenAppender implements broker.Appends.
func (g *guard) OpenAppender(c *broker.Caller, answered func()) broker.Appender {
	return g.broker.OpenAppender(c, answered)
}

// OpenFetcher implements broker.Fetches.
func (g *guard) OpenFetcher(c *broker.Caller) broker.Fetcher { return g.broker.OpenFetcher(c) }

// Metadata implements broker.Topics. Topics that the caller may not describe are left out; one that he asks for by name or id is refused, and
// who asks by id is not told the name.
func (g *guard) Metadata(ctx context.Context, c *broker.Caller, q broker.MetadataQuery) (*broker.Metadata, error) {
	if broker.IsForwarded(ctx) {
		return g.broker.Metadata(ctx, c, q)
	}
	var refused []broker.Topic
	named := q.Topics
	q.Topics = nil
	for _, name := range named {
		if err := g.require(ctx, c, "Metadata", name); err != nil {
			refused = append(refused, broker.Topic{Name: name, Err: err})
			continue
		}
		q.Topics = append(q.Topics, name)
	}
	current := g.a.Current()
	m, err := g.broker.Metadata(ctx, c, q)
	if err != nil {
		return nil, err
	}
	if !current { // what is left out may be for the caller
		m.Age = -1
	}
	shown := m.Topics[:0]
	for i := range m.Topics {
		switch t := &m.Topics[i]; {
		case t.Name == "": // none has the id
			shown = append(shown, *t)
		case g.a.Allowed(c, acl.Describe, acl.Resource{Type: acl.Topic, Name: t.Name}):
			g.hideConfigs(c, t)
			shown = append(shown, *t)
		case slices.Contains(q.IDs, t.ID):
			refused = append(refused, broker.Topic{ID: t.ID, Err: g.refuseID(c, current, t)})
		}
	}
	m.Topics = append(shown, refused...)
	return m, nil
}

// refuseID says that a caller may not describe the topic with an id. By then the rules may be others than when it was looked up.
func (g *guard) refuseID(c *broker.Caller, current bool, t *broker.Topic) *kerr.Error {
	if !current {
		return broker.ErrNotCurrent
	}
	g.a.Denied(c, acl.Describe, acl.Resource{Type: acl.Topic, Name: t.Name})
	return kerr.Errorf(kerr.TopicAuthorizationFailed, "%s is not authorized for the topic with id %s: it needs DESCRIBE on the TOPIC", c.Principal, t.ID)
}

// PartitionStatus implements broker.Topics.
func (g *guard) PartitionStatus(ctx context.Context, c *broker.Caller, topic string, p id.Partition) (*broker.PartitionStatus, error) {
	if err := g.require(ctx, c, "PartitionStatus", topic); err != nil {
		return nil, err
	}
	return g.broker.PartitionStatus(ctx, c, topic, p)
}

// ListOffsets implements broker.Offsets. Partitions of topics that the caller may not describe are refused, the others are asked for.
func (g *guard) ListOffsets(ctx context.Context, c *broker.Caller, queries []broker.OffsetQuery) []broker.Offset {
	return permitted(ctx, g, c, "ListOffsets", queries, g.broker.ListOffsets,
		func(q broker.OffsetQuery) string { return q.Topic },
		func(err *kerr.Error) broker.Offset {
			return broker.Offset{Offset: id.NoOffset, Timestamp: broker.NoTimestamp, Leader: id.NoNode, Err: err}
		})
}

// OffsetForLeaderEpoch implements broker.Offsets.
func (g *guard) OffsetForLeaderEpoch(ctx context.Context, c *broker.Caller, queries []broker.EpochQuery) []broker.EpochEnd {
	return permitted(ctx, g, c, "OffsetForLeaderEpoch", queries, g.broker.OffsetForLeaderEpoch,
		func(q broker.EpochQuery) string { return q.Topic },
		func(err *kerr.Error) broker.EpochEnd {
			return broker.EpochEnd{Epoch: broker.NoEpoch, End: id.NoOffset, Leader: id.NoNode, LeaderEpoch: broker.NoEpoch, Err: err}
		})
}

// DeleteRecords implements broker.Records.
func (g *guard) DeleteRecords(ctx context.Context, c *broker.Caller, deletions []broker.Deletion) []broker.LowWatermark {
	return permitted(ctx, g, c, "DeleteRecords", deletions, g.broker.DeleteRecords,
		func(d broker.Deletion) string { return d.Topic },
		func(err *kerr.Error) broker.LowWatermark {
			return broker.LowWatermark{Offset: id.NoOffset, Leader: id.NoNode, Err: err}
		})
}

// permitted makes a call about several partitions for those that the caller may make it for; the others are refused, in their places.
func permitted[Q, A any](
	ctx context.Context, g *guard, c *broker.Caller, name string, queries []Q, call func(context.Context, *broker.Caller, []Q) []A,
	topic func(Q) string, refused func(*kerr.Error) A,
) []A {
	if broker.IsForwarded(ctx) {
		return call(ctx, c, queries)
	}
	permits := broker.NewPermits(g.a, c)
	answers := make([]A, len(queries))
	var asked []Q
	var places []int
	for i, q := range queries {
		if err := permits.Topic(name, topic(q)); err != nil {
			answers[i] = refused(err)
			continue
		}
		asked, places = append(asked, q), append(places, i)
	}
	for i, answer := range call(ctx, c, asked) {
		answers[places[i]] = answer
	}
	return answers
}

// ClusterStatus implements broker.Cluster.
func (g *guard) ClusterStatus(ctx context.Context, c *broker.Caller) (*broker.ClusterStatus, error) {
	if err := g.require(ctx, c, "ClusterStatus", ""); err != nil {
		return nil, err
	}
	return g.broker.ClusterStatus(ctx, c)
}

// LogDirs implements broker.Cluster.
func (g *guard) LogDirs(ctx context.Context, c *broker.Caller) ([]broker.LogDir, error) {
	if err := g.require(ctx, c, "LogDirs", ""); err != nil {
		return nil, err
	}
	return g.broker.LogDirs(ctx, c)
}

// TopicConfigs implements broker.Configs.
func (g *guard) TopicConfigs(ctx context.Context, c *broker.Caller, topic string) ([]broker.Config, error) {
	if err := g.require(ctx, c, "TopicConfigs", topic); err != nil {
		return nil, err
	}
	return g.broker.TopicConfigs(ctx, c, topic)
}

// NodeConfigs implements broker.Configs.
func (g *guard) NodeConfigs(ctx context.Context, c *broker.Caller) ([]broker.Config, error) {
	if err := g.require(ctx, c, "NodeConfigs", ""); err != nil {
		return nil, err
	}
	return g.broker.NodeConfigs(ctx, c)
}

// CreateTopic implements broker.Changes. The configs of the new topic are for those who may see them.
func (g *guard) CreateTopic(ctx context.Context, c *broker.Caller, t broker.NewTopic) (*broker.Topic, error) {
	if err := g.require(ctx, c, "CreateTopic", t.Name); err != nil {
		return nil, err
	}
	topic, err := g.broker.CreateTopic(ctx, c, t)
	if topic != nil && !broker.IsForwarded(ctx) {
		g.hideConfigs(c, topic)
	}
	return topic, err
}

// DeleteTopic implements broker.Changes.
func (g *guard) DeleteTopic(ctx context.Context, c *broker.Caller, name string) (id.Topic, error) {
	if err := g.require(ctx, c, "DeleteTopic", name); err != nil {
		return id.Topic{}, err
	}
	return g.broker.DeleteTopic(ctx, c, name)
}

// AlterTopicConfig implements broker.Changes.
func (g *guard) AlterTopicConfig(ctx context.Context, c *broker.Caller, change broker.ConfigChange) (map[string]string, error) {
	if err := g.require(ctx, c, "AlterTopicConfig", change.Topic); err != nil {
		return nil, err
	}
	return g.broker.AlterTopicConfig(ctx, c, change)
}

// InitProducerID implements broker.Changes.
func (g *guard) InitProducerID(ctx context.Context, c *broker.Caller) (id.Producer, error) {
	if err := g.require(ctx, c, "InitProducerID", ""); err != nil {
		return id.NoProducer, err
	}
	return g.broker.InitProducerID(ctx, c)
}

// UpgradeCluster implements broker.Changes.
func (g *guard) UpgradeCluster(ctx context.Context, c *broker.Caller, level broker.FeatureLevel) (broker.Upgrade, error) {
	if err := g.require(ctx, c, "UpgradeCluster", ""); err != nil {
		return broker.Upgrade{}, err
	}
	return g.broker.UpgradeCluster(ctx, c, level)
}

// UnregisterNode implements broker.Changes.
func (g *guard) UnregisterNode(ctx context.Context, c *broker.Caller, node id.Node) error {
	if err := g.require(ctx, c, "UnregisterNode", ""); err != nil {
		return err
	}
	return g.broker.UnregisterNode(ctx, c, node)
}

// TransferLeader implements broker.Leaderships.
func (g *guard) TransferLeader(ctx context.Context, c *broker.Caller, t broker.Transfer) (id.Node, id.Epoch, error) {
	if err := g.require(ctx, c, "TransferLeader", ""); err != nil {
		return id.NoNode, 0, err
	}
	return g.broker.TransferLeader(ctx, c, t)
}

// CreateACLs implements broker.SecurityChanges.
func (g *guard) CreateACLs(ctx context.Context, c *broker.Caller, bindings []acl.Binding) error {
	if err := g.require(ctx, c, "CreateACLs", ""); err != nil {
		return err
	}
	return g.broker.CreateACLs(ctx, c, bindings)
}

// DeleteACLs implements broker.SecurityChanges.
func (g *guard) DeleteACLs(ctx context.Context, c *broker.Caller, filters []acl.Filter) ([][]acl.Binding, error) {
	if err := g.require(ctx, c, "DeleteACLs", ""); err != nil {
		return nil, err
	}
	return g.broker.DeleteACLs(ctx, c, filters)
}

// DescribeACLs implements broker.Security.
func (g *guard) DescribeACLs(ctx context.Context, c *broker.Caller, f acl.Filter) ([]acl.Binding, error) {
	if err := g.require(ctx, c, "DescribeACLs", ""); err != nil {
		return nil, err
	}
	return g.broker.DescribeACLs(ctx, c, f)
}

// AuthorizedOperations implements broker.Security. It tells nobody about anybody else.
func (g *guard) AuthorizedOperations(c *broker.Caller, r acl.Resource) []acl.Operation {
	return g.broker.AuthorizedOperations(c, r)
}

// AlterUsers implements broker.SecurityChanges.
func (g *guard) AlterUsers(ctx context.Context, c *broker.Caller, change broker.UserChange) error {
	if err := g.require(ctx, c, "AlterUsers", ""); err != nil {
		return err
	}
	return g.broker.AlterUsers(ctx, c, change)
}

// DescribeUsers implements broker.Security.
func (g *guard) DescribeUsers(ctx context.Context, c *broker.Caller, names []string) ([]broker.User, error) {
	if err := g.require(ctx, c, "DescribeUsers", ""); err != nil {
		return nil, err
	}
	return g.broker.DescribeUsers(ctx, c, names)
}

// AlterQuotas implements broker.SecurityChanges.
func (g *guard) AlterQuotas(ctx context.Context, c *broker.Caller, change broker.QuotaChange) error {
	if err := g.require(ctx, c, "AlterQuotas", ""); err != nil {
		return err
	}
	return g.broker.AlterQuotas(ctx, c, change)
}

// DescribeQuotas implements broker.Security.
func (g *guard) DescribeQuotas(ctx context.Context, c *broker.Caller, f broker.QuotaFilter) ([]broker.Quota, error) {
	if err := g.require(ctx, c, "DescribeQuotas", ""); err != nil {
		return nil, err
	}
	return g.broker.DescribeQuotas(ctx, c, f)
}

// unguarded is a broker without an authorizer. It refuses to speak of permissions, which count for nothing there, as Kafka does; but not to
// another node, which may have an authorizer already.
type unguarded struct{ broker.Broker }

var errDisabled = kerr.Errorf(kerr.SecurityDisabled, "No Authorizer is configured: start the nodes with --authorizer acl and --super-users")

// CreateACLs implements broker.SecurityChanges.
func (u unguarded) CreateACLs(ctx context.Context, c *broker.Caller, bindings []acl.Binding) error {
	if !broker.IsForwarded(ctx) {
		return errDisabled
	}
	return u.Broker.CreateACLs(ctx, c, bindings)
}

// DeleteACLs implements broker.SecurityChanges.
func (u unguarded) DeleteACLs(ctx context.Context, c *broker.Caller, filters []acl.Filter) ([][]acl.Binding, error) {
	if !broker.IsForwarded(ctx) {
		return nil, errDisabled
	}
	return u.Broker.DeleteACLs(ctx, c, filters)
}

// DescribeACLs implements broker.Security.
func (u unguarded) DescribeACLs(ctx context.Context, c *broker.Caller, f acl.Filter) ([]acl.Binding, error) {
	if !broker.IsForwarded(ctx) {
		return nil, errDisabled
	}
	return u.Broker.DescribeACLs(ctx, c, f)
}
