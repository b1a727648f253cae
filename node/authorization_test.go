package node_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// guarded is a cluster in which permissions count. Its client is User:CN=test there.
type guarded struct {
	*nodetest.Cluster
	t          *testing.T
	peer       *rpc.Dialer // with the certificate of a node
	controller int
	at         int // the node that is asked: one that is not the controller, if there is one
}

func startGuarded(t *testing.T, nodes int) *guarded {
	g := &guarded{t: t, Cluster: nodetest.Start(t, nodes, nodetest.WithTLS(), nodetest.WithOptions(func(o *node.Options) { o.Authorization.Authorizer = node.ACLAuthorizer }))}
	g.peer = dialerWith(t, g.CA.Node(99))
	nodetest.Eventually(t, "a controller", func() bool {
		m, err := g.atPeer(0).Metadata(g.asNode(), &pb.MetadataRequest{NodesOnly: true})
		g.controller = int(m.GetController()) - 1
		g.at = (g.controller + 1) % nodes
		return err == nil && g.controller >= 0
	})
	return g
}

// asNode makes a call with the context one that a node passes on, and atPeer is how a node makes it: no permission is asked for.
func (g *guarded) asNode() context.Context { return rpc.PassOn(g.Context(), nil) }

func (g *guarded) atPeer(i int) pb.DRPCAdminClient { return g.peer.Admin(g.Nodes[i].RPCAddress()) }

func binding(t acl.ResourceType, name string, op acl.Operation, p acl.Permission) *pb.ACL {
	return &pb.ACL{
		ResourceType: int32(t), Name: name, PatternType: int32(acl.Literal), Principal: "User:CN=test", Host: "*",
		Operation: int32(op), Permission: int32(p),
	}
}

// rules has these permissions hold, and no others, on the node that is asked.
func (g *guarded) rules(acls ...*pb.ACL) {
	g.t.Helper()
	admin := g.atPeer(g.controller)
	if _, err := admin.DeleteACLs(g.asNode(), &pb.DeleteACLsRequest{Filters: []*pb.ACL{{}}}); err != nil {
		g.t.Fatal(err)
	}
	if len(acls) > 0 {
		if _, err := admin.CreateACLs(g.asNode(), &pb.CreateACLsRequest{Acls: acls}); err != nil {
			g.t.Fatal(err)
		}
	}
	key := func(a *pb.ACL) string {
		return fmt.Sprint(a.GetResourceType(), a.GetName(), a.GetOperation(), a.GetPermission())
	}
	var want []string
	for _, a := range acls {
		want = append(want, key(a))
	}
	slices.Sort(want)
	nodetest.Eventually(g.t, "the permissions to be there", func() bool {
		r, err := g.atPeer(g.at).DescribeACLs(g.asNode(), &pb.DescribeACLsRequest{})
		var have []string
		for _, a := range r.GetAcls() {
			have = append(have, key(a))
		}
		slices.Sort(have)
		return err == nil && slices.Equal(have, want)
	})
}

func isDenial(err error) bool {
	code := kerr.CodeOf(err)
	return code == kerr.TopicAuthorizationFailed || code == kerr.ClusterAuthorizationFailed
}

