package raftgroup

import (
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

// requestsSeeLeader ends what waits for this replica to lead, or for another to.
func (g *group) requestsSeeLeader(l LeaderChange) {
	if t := g.transfer; t != nil && l.Term > t.term && l.Leader != id.NoReplica {
		g.transfer = nil
		if l.Leader == t.to {
			t.result <- nil
		} else {
			t.result <- fmt.Errorf("%w: replica %d leads", ErrTransferFailed, l.Leader)
		}
	}
	if l.Role != Leader {
		g.endChange(&NotLeaderError{Leader: l.Node})
	}
	for key, r := range g.reads {
		delete(g.reads, key)
		r.result <- &NotLeaderError{Leader: l.Node}
	}
}

// endRequests ends all requests.
func (g *group) endRequests(err error) {
	if g.transfer != nil {
		g.transfer.result <- err
		g.transfer = nil
	}
	g.endChange(err)
	for key, r := range g.reads {
		delete(g.reads, key)
		r.result <- err
	}
}
