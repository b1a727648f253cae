package node

import (
	"testing"

	check "github.com/quorumlog/quorumlog/cmd/floors"
)

// floors are the package's files from the bottom up. A file knows those that stand before it, in its own floor too.
var floors = [][]string{
	// Words and small things that know no node.
	{"limits.go", "limits_unix.go", "limits_other.go", "address.go", "transport.go", "authorization.go", "options.go", "identityfile.go", "fsync.go",
		"condemned.go", "word.go", "reached.go"},
	// What a node has, and whom it knows.
	{"state.go", "identity.go", "identitycopies.go", "directories.go", "ask.go", "names.go", "condition.go"},
	// A node among nodes: who is who, who is reached, who asks.
	{"incarnation.go", "peercalls.go", "reach.go"},
	// What it does by itself.
	{"leadership.go", "spare.go", "expiry.go", "retention.go", "majority.go"},
	// How it is, in words and numbers.
	{"standing.go", "metrics.go", "status.go"},
	// How it gets into a cluster.
	{"security.go", "kafka.go", "gossip.go", "lobby.go", "look.go", "found.go", "join.go"},
	// Opens, wires and closes.
	{"node.go", "format.go"},
}

// upwards are the references that run against the floors nevertheless, and why.
var upwards = map[string]string{
	"options.go -> security.go":       "the options of security stand beside what is done with them",
	"authorization.go -> security.go": "there are no permissions without certificates",
	"identityfile.go -> identity.go":  "the file is read into an identity, and an identity is stored in it",
	"state.go -> identity.go":         "a node has an identity",
	"state.go -> directories.go":      "a node has data directories",
	"directories.go -> node.go":       "which of them can be locked decides which of them the node starts with",
	"incarnation.go -> reach.go":      "a start is registered if it is reached, and who is reached depends on which start is the node",
	"found.go -> join.go":             "who finds that he need not found a cluster asks for a place in one",
}

// TestFloors: no file knows one above it.
func TestFloors(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checks the package")
	}
	t.Parallel()
	check.Check(t, floors, upwards)
}