// calls makes each call of a client, about topic t, so that it does little or nothing if it is let through.
var calls = map[string]func(context.Context, pb.DRPCAdminClient) error{
	"Metadata": func(ctx context.Context, a pb.DRPCAdminClient) error {
		r, err := a.Metadata(ctx, &pb.MetadataRequest{Topics: []string{"t"}})
		if err == nil && len(r.GetTopics()) == 1 && r.GetTopics()[0].GetErrorCode() != 0 {
			return kerr.Errorf(kerr.Code(r.GetTopics()[0].GetErrorCode()), "%s", r.GetTopics()[0].GetErrorMessage())
		}
		return err
	},
	"ListOffsets": func(ctx context.Context, a pb.DRPCAdminClient) error {
		r, err := a.ListOffsets(ctx, &pb.ListOffsetsRequest{Partitions: []*pb.ListOffsetsRequest_Partition{{Topic: "t"}}})
		if err == nil && r.GetPartitions()[0].GetErrorCode() != 0 {
			return kerr.Errorf(kerr.Code(r.GetPartitions()[0].GetErrorCode()), "")
		}
		return err
	},
	"OffsetForLeaderEpoch": func(ctx context.Context, a pb.DRPCAdminClient) error {
		r, err := a.OffsetForLeaderEpoch(ctx, &pb.OffsetForLeaderEpochRequest{Partitions: []*pb.OffsetForLeaderEpochRequest_Partition{{Topic: "t"}}})
		if err == nil && r.GetPartitions()[0].GetErrorCode() != 0 {
			return kerr.Errorf(kerr.Code(r.GetPartitions()[0].GetErrorCode()), "")
		}
		return err
	},
	"DeleteRecords": func(ctx context.Context, a pb.DRPCAdminClient) error {
		r, err := a.DeleteRecords(ctx, &pb.DeleteRecordsRequest{Partitions: []*pb.DeleteRecordsRequest_Partition{{Topic: "t"}}})
		if err == nil && r.GetPartitions()[0].GetErrorCode() != 0 {
			return kerr.Errorf(kerr.Code(r.GetPartitions()[0].GetErrorCode()), "")
		}
		return err
	},
	"PartitionStatus": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.PartitionStatus(ctx, &pb.PartitionStatusRequest{Topic: "t"})
		return err
	},
	"CreateTopic": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.CreateTopic(ctx, &pb.CreateTopicRequest{Name: "t", Partitions: -1})
		return err
	},
	"DeleteTopic": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.DeleteTopic(ctx, &pb.DeleteTopicRequest{Name: "t"})
		return err
	},
	"AlterTopicConfig": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.AlterTopicConfig(ctx, &pb.AlterTopicConfigRequest{Name: "t"})
		return err
	},
	"InitProducerID": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.InitProducerID(ctx, &pb.InitProducerIDRequest{})
		return err
	},
	"ClusterStatus": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.ClusterStatus(ctx, &pb.ClusterStatusRequest{})
		return err
	},
	"UnregisterNode": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.UnregisterNode(ctx, &pb.UnregisterNodeRequest{NodeId: 99})
		return err
	},
	"TransferLeader": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.TransferLeader(ctx, &pb.TransferLeaderRequest{Topic: "t"})
		return err
	},
	"UpgradeCluster": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.UpgradeCluster(ctx, &pb.UpgradeClusterRequest{FeatureLevel: 99})
		return err
	},
	"CreateACLs": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.CreateACLs(ctx, &pb.CreateACLsRequest{})
		return err
	},
	"DeleteACLs": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.DeleteACLs(ctx, &pb.DeleteACLsRequest{})
		return err
	},
	"DescribeACLs": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.DescribeACLs(ctx, &pb.DescribeACLsRequest{})
		return err
	},
	"AlterUsers": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.AlterUsers(ctx, &pb.AlterUsersRequest{})
		return err
	},
	"DescribeUsers": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.DescribeUsers(ctx, &pb.DescribeUsersRequest{})
		return err
	},
	"AlterQuotas": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.AlterQuotas(ctx, &pb.AlterQuotasRequest{})
		return err
	},
	"DescribeQuotas": func(ctx context.Context, a pb.DRPCAdminClient) error {
		_, err := a.DescribeQuotas(ctx, &pb.DescribeQuotasRequest{})
		return err
	},
}

// amongNodes lists the calls that nodes make of each other: they are for peers, and no matter of permissions.
var amongNodes = []string{"RegisterNode", "CheckReach", "Identify"}

