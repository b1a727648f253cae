package raftgroup

import (
	"testing"

	check "github.com/quorumlog/quorumlog/cmd/floors"
)

// floors are the package's files from the bottom up: see the package documentation. A file knows those that stand before it, in its own
// floor too.
var floors = [][]string{
	// Words: what callers say and hear.
	{"role.go", "standing.go", "errors.go", "status.go", "machine.go", "proposal.go", "store.go", "spec.go", "options.go"},
	// Parts: they know no group.
	{"rules.go", "metrics.go", "raftlog.go", "entries.go", "members.go", "snapshot.go", "message.go", "loans.go", "accusation.go", "condition.go",
		"windows.go", "proposer.go", "awaited.go", "turns.go"},
	// A group, and what it is given.
	{"group.go", "roster.go", "raft.go", "send.go", "notices.go", "reads.go", "storage.go"},
	// What it does.
	{"insync.go", "answers.go", "offer.go", "logstart.go", "door.go", "readindex.go", "change.go", "transfer.go", "handover.go", "requests.go", "elect.go",
		"handle.go", "propose.go"},
	// Its life.
	{"append.go", "halt.go", "take.go", "ready.go", "receive.go", "ending.go", "boot.go", "life.go"},
	// The worker that drives groups.
	{"inbox.go", "worker.go", "drive.go"},
	// The host.
	{"calls.go", "round.go", "refusing.go", "host.go", "disks.go", "visit.go"},
}

// upwards are the references that run against the floors nevertheless, and why.
var upwards = map[string]string{
	"options.go -> calls.go": "OnGroupFailed is told of a Group",
}

// TestFloors: no file knows one above it.
func TestFloors(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checks the package")
	}
	t.Parallel()
	check.Check(t, floors, upwards)
}
