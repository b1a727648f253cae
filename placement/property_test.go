package placement

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/wal/id"
)

// drawCommand draws a command that has a fair chance to be carried out, and some to be refused.
func drawCommand(t *rapid.T, v *View) Command {
	node := rapid.Map(rapid.Int32Range(0, 6), func(n int32) id.Node { return id.Node(n) })
	topic := rapid.SampledFrom([]string{"a", "b", "c.d", "c_d", "e", "bad name"})
	configs := rapid.MapOfN(rapid.SampledFrom([]string{"retention.ms", "min.insync.replicas", "segment.bytes", "wrong"}), rapid.SampledFrom([]string{"1", "2", "1048576"}), 0, 2)
	user := rapid.SampledFrom([]string{"alice", "bob", ""})
	binding := rapid.Custom(func(t *rapid.T) acl.Binding {
		return allow(acl.Topic, topic.Draw(t, "on"), user.Draw(t, "who"), rapid.SampledFrom([]acl.Operation{acl.Read, acl.All}).Draw(t, "what"))
	})
	key := rapid.Custom(func(t *rapid.T) CredentialKey {
		return CredentialKey{user.Draw(t, "user"), rapid.SampledFrom([]Mechanism{ScramSHA256, ScramSHA512, "of a later release"}).Draw(t, "mechanism")}
	})
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0, 1:
		r := registration(node.Draw(t, "node"))
		r.BootEpoch = rapid.Uint64Range(1, 5).Draw(t, "boot epoch")
		r.Rack = rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(t, "rack")
		if rapid.IntRange(0, 9).Draw(t, "wiped") == 0 {
			r.StoreID = "another"
		}
		return r
	case 2:
		return UnregisterNode{Node: node.Draw(t, "node")}
	case 3, 4, 5:
		name := topic.Draw(t, "topic")
		c := creation(v, name, rapid.IntRange(0, 7).Draw(t, "partitions"), rapid.IntRange(1, 4).Draw(t, "rf"))
		c.ID[14] = rapid.Byte().Draw(t, "id")
		c.Configs = configs.Draw(t, "configs")
		return c
	case 6:
		return DeleteTopic{Name: topic.Draw(t, "topic")}
	case 7:
		return AlterTopicConfig{Name: topic.Draw(t, "topic"), Set: configs.Draw(t, "set"), Remove: rapid.SliceOfN(rapid.Just("retention.ms"), 0, 1).Draw(t, "remove")}
	case 8:
		return AllocateProducerIDs{Node: node.Draw(t, "node"), Count: rapid.IntRange(0, 10).Draw(t, "count")}
	case 9:
		return CreateACLs{Bindings: rapid.SliceOfN(binding, 0, 3).Draw(t, "bindings")}
	case 10:
		return DeleteACLs{Bindings: rapid.SliceOfN(binding, 0, 3).Draw(t, "bindings")}
	case 11:
		c := AlterUsers{Delete: rapid.SliceOfN(key, 0, 1).Draw(t, "delete")}
		for _, k := range rapid.SliceOfN(key, 0, 2).Draw(t, "set") {
			c.Set = append(c.Set, &Credential{CredentialKey: k, Iterations: rapid.IntRange(1, 2).Draw(t, "iterations"), Salt: []byte("s")})
		}
		return c
	case 12:
		side := rapid.SampledFrom([]quota.Side{{}, {Match: quota.Default}, quota.Named("a"), quota.Named("")})
		limits := rapid.SampledFrom([]string{"producer_byte_rate", "request_percentage", "of a later release"})
		return AlterQuotas{Changes: []QuotaChange{{
			Entity: quota.Entity{User: side.Draw(t, "user"), Client: side.Draw(t, "client")},
			Set:    rapid.MapOfN(limits, rapid.Float64Range(-1, 1), 0, 2).Draw(t, "set"), Remove: rapid.SliceOfN(limits, 0, 2).Draw(t, "remove"),
		}}}
	default:
		return rapid.SampledFrom([]Command{FoundCluster{ClusterID: "c", Name: "n", Founder: 1}, SetFeatureLevel{Level: 1}, FoundCluster{ClusterID: "other", Name: "n"}}).Draw(t, "other")
	}
}