// TestEveryCallEveryOperation makes each call with no permission, with each alone that suffices, with all that do not, and with one that suffices
// and is denied again.
func TestEveryCallEveryOperation(t *testing.T) {
	g := startGuarded(t, 2)
	everything := func(covered func(acl.ResourceType, acl.Operation) bool) (rules []*pb.ACL) {
		for resource, name := range map[acl.ResourceType]string{acl.Topic: "t", acl.Cluster: acl.ClusterName, acl.Group: "t", acl.TransactionalID: "t"} {
			for _, op := range acl.OperationsOn(resource) {
				if !covered(resource, op) {
					rules = append(rules, binding(resource, name, op, acl.Allow))
				}
			}
		}
		return rules
	}
	described := reflect.TypeFor[pb.DRPCAdminServer]()
	for i := range described.NumMethod() {
		name := described.Method(i).Name
		call := calls[name]
		if call == nil && slices.Contains(amongNodes, name) {
			continue
		}
		if call == nil {
			t.Errorf("%s is not tried: add it to calls", name)
			continue
		}
		denied := func(with string) {
			t.Helper()
			if err := call(g.Context(), g.Admin(g.at)); !isDenial(err) {
				t.Errorf("%s with %s: %v", name, with, err)
			}
		}
		allowed := func(with string) {
			t.Helper()
			if err := call(g.Context(), g.Admin(g.at)); isDenial(err) {
				t.Errorf("%s with %s: %v", name, with, err)
			}
		}
		g.rules()
		denied("nothing")
		enough := func(resource acl.ResourceType, op acl.Operation) bool {
			for _, need := range broker.Needs[name] {
				one := acl.SetOf(acl.Binding{
					Pattern: acl.Pattern{Type: resource, Name: "x", Kind: acl.Literal},
					Entry:   acl.Entry{Principal: acl.Everybody, Host: "*", Operation: op, Permission: acl.Allow},
				})
				if need.Type == resource && one.Decide(acl.Question{Operation: need.Operation, Resource: acl.Resource{Type: resource, Name: "x"}}) == acl.Allowed {
					return true
				}
			}
			return false
		}
		g.rules(everything(enough)...)
		denied("all that does not suffice")
		for _, need := range broker.Needs[name] {
			resource := "t"
			if need.Type == acl.Cluster {
				resource = acl.ClusterName
			}
			op := need.Operation
			if !slices.Contains(acl.OperationsOn(need.Type), op) {
				op = acl.All // DELETE on the cluster is only ever a part of it
			}
			g.rules(binding(need.Type, resource, op, acl.Allow))
			allowed(op.String())
			g.rules(binding(need.Type, resource, acl.All, acl.Allow), binding(need.Type, resource, op, acl.Deny))
			denied("ALL, but " + op.String())
		}
	}
	if !strings.Contains(g.Log(), "msg=denied") || !strings.Contains(g.Log(), `principal="User:CN=test"`) {
		t.Error("denials are not in the log")
	}
}

