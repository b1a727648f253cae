package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

// TestSecurityCommands compares a session of a super user with a real node with testdata/security.golden.
func TestSecurityCommands(t *testing.T) {
	c := nodetest.Start(t, 1, nodetest.WithTLS(), nodetest.WithOptions(func(o *node.Options) {
		o.Authorization = node.AuthorizationOptions{Authorizer: node.ACLAuthorizer, SuperUsers: []acl.Principal{{Type: acl.UserType, Name: "CN=test"}}}
	}))
	certificate := []string{"--tls-ca", c.Client.CA, "--tls-cert", c.Client.Certificate, "--tls-key", c.Client.Key}
	t.Setenv(serversVariable, strings.Join(c.Servers(), ","))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2\r\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, line := range []struct{ in, words string }{
		{"", "acl list"},
		{"", "acl add --allow-principal User:alice --operation Read --operation DescribeConfigs --topic orders --group g"},
		{"", "acl add --allow-principal User:alice --operation Read --operation describe-configs --topic orders --topic ord --resource-pattern-type prefixed --allow-host 10.0.0.1"},
		{"", "acl add --allow-principal User:bob --producer --idempotent --topic orders --transactional-id t"},
		{"", "acl add --allow-principal User:carol --consumer --topic orders --group *"},
		{"", "acl add --deny-principal User:* --deny-host 10.0.0.2 --cluster -o json"},
		{"", "acl add --allow-principal bob --topic orders"},
		{"", "acl add --allow-principal User:bob"},
		{"", "acl add --topic orders"},
		{"", "acl add --allow-principal User:bob --topic orders --operation ClusterAction"},
		{"", "acl add --allow-principal User:bob --topic orders --operation Fly"},
		{"", "acl add --allow-principal User:bob --topic orders --allow-host example.org"},
		{"", "acl add --allow-principal User:bob --topic orders --resource-pattern-type match"},
		{"", "acl add --allow-principal User:bob --topic orders --consumer"},
		{"", "acl list"},
		{"", "acl list --principal User:carol --principal User:*"},
		{"", "acl list --topic ordinary --resource-pattern-type match -o json"},
		{"", "acl remove --topic orders"},
		{"", "acl remove --allow-principal User:alice --operation Read --topic orders"},
		{"", "acl remove --topic orders --resource-pattern-type any --force"},
		{"", "acl remove --force -o json"},
		{"", "acl list"},
		{"secret\n", "user add alice"},
		{"", "user add alice --mechanism scram-sha-256 --iterations 8192 --password-file " + secret},
		{"\n", "user add bob"},
		{"secret", "user add bob --iterations 4000"},
		{"secret", "user add bob --mechanism plain"},
		{"secret", "user add bob -o json"},
		{"", "user list"},
		{"", "user list bob -o json"},
		{"", "user list nobody"},
		{"", "user remove bob"},
		{"", "user remove bob"},
		{"", "quota set producer_byte_rate=1048576 request_percentage=12.5 --user alice"},
		{"", "quota set consumer_byte_rate=1000000000000 --default-user --client-id app"},
		{"", "quota set consumer_byte_rate=1.5 --user alice"},
		{"", "quota set speed=1 --user alice"},
		{"", "quota set producer_byte_rate --user alice"},
		{"", "quota set producer_byte_rate=1"},
		{"", "quota set producer_byte_rate=1 --user alice --default-user"},
		{"", "quota set producer_byte_rate=1 --user User:CN=alice"},
		{"", "quota list"},
		{"", "quota list -o json"},
		{"", "quota remove producer_byte_rate request_percentage --user alice"},
		{"", "quota list"},
	} {
		var out, errs bytes.Buffer
		code := run(context.Background(), slices.Concat(strings.Fields(line.words), certificate), strings.NewReader(line.in), &out, &errs)
		fmt.Fprintf(&got, "$ quorumlog %s\n%s%s", strings.ReplaceAll(line.words, secret, "FILE"), &out, &errs)
		if code != 0 {
			fmt.Fprintf(&got, "[exit %d]\n", code)
		}
	}
	compare(t, "security", got.String())
	if strings.Contains(got.String()+c.Log(), "hunter2") {
		t.Error("a password is in the output, or in the log")
	}
}
