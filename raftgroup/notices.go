package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Raft tells each follower of each new commit index with a MsgApp of its own, which the follower answers. At a low rate these are
// half of all messages, and half of the turns at both ends, for something that the next entries say as well. So a MsgApp without
// entries waits a moment: the next one with entries takes its place, or a later one, which knows more; and when none comes it is
// sent. Raft allows any message to be late or lost, and a follower serves nothing that depends on a commit index of this very moment.
//
// Probes and what is sent to a follower with a full window look the same, and wait as well: a few of these go out in a minute.
const noticeDelay = 20 * time.Millisecond

// postpone has a MsgApp without entries wait.
func (g *group) postpone(m *raftpb.Message) {
	for i, n := range g.notices {
		if n.GetTo() == m.GetTo() {
			g.notices[i] = m
			return
		}
	}
	if len(g.notices) == 0 {
		g.turn.noticing = append(g.turn.noticing, g)
	}
	g.notices = append(g.notices, m)
	if g.turn.noticesDue.IsZero() {
		g.turn.noticesDue = g.turn.now.Add(noticeDelay)
	}
}

// overtake drops what waits for the follower that m, a MsgApp with entries, goes to.
func (g *group) overtake(m *raftpb.Message) {
	for i, n := range g.notices {
		if n.GetTo() == m.GetTo() {
			last := len(g.notices) - 1
			g.notices[i], g.notices[last] = g.notices[last], nil
			g.notices = g.notices[:last]
			return
		}
	}
}
