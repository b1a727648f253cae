package raftgroup

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Group is one replica of a Raft group on this host. Its methods may be called by anyone.
type Group struct{}

// ID returns the group's id.
func (g *Group) ID() id.Group { return 0 }

// Replica returns the id of this replica.
func (g *Group) Replica() id.Replica { return 0 }

// Log returns the replica's log.
func (g *Group) Log() Log { return nil }

// Propose takes a batch into the group's log, or says why not. See Proposal.
func (g *Group) Propose(p *Proposal) {}

// Leader returns the leader as this replica knows it; NoReplica and NoNode while none is known.
func (g *Group) Leader() (id.Replica, id.Node, id.Term) { return 0, 0, 0 }

// IsLeader tells whether this replica leads. By the time it returns another may lead in a later term.
func (g *Group) IsLeader() bool { return false }

// HighWatermark returns the offset after the last record known to be committed.
func (g *Group) HighWatermark() id.Offset { return 0 }

// Commit returns the index of the last entry known to be committed.
func (g *Group) Commit() id.Index { return 0 }

// Applied returns the index of the last entry applied.
func (g *Group) Applied() id.Index { return 0 }

// Status returns the replica's view of the group.
func (g *Group) Status(ctx context.Context) (Status, error) { return Status{}, nil }

// SetMinInSync changes min.insync.replicas.
func (g *Group) SetMinInSync(n int) {}

// Campaign starts an election, if this replica is a voter and does not lead.
func (g *Group) Campaign() {}

// TransferLeader hands leadership over to a voter, or to the best one when to is NoReplica, and waits until it leads. Proposals
// wait meanwhile.
func (g *Group) TransferLeader(ctx context.Context, to id.Replica) error { return nil }

// ReadIndex returns an index such that a replica that has applied it has applied everything that was committed when ReadIndex
// was called. It asks the leader, which asks a majority.
func (g *Group) ReadIndex(ctx context.Context) (id.Index, error) { return 0, nil }

// ChangeMembers changes the membership and waits until the change is applied here, and a joint configuration that it went
// through is left again. Where new members live is said in the change's Context: see ConfChange.
func (g *Group) ChangeMembers(ctx context.Context, cc *raftpb.ConfChangeV2) error { return nil }

// AddMembers says where members live, in addition to what is known.
func (g *Group) AddMembers(m ...Member) {}