// TestListsDropWhatIsNotForTheCaller: lists are shorter, what is asked for by name is refused, and configs are for those who may see them.
func TestListsDropWhatIsNotForTheCaller(t *testing.T) {
	g := startGuarded(t, 1)
	for _, name := range []string{"t", "u"} {
		if _, err := g.atPeer(0).CreateTopic(g.asNode(), &pb.CreateTopicRequest{Name: name, Partitions: 1, Configs: map[string]string{"retention.ms": "5"}}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(names ...string) string {
		t.Helper()
		r, err := g.Admin(0).Metadata(g.Context(), &pb.MetadataRequest{Topics: names})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, topic := range r.GetTopics() {
			all = append(all, fmt.Sprintf("%s:%d:%d:%s", topic.GetName(), topic.GetErrorCode(), len(topic.GetPartitions()), topic.GetConfigs()["retention.ms"]))
		}
		return strings.Join(all, " ")
	}
	for _, tc := range []struct {
		rules                      []*pb.ACL
		all, both, refused, missed string
	}{
		{nil, "", "t:29:0: u:29:0:", "u:29:0:", "x:29:0:"},
		{[]*pb.ACL{binding(acl.Topic, "t", acl.Describe, acl.Allow)}, "t:0:1:", "t:0:1: u:29:0:", "u:29:0:", "x:29:0:"},
		{[]*pb.ACL{binding(acl.Topic, "t", acl.Read, acl.Allow), binding(acl.Topic, "t", acl.AlterConfigs, acl.Allow)}, "t:0:1:5", "t:0:1:5 u:29:0:", "u:29:0:", "x:29:0:"},
		{[]*pb.ACL{binding(acl.Topic, "*", acl.Read, acl.Allow), binding(acl.Topic, "u", acl.Describe, acl.Deny)}, "t:0:1:", "t:0:1: u:29:0:", "u:29:0:", "x:3:0:"},
	} {
		g.rules(tc.rules...)
		if all, both, refused, missed := list(), list("t", "u"), list("u"), list("x"); all != tc.all || both != tc.both || refused != tc.refused || missed != tc.missed {
			t.Errorf("with %v: %q, %q, %q, %q\nwant %q, %q, %q, %q", tc.rules, all, both, refused, missed, tc.all, tc.both, tc.refused, tc.missed)
		}
	}
	g.rules(binding(acl.Topic, "t", acl.Describe, acl.Allow))
	ask := func(topic string, p int32) *pb.ListOffsetsRequest_Partition {
		return &pb.ListOffsetsRequest_Partition{Topic: topic, Partition: p, Timestamp: -1}
	}
	r, err := g.Admin(0).ListOffsets(g.Context(), &pb.ListOffsetsRequest{Partitions: []*pb.ListOffsetsRequest_Partition{ask("u", 0), ask("t", 0), ask("x", 7), ask("t", 9)}})
	if err != nil {
		t.Fatal(err)
	}
	var codes []int32
	for _, p := range r.GetPartitions() {
		codes = append(codes, p.GetErrorCode())
	}
	if !slices.Equal(codes, []int32{29, 0, 29, 3}) || r.GetPartitions()[2].GetPartition() != 7 || r.GetPartitions()[3].GetPartition() != 9 {
		t.Errorf("codes %v: %v", codes, r)
	}
}

// TestRevokedOnOpenStreams: a producer and a consumer whose permission goes are told so on the streams that they have.
func TestRevokedOnOpenStreams(t *testing.T) {
	g := startGuarded(t, 1)
	created, err := g.atPeer(0).CreateTopic(g.asNode(), &pb.CreateTopicRequest{Name: "t", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	topic := id.Topic(created.GetTopic().GetId())
	dialer := dialerWith(t, g.Client)
	produce, err := dialer.DialProduce(g.Context(), g.Nodes[0].RPCAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = produce.Close() }()
	answers := make(chan kerr.Code, 10)
	go func() { _ = produce.Recv(func(r rpc.ProduceResponse) { answers <- r.Code }) }()
	send := func(want kerr.Code) {
		t.Helper()
		var b batch.Builder
		b.Append(batch.Record{Timestamp: time.Now().UnixMilli(), Value: []byte("v")})
		data, err := b.Finish(nil, batch.Plain(batch.None))
		if err != nil {
			t.Fatal(err)
		}
		if err := produce.Send(rpc.ProduceRequest{Topic: topic, Acks: rpc.AcksAll, Batch: data}); err != nil {
			t.Fatal(err)
		}
		if err := produce.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case code := <-answers:
			if code != want {
				t.Errorf("got %v, want %v", code, want)
			}
		case <-g.Context().Done():
			t.Fatal("no answer")
		}
	}
	fetch, err := dialer.DialFetch(g.Context(), g.Nodes[0].RPCAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fetch.Close() }()
	events := make(chan rpc.FetchEvent, 100)
	go func() { _ = fetch.Recv(func(e rpc.FetchEvent) { e.Batches = slices.Clone(e.Batches); events <- e }) }()
	next := func() rpc.FetchEvent {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-g.Context().Done():
			t.Fatal("nothing is fetched")
		}
		return rpc.FetchEvent{}
	}
	subscribe := func(n uint32) {
		t.Helper()
		if err := fetch.Send(rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: n, Topic: topic, Credit: 1 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	write, read := binding(acl.Topic, "t", acl.Write, acl.Allow), binding(acl.Topic, "t", acl.Read, acl.Allow)

	send(kerr.TopicAuthorizationFailed)
	g.rules(write)
	send(kerr.None)
	subscribe(1)
	if e := next(); e.Code != kerr.TopicAuthorizationFailed || len(e.Batches) > 0 {
		t.Errorf("a consumer without permission gets %v, %d bytes", e.Code, len(e.Batches))
	}
	g.rules(write, read)
	subscribe(2)
	for e := next(); len(e.Batches) == 0; e = next() {
		if e.Code != kerr.None {
			t.Fatalf("a consumer with permission gets %v: %s", e.Code, e.Message)
		}
	}
	g.rules(write)
	send(kerr.None)
	for e := next(); e.Code != kerr.TopicAuthorizationFailed; e = next() {
		if len(e.Batches) > 0 {
			t.Fatal("a consumer whose permission is gone gets records")
		}
	}
	g.rules()
	send(kerr.TopicAuthorizationFailed)
}

// TestSecurityCalls: permissions, users and quotas come back as they were set, from any node, and from the disk.
func TestSecurityCalls(t *testing.T) {
	c := nodetest.Start(t, 1)
	ctx := c.Context()
	if _, err := c.Admin(0).CreateACLs(ctx, &pb.CreateACLsRequest{Acls: []*pb.ACL{binding(acl.Topic, "t", acl.Read, acl.Allow)}}); kerr.CodeOf(err) != kerr.SecurityDisabled {
		t.Errorf("without an authorizer: %v", err)
	}
	upsert := func(user string, mechanism, iterations, key int) error {
		_, err := c.Admin(0).AlterUsers(ctx, &pb.AlterUsersRequest{Upsert: []*pb.ScramCredential{{
			User: user, Mechanism: int32(mechanism), Iterations: int32(iterations), Salt: make([]byte, 16), StoredKey: make([]byte, key), ServerKey: make([]byte, key),
		}}})
		return err
	}
	for _, tc := range []struct {
		mechanism, iterations, key int
		want                       kerr.Code
	}{
		{1, 4096, 32, kerr.None}, {2, 16384, 64, kerr.None}, {1, 4095, 32, kerr.UnacceptableCredential}, {1, 16385, 32, kerr.UnacceptableCredential},
		{0, 4096, 32, kerr.UnsupportedSASLMechanism}, {3, 4096, 32, kerr.UnsupportedSASLMechanism}, {-1, 4096, 32, kerr.UnsupportedSASLMechanism},
	} {
		if err := upsert("alice", tc.mechanism, tc.iterations, tc.key); kerr.CodeOf(err) != tc.want {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	if _, err := c.Admin(0).AlterUsers(ctx, &pb.AlterUsersRequest{Delete: []*pb.AlterUsersRequest_Deletion{{User: "bob", Mechanism: 1}}}); kerr.CodeOf(err) != kerr.ResourceNotFound {
		t.Errorf("a user that is not there is deleted: %v", err)
	}
	described, err := c.Admin(0).DescribeUsers(ctx, &pb.DescribeUsersRequest{Users: []string{"bob", "alice"}})
	if err != nil || fmt.Sprint(described.GetUsers()[0].GetName(), described.GetUsers()[0].GetCredentials(), described.GetUsers()[1].GetErrorCode()) !=
		"alice [mechanism:1  iterations:4096 mechanism:2  iterations:16384] 91" &&
		len(described.GetUsers()[0].GetCredentials()) != 2 {
		t.Errorf("users %v, %v", described, err)
	}
	alter := func(e *pb.QuotaEntity, set map[string]float64, remove ...string) error {
		_, err := c.Admin(0).AlterQuotas(ctx, &pb.AlterQuotasRequest{Changes: []*pb.AlterQuotasRequest_Change{{Entity: e, Set: set, Remove: remove}}})
		return err
	}
	alice := &pb.QuotaEntity{User: &pb.QuotaSide{Name: "alice"}}
	if err := alter(alice, map[string]float64{"producer_byte_rate": 0.5}); kerr.CodeOf(err) != kerr.InvalidRequest {
		t.Errorf("half a byte: %v", err)
	}
	both := &pb.QuotaEntity{User: &pb.QuotaSide{Default: true}, ClientId: &pb.QuotaSide{Name: "app"}}
	for _, err := range []error{
		alter(alice, map[string]float64{"producer_byte_rate": 1000, "request_percentage": 2.5}), alter(both, map[string]float64{"consumer_byte_rate": 7}),
		alter(alice, nil, "request_percentage"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for _, tc := range []struct {
			want   int
			strict bool
			filter []*pb.DescribeQuotasRequest_Component
		}{
			{2, false, nil},
			{0, true, nil},
			{1, false, []*pb.DescribeQuotasRequest_Component{{EntityType: "user", Name: "alice"}}},
			{1, true, []*pb.DescribeQuotasRequest_Component{{EntityType: "user", Name: "alice"}}},
			{2, false, []*pb.DescribeQuotasRequest_Component{{EntityType: "user", Match: 2}}},
			{1, true, []*pb.DescribeQuotasRequest_Component{{EntityType: "user", Match: 2}}},
			{1, true, []*pb.DescribeQuotasRequest_Component{{EntityType: "user", Match: 1}, {EntityType: "client-id", Name: "app"}}},
			{0, false, []*pb.DescribeQuotasRequest_Component{{EntityType: "client-id", Match: 1}}},
		} {
			r, err := c.Admin(0).DescribeQuotas(ctx, &pb.DescribeQuotasRequest{Components: tc.filter, Strict: tc.strict})
			if err != nil || len(r.GetQuotas()) != tc.want {
				t.Errorf("%s: %v: %v, %v, want %d", when, tc.filter, r, err, tc.want)
			}
		}
	}
	check("at once")
	for _, filter := range [][]*pb.DescribeQuotasRequest_Component{
		{{EntityType: "ip", Match: 2}}, {{EntityType: "user", Match: 3}}, {{EntityType: "user"}, {EntityType: "user"}},
	} {
		if _, err := c.Admin(0).DescribeQuotas(ctx, &pb.DescribeQuotasRequest{Components: filter}); err == nil {
			t.Errorf("%v is taken", filter)
		}
	}
	c.StopNode(0)
	c.StartNode(0)
	c.AwaitReady(0)
	check("after a restart")
	if r, err := c.Admin(0).DescribeUsers(ctx, &pb.DescribeUsersRequest{}); err != nil || len(r.GetUsers()) != 1 {
		t.Errorf("users after a restart: %v, %v", r, err)
	}
}
