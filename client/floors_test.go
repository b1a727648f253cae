package client_test

import (
	"testing"

	check "github.com/quorumlog/quorumlog/cmd/floors"
)

// layers are the package's files from the bottom up: see the package documentation. A file knows those that stand before it, in its own
// floor too.
var layers = [][]string{
	// Words: what callers say and hear.
	{"types.go", "acl.go", "errors.go", "options.go", "tls.go", "denial.go", "admin_types.go", "records.go"},
	// Parts: they know no client.
	{"wait.go", "pace.go", "reach.go", "sources.go", "metadata.go", "admin_wire.go", "partitioner.go", "budget.go", "callbacks.go", "pending.go",
		"damaged.go", "buffers.go"},
	// What is known of the cluster.
	{"cache.go", "refresh.go"},
	// The client, and its calls.
	{"client.go", "hung.go", "admin.go", "admin_security.go", "upgrade.go", "offsets.go", "deletion.go"},
	// The producer.
	{"producer.go", "queue.go", "refused.go", "recreated.go", "obstacle.go", "deliver.go", "nobody.go", "stream.go", "housekeeper.go", "produce.go", "sync.go"},
	// The consumer.
	{"consumer.go", "fetchstream.go", "cursor.go", "credit.go", "subscription.go", "reset.go", "fetch.go", "keeper.go", "unreached.go", "poll.go"},
}

// upwards are the references that run against the floors nevertheless, and why.
var upwards = map[string]string{
	"client.go -> admin.go":         "a client has its calls",
	"producer.go -> queue.go":       "a producer has queues",
	"producer.go -> stream.go":      "a producer has streams",
	"producer.go -> housekeeper.go": "a producer has a housekeeper",
	"queue.go -> stream.go":         "a queue knows who sends for it, and says that there is work",
	"queue.go -> housekeeper.go":    "a queue without a stream asks for one",
	"queue.go -> refused.go":        "a queue keeps what is too late, and takes such batches apart before they are sent",
	"consumer.go -> cursor.go":      "a consumer has cursors",
	"consumer.go -> fetchstream.go": "a consumer has streams",
	"fetchstream.go -> cursor.go":   "a stream knows whom to give what comes",
}

// TestFloors: no file knows one above it.
func TestFloors(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checks the package")
	}
	t.Parallel()
	check.Check(t, layers, upwards)
}
