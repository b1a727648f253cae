package node

import (
	"context"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

// wordInterval is how often a node that leads the metadata looks when a majority answered it last. Answers come with each heartbeat.
const wordInterval = 250 * time.Millisecond

// noteWord is called with each message of the metadata group.
func (n *Node) noteWord(from id.Node, m *raftpb.Message) {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
	default:
		return
	}
	// A leader of an earlier term is no word: what it sends is refused. The first message of a new one is not counted either.
	if c := n.running.Load(); c != nil && c.Leader() == from {
		n.word.heard(time.Now())
	}
}

// listenToMajority is the goroutine that notes, while this node leads the metadata, when a majority answered last.
func (n *Node) listenToMajority(ctx context.Context) {
	tick := time.NewTicker(wordInterval)
	defer tick.Stop()
	for {
		if group := n.controller.Group(); group.IsLeader() {
			if status, err := group.Status(ctx); err == nil && status.Role == raftgroup.Leader {
				if silent, ok := majoritySilence(status.Members); ok {
					n.word.heard(time.Now().Add(-silent))
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
