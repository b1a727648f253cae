package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/wal/id"
)

// transferRequest is a handing over of leadership that is under way.
type transferRequest struct {
	to     id.Replica
	any    bool // whoever can take it, of those who were not tried
	tried  []id.Replica
	watch  election.Transfer
	term   id.Term
	until  time.Time
	result chan error
}

// changeRequest is a membership change that is under way.
type changeRequest struct {
	cc       *raftpb.ConfChangeV2
	proposed bool
	index    id.Index
	term     id.Term
	result   chan error
}

// readRequest is a ReadIndex that waits for a majority.
type readRequest struct {
	context []byte
	index   id.Index
	result  chan error
}
