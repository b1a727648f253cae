package placement

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/wal/id"
)

// allow is the binding that lets a user do something with a resource, from anywhere.
func allow(t acl.ResourceType, name, user string, op acl.Operation) acl.Binding {
	return acl.Binding{
		Pattern: acl.Pattern{Type: t, Name: name, Kind: acl.Literal},
		Entry:   acl.Entry{Principal: acl.Principal{Type: acl.UserType, Name: user}, Host: acl.Wildcard, Operation: op, Permission: acl.Allow},
	}
}

// Commands are kept for years: these bytes must always decode to the same commands.
var golden = []struct {
	key, value string
	command    Command
}{
	{"FoundCluster/1", `{"cluster_id":"c","name":"n","founder":1}`, FoundCluster{ClusterID: "c", Name: "n", Founder: 1}},
	{"FoundCluster/1", `{"cluster_id":"c","name":"n","founder":1,"level":1}`, FoundCluster{ClusterID: "c", Name: "n", Founder: 1, Level: 1}},
	{"RegisterNode/1", `{"node":2,"store_id":"s","boot_epoch":7,"rpc_address":"a:1","gossip_address":"a:2","rack":"r","version":"v","min_level":1,"max_level":3}`,
		RegisterNode{Node: 2, StoreID: "s", BootEpoch: 7, RPCAddress: "a:1", GossipAddress: "a:2", Rack: "r", Version: "v", MinLevel: 1, MaxLevel: 3}},
	{"UnregisterNode/1", `{"node":2}`, UnregisterNode{Node: 2}},
	{"CreateTopic/1", `{"name":"a","id":"YQAAAAAAAAAAAAAAAAAAAQ","configs":{"retention.ms":"1"},"assignment":[[1,2],[2,1]]}`,
		CreateTopic{Name: "a", ID: topicID("a"), Configs: map[string]string{"retention.ms": "1"}, Assignment: [][]id.Node{{1, 2}, {2, 1}}}},
	{"DeleteTopic/1", `{"name":"a","id":"YQAAAAAAAAAAAAAAAAAAAQ"}`, DeleteTopic{Name: "a", ID: topicID("a")}},
	{"DeleteTopic/1", `{"name":"a"}`, DeleteTopic{Name: "a"}},
	{"AlterTopicConfig/1", `{"name":"a","id":"YQAAAAAAAAAAAAAAAAAAAQ"}`, AlterTopicConfig{Name: "a", ID: topicID("a")}},
	{"AlterTopicConfig/1", `{"name":"a","set":{"retention.ms":"1"},"remove":["segment.bytes"]}`,
		AlterTopicConfig{Name: "a", Set: map[string]string{"retention.ms": "1"}, Remove: []string{"segment.bytes"}}},
	{"AllocateProducerIDs/1", `{"node":2,"count":1000}`, AllocateProducerIDs{Node: 2, Count: 1000}},
	{"SetFeatureLevel/1", `{"level":1}`, SetFeatureLevel{Level: 1}},
	{"CreateACLs/1", `{"bindings":[["TOPIC","PREFIXED","orders.","User:alice","10.0.0.1","DESCRIBE_CONFIGS","DENY"],["CLUSTER","LITERAL","kafka-cluster","User:*","*","ALL","ALLOW"]]}`,
		CreateACLs{Bindings: []acl.Binding{
			{Pattern: acl.Pattern{Type: acl.Topic, Name: "orders.", Kind: acl.Prefixed},
				Entry: acl.Entry{Principal: acl.Principal{Type: "User", Name: "alice"}, Host: "10.0.0.1", Operation: acl.DescribeConfigs, Permission: acl.Deny}},
			{Pattern: acl.Pattern{Type: acl.Cluster, Name: "kafka-cluster", Kind: acl.Literal},
				Entry: acl.Entry{Principal: acl.Everybody, Host: "*", Operation: acl.All, Permission: acl.Allow}},
		}}},
	{"DeleteACLs/1", `{"bindings":[["TRANSACTIONAL_ID","LITERAL","t","User:a","*","TWO_PHASE_COMMIT","ALLOW"],["GROUP","LITERAL","g","User:a","*","READ","ALLOW"]]}`,
		DeleteACLs{Bindings: []acl.Binding{allow(acl.TransactionalID, "t", "a", acl.TwoPhaseCommit), allow(acl.Group, "g", "a", acl.Read)}}},
	{"AlterUsers/1", `{"delete":[{"user":"bob","mechanism":"SCRAM-SHA-512"}],"set":[{"user":"alice","mechanism":"SCRAM-SHA-256","iterations":4096,"salt":"c2FsdA==","stored_key":"AQI=","server_key":"AwQ="}]}`,
		AlterUsers{
			Delete: []CredentialKey{{"bob", ScramSHA512}},
			Set:    []*Credential{{CredentialKey{"alice", ScramSHA256}, 4096, []byte("salt"), []byte{1, 2}, []byte{3, 4}}},
		}},
	{"AlterQuotas/1", `{"changes":[{"entity":{"user":"alice","client_id":null},"set":{"producer_byte_rate":1024,"request_percentage":12.5}},{"entity":{"client_id":"app"},"remove":["consumer_byte_rate"]}]}`,
		AlterQuotas{Changes: []QuotaChange{
			{Entity: quota.Entity{User: quota.Named("alice"), Client: quota.Side{Match: quota.Default}}, Set: map[string]float64{"producer_byte_rate": 1024, "request_percentage": 12.5}},
			{Entity: quota.Entity{Client: quota.Named("app")}, Remove: []string{"consumer_byte_rate"}},
		}}},
}

