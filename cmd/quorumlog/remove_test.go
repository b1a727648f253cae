package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// TestNodeRemove removes a node as an operator does.
func TestNodeRemove(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	dir := t.TempDir()
	first := launch(t, founderArgs(t, dir, 1)...)
	server, gossip, _ := first.ports()
	args := nodeArgs(dir, 2, "--join", gossip)
	second := launch(t, args...)
	second.serves(1)
	remove := func(node string) (code int, said string) {
		var out, errs bytes.Buffer
		code = run(context.Background(), []string{"node", "remove", node, "--servers", server, "-o", "json"}, strings.NewReader(""), &out, &errs)
		return code, out.String() + errs.String()
	}
	for _, c := range []struct{ node, want string }{
		{"2", "node 2 is alive at "}, {"1", "node 1 is alive at "}, {"7", "node 7 is not registered"}, {"two", `"two" is no node id`}, {"-1", "-1"},
	} {
		if code, said := remove(c.node); code != 1 || !strings.Contains(said, c.want) {
			t.Errorf("node remove %s: exit code %d, %q", c.node, code, said)
		}
	}
	second.terminate()
	eventually(t, "the node to be removed", func() bool {
		code, said := remove("2")
		if code != 0 && !strings.Contains(said, "alive") {
			t.Fatalf("exit code %d, %q", code, said)
		}
		if code == 0 && !strings.Contains(said, `"removed": 2`) {
			t.Errorf("it says %q", said)
		}
		return code == 0
	})
	refused(t, args, "node 2", "removed", "unused node id")
}
