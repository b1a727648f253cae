package authorizer

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func caller(name string) *broker.Caller {
	return &broker.Caller{Principal: broker.Principal{Type: broker.UserType, Name: name}, Host: netip.MustParseAddr("10.0.0.1")}
}

func binding(t acl.ResourceType, name, user string, op acl.Operation, p acl.Permission) acl.Binding {
	return acl.Binding{
		Pattern: acl.Pattern{Type: t, Name: name, Kind: acl.Literal},
		Entry:   acl.Entry{Principal: acl.Principal{Type: acl.UserType, Name: user}, Host: acl.Wildcard, Operation: op, Permission: p},
	}
}

func newAuthorizer(log *bytes.Buffer, missing Missing, rules ...acl.Binding) *Authorizer {
	set := acl.SetOf(rules...)
	return New(Options{
		SuperUsers: []acl.Principal{{Type: acl.UserType, Name: "admin"}}, Missing: missing,
		Rules: func() *acl.Set { return set }, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
}

// TestPeers: nodes do what nodes do among themselves, and nothing beside it without a permission. Nobody else does it.
func TestPeers(t *testing.T) {
	a := newAuthorizer(new(bytes.Buffer), DenyMissing)
	node := caller("CN=node-1")
	node.Peer = true
	if !a.Allowed(node, acl.ClusterAction, acl.TheCluster) || a.Allowed(caller("alice"), acl.ClusterAction, acl.TheCluster) {
		t.Error("CLUSTER_ACTION is not for nodes alone")
	}
	for call, needs := range broker.Needs {
		if err := broker.Require(a, node, call, "t"); err == nil {
			t.Errorf("%s by a node, for itself, of %v", call, needs)
		}
		if err := broker.Require(a, caller("alice"), call, "t"); err == nil {
			t.Errorf("%s by a stranger is let through", call)
		}
		if err := broker.Require(a, caller("admin"), call, "t"); err != nil {
			t.Errorf("%s by a super user: %v", call, err)
		}
	}
	if err := broker.Require(a, caller("admin"), "NewCall", "t"); kerr.CodeOf(err) != kerr.ClusterAuthorizationFailed {
		t.Errorf("a call of which nobody has said what it needs: %v", err)
	}
}

// TestSuperUsers: no DENY holds for them, and a principal of another type with the name is another one.
func TestSuperUsers(t *testing.T) {
	a := newAuthorizer(new(bytes.Buffer), DenyMissing, binding(acl.Topic, "*", "*", acl.All, acl.Deny))
	topic := acl.Resource{Type: acl.Topic, Name: "t"}
	if !a.Allowed(caller("admin"), acl.Read, topic) || !a.AllowedAny(caller("admin"), acl.Write, acl.Topic) {
		t.Error("a super user is denied")
	}
	group := caller("admin")
	group.Principal.Type = "Group"
	if a.Allowed(group, acl.Read, topic) {
		t.Error("Group:admin passes for User:admin")
	}
	for text, want := range map[string]string{
		"":                             "[]",
		"User:admin":                   "[User:admin]",
		" User:admin ; User:CN=a,O=b;": "[User:admin User:CN=a,O=b]",
		"admin":                        "no colon",
		"User:":                        "is not a principal",
		"User:*":                       "is everybody",
		"User:a,User:b":                "separated by semicolons",
	} {
		users, err := ParseSuperUsers(text)
		if got := fmt.Sprint(users); err != nil && !strings.Contains(err.Error(), want) || err == nil && got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestMissing: allow.everyone.if.no.acl.found is about resources for which there is no ACL for anybody.
func TestMissing(t *testing.T) {
	for _, missing := range []Missing{DenyMissing, AllowMissing} {
		a := newAuthorizer(new(bytes.Buffer), missing, binding(acl.Topic, "t", "alice", acl.Read, acl.Allow))
		for _, tc := range []struct {
			user, topic string
			want        bool
		}{{"alice", "t", true}, {"bob", "t", false}, {"bob", "u", missing == AllowMissing}} {
			if got := a.Allowed(caller(tc.user), acl.Read, acl.Resource{Type: acl.Topic, Name: tc.topic}); got != tc.want {
				t.Errorf("%d: %+v: %v", missing, tc, got)
			}
		}
		if got := a.AllowedAny(caller("bob"), acl.Write, acl.Topic); got != (missing == AllowMissing) {
			t.Errorf("%d: any: %v", missing, got)
		}
	}
}

// TestDenialsAreBounded: a stranger that is denied all the time does not fill the disk with it, whatever it calls itself.
func TestDenialsAreBounded(t *testing.T) {
	log := new(bytes.Buffer)
	a := newAuthorizer(log, DenyMissing)
	c := caller(strings.Repeat("x", 5000))
	c.ClientID = strings.Repeat("y", 5000)
	for range 10_000 {
		if err := broker.Require(a, c, "Produce", strings.Repeat("t", 5000)); kerr.CodeOf(err) != kerr.TopicAuthorizationFailed {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n < deniedBurst || n > 10*deniedBurst || log.Len() > n*2000 {
		t.Errorf("%d lines, %d bytes", n, log.Len())
	}
	if line, _, _ := strings.Cut(log.String(), "\n"); !strings.Contains(line, "operation=WRITE resource=TOPIC") {
		t.Error(line)
	}
}

// TestPermits: an answer is remembered as long as the rules are the same, and no longer, and not for ever more names.
func TestPermits(t *testing.T) {
	set := acl.SetOf(binding(acl.Topic, "t", "alice", acl.Write, acl.Allow))
	asked := 0
	a := New(Options{Rules: func() *acl.Set { asked++; return set }, Logger: slog.New(slog.DiscardHandler)})
	p := broker.NewPermits(a, caller("alice"))
	if p.Topic("Produce", "t") != nil || p.Topic("Produce", "u") == nil || p.Topic("Fetch", "t") == nil {
		t.Error("wrong answers")
	}
	before := asked
	if p.Topic("Produce", "t") != nil || p.Topic("Produce", "u") == nil || asked != before+2 {
		t.Errorf("asked %d times for what is known", asked-before)
	}
	set, _ = set.Without(binding(acl.Topic, "t", "alice", acl.Write, acl.Allow))
	set = set.With(binding(acl.Topic, "u", "alice", acl.Write, acl.Allow))
	if p.Topic("Produce", "t") == nil || p.Topic("Produce", "u") != nil {
		t.Error("answers from before the rules changed")
	}
	for i := range 5000 {
		_ = p.Topic("Produce", fmt.Sprint(i))
	}
	if n := testing.AllocsPerRun(100, func() { _ = p.Topic("Produce", "u") }); n > 0 {
		t.Errorf("%v allocations for a batch", n)
	}
}

func BenchmarkPermits(b *testing.B) {
	set := acl.SetOf(binding(acl.Topic, "orders", "alice", acl.Write, acl.Allow))
	p := broker.NewPermits(New(Options{Rules: func() *acl.Set { return set }, Logger: slog.New(slog.DiscardHandler)}), caller("alice"))
	for b.Loop() {
		if p.Topic("Produce", "orders") != nil {
			b.Fatal("denied")
		}
	}
}

// TestJustStarted: a node whose metadata is of before its start goes by the permissions that it has, and denies nothing for good.
func TestJustStarted(t *testing.T) {
	for _, missing := range []Missing{DenyMissing, AllowMissing} {
		current, log := false, new(bytes.Buffer)
		set := acl.SetOf(binding(acl.Topic, "t", "alice", acl.Write, acl.Allow))
		a := New(Options{
			SuperUsers: []acl.Principal{{Type: acl.UserType, Name: "admin"}}, Missing: missing, Rules: func() *acl.Set { return set },
			Current: func() bool { return current }, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		alice := broker.NewPermits(a, caller("alice"))
		if err := alice.Topic("Produce", "t"); err != nil {
			t.Errorf("what is known to be allowed: %v", err)
		}
		if err := broker.NewPermits(a, caller("admin")).Topic("Produce", "u"); err != nil {
			t.Errorf("a super user: %v", err)
		}
		for range 2 {
			if err := alice.Topic("Produce", "u"); kerr.CodeOf(err) != kerr.CoordinatorLoadInProgress || !err.Code.Retriable() {
				t.Errorf("%d: what may have been allowed: %v", missing, err)
			}
		}
		if err := broker.Require(a, caller("bob"), "DeleteTopic", "u"); kerr.CodeOf(err) != kerr.CoordinatorLoadInProgress {
			t.Errorf("%d: a call: %v", missing, err)
		}
		if log.Len() > 0 {
			t.Errorf("denials that are none: %s", log)
		}
		current = true // and the rules are the same
		want := kerr.TopicAuthorizationFailed
		if missing == AllowMissing {
			want = kerr.None
		}
		if err := alice.Topic("Produce", "u"); kerr.CodeOf(errorOf(err)) != want {
			t.Errorf("%d: once it is known: %v", missing, err)
		}
		if err := broker.NewPermits(a, caller("bob")).Topic("Produce", "t"); kerr.CodeOf(err) != kerr.TopicAuthorizationFailed {
			t.Errorf("%d: what is known to be denied: %v", missing, err)
		}
	}
}

func errorOf(e *kerr.Error) error {
	if e == nil {
		return nil
	}
	return e
}
