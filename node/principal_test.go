package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
)

// person is a client with a certificate.
type person struct {
	*client.Client
	t   *testing.T
	ctx context.Context
}

func (p person) produce(topic string) error {
	producer, err := p.NewProducer(client.ProducerOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer producer.Close(p.ctx)
	_, err = producer.ProduceSync(p.ctx, client.Record{Topic: topic, Value: []byte("v")})
	return err
}

func (p person) consume(topic string) error {
	consumer, err := p.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer consumer.Close()
	if err := consumer.Assign(client.TopicPartition{Topic: topic}, client.Beginning); err != nil {
		return err
	}
	_, err = consumer.Poll(p.ctx)
	return err
}

// TestPrincipalsOfCertificates: who a client is, is what its certificate says, and permissions count for that, whichever node is asked: one
// that passes a call on passes on for whom. Super users are asked for none.
func TestPrincipalsOfCertificates(t *testing.T) {
	c := nodetest.Start(t, 3, nodetest.WithTLS(), nodetest.WithOptions(func(o *node.Options) {
		o.Authorization = node.AuthorizationOptions{Authorizer: node.ACLAuthorizer, SuperUsers: []client.Principal{client.UserPrincipal("CN=admin")}}
	}))
	connect := func(name string, servers ...string) person {
		t.Helper()
		cl, err := client.New(client.Options{Servers: servers, TLSFiles: client.TLSFiles(c.CA.Client(name))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cl.Close() })
		return person{cl, t, c.Context()}
	}
	admin, writer, reader := connect("admin", c.Servers()...), connect("writer", c.Servers()...), connect("reader", c.Servers()...)
	for _, name := range []string{"orders", "orders-old", "payments"} {
		if err := admin.Admin().CreateTopic(admin.ctx, client.TopicSpec{Name: name, Partitions: 1, ReplicationFactor: 3}); err != nil {
			t.Fatal(err)
		}
	}
	allow := func(who, topic string, kind client.PatternType, op client.Operation) client.ACL {
		return client.ACL{
			Pattern: client.ACLPattern{Type: client.TopicResource, Name: topic, Kind: kind},
			Entry:   client.ACLEntry{Principal: client.UserPrincipal(who), Host: "*", Operation: op, Permission: client.Allow},
		}
	}
	// Each node is asked to change something, so that at least two pass it on.
	for i, b := range []client.ACL{
		allow("CN=writer", "orders", client.PrefixedPattern, client.WriteOperation), allow("CN=reader", "orders", client.LiteralPattern, client.ReadOperation),
		allow("reader", "payments", client.LiteralPattern, client.AllOperations),
	} {
		at := c.Nodes[i].RPCAddress()
		one := connect("admin", at)
		limited, cancel := context.WithTimeout(one.ctx, 20*time.Second)
		if err := one.Admin().CreateACLs(limited, b); err != nil {
			t.Errorf("the super user at node %d: %v", i+1, err)
		}
		cancel()
		if err := connect("writer", at).Admin().CreateACLs(one.ctx, b); !errors.Is(err, client.ErrNotAuthorized) || !strings.Contains(err.Error(), "User:CN=writer") {
			t.Errorf("somebody else at node %d: %v", i+1, err)
		}
	}
	nodetest.Eventually(t, "the permissions to be known at the leaders", func() bool {
		return writer.produce("orders") == nil && writer.produce("orders-old") == nil && reader.consume("orders") == nil
	})
	for name, test := range map[string]func() error{
		"a reader writes":                           func() error { return reader.produce("orders") },
		"a writer reads":                            func() error { return writer.consume("orders") },
		"a literal name is no prefix":               func() error { return reader.consume("orders-old") },
		"another topic":                             func() error { return writer.produce("payments") },
		"the name without the subject's attributes": func() error { return reader.consume("payments") },
	} {
		begin := time.Now()
		if err := test(); !errors.Is(err, client.ErrNotAuthorized) {
			t.Errorf("%s: %v", name, err)
		} else if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("%s: refused after %v", name, took)
		}
	}
	if err := admin.produce("payments"); err != nil {
		t.Errorf("the super user: %v", err)
	}
}
