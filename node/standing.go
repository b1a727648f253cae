package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// groupFailed is the host's OnGroupFailed. A refusal is durable by now.
func (n *Node) groupFailed(g *raftgroup.Group, err error) {
	n.leaders.Gone(g.ID())
	var failed *raftgroup.FailedError
	if errors.As(err, &failed) && failed.Refused {
		n.replicas.NoteRefused(wal.Refusal{Group: g.ID(), Replica: g.Replica(), Name: nameOf(g), Reason: failed.Cause.Error()})
	} else {
		n.logger.Error("a replica stopped: it takes part again when this node is started again", "partition", nameOf(g), "reason", err)
	}
	if g.ID() == id.MetadataGroup {
		n.fail(err) // with the metadata of that moment for ever, the node would be there and useless
	}
}

func nameOf(g *raftgroup.Group) string {
	if l, ok := g.Log().(*wal.Log); ok {
		return l.Name()
	}
	return fmt.Sprintf("group %d", g.ID())
}

// trouble is what somebody has to do something about, in words; empty: nothing. Refused replicas are counted elsewhere.
func (n *Node) trouble() string {
	var halted, stopped int
	var why error // of one that is halted: mostly it is the same for all
	groups := []*raftgroup.Group{n.controller.Group()}
	for _, p := range n.replicas.All() {
		groups = append(groups, p.Group())
	}
	for _, g := range groups {
		switch s, cause := g.Standing(); s {
		case raftgroup.Halted:
			halted++
			why = cause
		case raftgroup.Stopped:
			stopped++
		}
	}
	var list []string
	for _, err := range []error{n.conditionError(), n.failedDirectories(), n.unreachedError()} {
		if err != nil {
			list = append(list, err.Error())
		}
	}
	if halted > 0 {
		list = append(list, fmt.Sprintf("%d of its replicas halted: they follow and vote, and apply nothing further: %v", halted, why))
	}
	if stopped > 0 {
		list = append(list, fmt.Sprintf("%d of its replicas stopped: its log says why; start it again", stopped))
	}
	return strings.Join(list, "; ")
}

// readiness returns nil when the node holds what the metadata wants it to hold, its disk takes records, and all that it holds has a leader
// that it hears of.
func (n *Node) readiness() error {
	if s := n.State(); s != Ready && n.failure.Load() == nil {
		return fmt.Errorf("node %d is %v", n.options.NodeID, s)
	}
	if err := n.conditionError(); err != nil {
		return err
	}
	if err := n.failedDirectories(); err != nil {
		return err
	}
	return n.leaderError()
}