// A table that is checkpointed and restored at any moments, fed with commands from the log by a release that has not one rule in common with
// this one, is the same as one that never was; both keep what the table promises.
func TestTableProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, two := NewTable(), NewTable()
		follower := (*View)(nil) // of node 1, which looks at the table now and then
		held := map[id.Replica]Placement{}
		used := map[id.Replica]string{}
		apply := func(c Command) {
			key, value, err := Encode(c, FirstLevel)
			if err != nil {
				t.Fatal(err)
			}
			decoded, err := Decode(key, value)
			if err != nil {
				t.Fatal(err)
			}
			index := one.View().Index() + id.Index(rapid.IntRange(0, 2).Draw(t, "step"))
			r1, err1 := one.Apply(index, c)
			rules := configKeys
			configKeys = nil
			r2, err2 := two.Apply(index, decoded)
			configKeys = rules
			if fmt.Sprint(err1) != fmt.Sprint(err2) {
				t.Fatalf("%T: %v here, %v there", c, err1, err2)
			}
			if _, isTopic := r1.(*Topic); !isTopic && !reflect.DeepEqual(r1, r2) {
				t.Fatalf("%T: %v here, %v there", c, r1, r2)
			}
		}
		apply(FoundCluster{ClusterID: "c", Name: "n", Founder: 1})
		for range rapid.IntRange(0, 40).Draw(t, "commands") {
			apply(drawCommand(t, one.View()))
			snapshot := one.Snapshot(nil)
			if !bytes.Equal(snapshot, two.Snapshot(nil)) {
				t.Fatalf("tables differ:\n%s\n%s", snapshot, two.Snapshot(nil))
			}
			if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
				two = NewTable()
				if err := two.Restore(snapshot); err != nil {
					t.Fatal(err)
				}
			}
			checkView(t, two.View(), used)
			if rapid.IntRange(0, 2).Draw(t, "look") == 0 {
				follow(t, held, one.View(), follower)
				follower = one.View()
			}
		}
	})
}

// checkView checks the promises of a view: ids are unique for ever, and lookups find what is there.
func checkView(t *rapid.T, v *View, used map[id.Replica]string) {
	claim := func(r id.Replica, by string) {
		if was, ok := used[r]; ok && was != by || r >= v.nextReplica {
			t.Fatalf("replica %d of %s: was %q, next is %d", r, by, was, v.nextReplica)
		}
		used[r] = by
	}
	for _, n := range v.Nodes() {
		if v.Node(n.ID) != n {
			t.Fatalf("node %d is not found", n.ID)
		}
		claim(n.MetadataReplica, fmt.Sprintf("store %s", n.StoreID))
	}
	for _, topic := range v.Topics() {
		if v.Topic(topic.Name) != topic || v.TopicByID(topic.ID) != topic {
			t.Fatalf("topic %+v", topic)
		}
		for i := range topic.Partitions {
			p := &topic.Partitions[i]
			if _, found := v.Partition(p.Group); found != p || p.ID != id.Partition(i) || len(p.Members) != topic.ReplicationFactor {
				t.Fatalf("partition %+v of %s", p, topic.Name)
			}
			for _, m := range p.Members {
				claim(m.Replica, fmt.Sprintf("%s-%d of %s", topic.Name, i, topic.ID))
				if v.Node(m.Node) == nil || v.Fate(p.Group, m.Replica) != FateLive {
					t.Fatalf("%+v of %+v", m, p)
				}
			}
		}
	}
}

// follow keeps what node 1 holds by changes alone and compares it with what it should hold.
func follow(t *rapid.T, held map[id.Replica]Placement, now, before *View) {
	c := now.ChangesOn(1, before)
	for _, p := range c.Close {
		if _, ok := held[p.Replica]; !ok || now.Fate(p.Group, p.Replica) != FateDeleted {
			t.Fatalf("closes %+v", p)
		}
		delete(held, p.Replica)
	}
	for _, p := range c.Open {
		if _, ok := held[p.Replica]; ok {
			t.Fatalf("opens %+v twice", p)
		}
		held[p.Replica] = p
	}
	for _, p := range c.Change {
		if old, ok := held[p.Replica]; !ok || reflect.DeepEqual(old, p) {
			t.Fatalf("changes %+v from %+v", p, old)
		}
		held[p.Replica] = p
	}
	want := now.ReplicasOn(1)
	if len(want) != len(held) {
		t.Fatalf("holds %d replicas, should hold %d", len(held), len(want))
	}
	for _, p := range want {
		if !reflect.DeepEqual(held[p.Replica], p) {
			t.Fatalf("holds %+v, should hold %+v", held[p.Replica], p)
		}
	}
	if !now.ChangesOn(1, now).Empty() {
		t.Fatal("changes without a change")
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	tab := clusterOf(t, 3)
	mustCreate(t, tab, "a", 3, 3)
	good := tab.Snapshot(nil)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x10
		if err := NewTable().Restore(bad); err == nil {
			t.Fatalf("byte %d flipped: not noticed", i)
		}
		if err := NewTable().Restore(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes: not noticed", i)
		}
	}
	if got := string(tab.Snapshot([]byte("prefix"))); got != "prefix"+string(good) {
		t.Error("Snapshot does not append")
	}
}

func FuzzRestore(f *testing.F) {
	tab := clusterOf(f, 3)
	mustCreate(f, tab, "a", 3, 3)
	f.Add(tab.Snapshot(nil)[snapshotHeader:])
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		tab := NewTable()
		if tab.Restore(sealed(FirstLevel, string(body))) != nil {
			return
		}
		v := tab.View()
		v.ReplicasOn(1)
		for _, topic := range v.Topics() {
			v.Partition(topic.Partitions[0].Group)
		}
		if err := NewTable().Restore(tab.Snapshot(nil)); err != nil {
			t.Fatalf("restored once, not twice: %v", err)
		}
	})
}