func TestCodecGolden(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range golden {
		seen[g.key] = true
		key, value, err := Encode(g.command, FirstLevel)
		if err != nil || string(key) != g.key || string(value) != g.value {
			t.Errorf("encoded %s %s %v\nwant    %s %s", key, value, err, g.key, g.value)
		}
		c, err := Decode([]byte(g.key), []byte(g.value))
		if err != nil || !reflect.DeepEqual(c, g.command) {
			t.Errorf("%s decoded to %+v, %v", g.key, c, err)
		}
	}
	for key := range decoders {
		if _, level, _ := parseKey(key); level == FirstLevel && !seen[key] {
			t.Errorf("%s has no golden form", key)
		}
	}
}

func TestDecodeIsStrict(t *testing.T) {
	for _, tc := range []struct{ key, value, want string }{
		{"MoveReplica/9", `{}`, "this release does not know metadata command MoveReplica/9 (feature level 9; it knows levels up to "},
		{fmt.Sprintf("CreateTopic/%d", SupportedLevel+1), `{}`,
			fmt.Sprintf("does not know metadata command CreateTopic/%d (feature level %[1]d;", SupportedLevel+1)},
		{"MoveReplica/1", `{}`, "this release does not know metadata command MoveReplica/1, though it knows the feature levels up to "},
		{"CreateTopic", `{}`, "is not the key of a metadata command"},
		{"CreateTopic/01", `{}`, "is not the key of a metadata command"},
		{"/1", `{}`, "is not the key of a metadata command"},
		{"", ``, "is not the key of a metadata command"},
		{strings.Repeat("k", 10000), ``, `k…" is not the key`},
		{"UnregisterNode/1", `{"node":1,"force":true}`, "unknown field"},
		{"UnregisterNode/1", `{"node":1}{}`, "bytes after"},
		{"UnregisterNode/1", `{"node":"1"}`, "cannot unmarshal"},
		{"UnregisterNode/1", `{"node":99999999999}`, "cannot unmarshal"},
		{"UnregisterNode/1", `null`, "not a JSON object"},
		{"UnregisterNode/1", ``, "not a JSON object"},
		{"UnregisterNode/1", `{` + strings.Repeat(" ", maxCommandBytes), "at most"},
		{"DeleteTopic/1", `{"name":"a","id":"short"}`, "is not a topic id"},
		{"CreateACLs/1", `{"bindings":[["TOPIC","LITERAL","a","User:a","*","FLY","ALLOW"]]}`, `unknown operation "FLY"`},
		{"CreateACLs/1", `{"bindings":[["TOPIC","MATCH","a","User:a","*","READ","ALLOW"]]}`, `unknown pattern type "MATCH"`},
		{"CreateACLs/1", `{"bindings":[["TOPIC","LITERAL","a","a","*","READ","ALLOW"]]}`, "no colon"},
		{"CreateACLs/1", `{"bindings":[["TOPIC","LITERAL","a","User:a","*","READ"]]}`, "6 words"},
		{"CreateACLs/1", `{"bindings":[null]}`, "0 words"},
		{"AlterQuotas/1", `{"changes":[{"entity":{"ip":"10.0.0.1"}}]}`, "unknown field"},
		{"AlterQuotas/1", `{"changes":[{"entity":{"user":7}}]}`, "cannot unmarshal"},
	} {
		c, err := Decode([]byte(tc.key), []byte(tc.value))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q %.50q: got %v, %v\nwant %s", tc.key, tc.value, c, err, tc.want)
		}
	}
	var unsupported *UnsupportedError
	if _, err := Decode([]byte("X/9"), nil); !errors.As(err, &unsupported) || unsupported.Level != 9 {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add([]byte(g.key), []byte(g.value))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		c, err := Decode(key, value)
		if err != nil {
			return
		}
		k, v, err := Encode(c, FirstLevel)
		if err != nil || string(k) != string(key) {
			t.Fatalf("%s %s does not encode: %s, %v", key, value, k, err)
		}
		again, err := Decode(k, v)
		if err != nil {
			t.Fatalf("%s decoded once: %v", v, err)
		}
		if _, w, _ := Encode(again, FirstLevel); string(w) != string(v) {
			t.Fatalf("unstable: %s, then %s", v, w)
		}
		tab := clusterOf(t, 3)
		tab.Apply(100, c) // must not panic
		restored := NewTable()
		if err := restored.Restore(tab.Snapshot(nil)); err != nil {
			t.Fatalf("after %s %s: %v", k, v, err)
		}
	})
}
