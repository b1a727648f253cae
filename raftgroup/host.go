package raftgroup

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// CampaignHint says whether a replica should wait for its election timer.
type CampaignHint uint8

// Hints.
const (
	// CampaignByTimer leaves elections to Raft's timers.
	CampaignByTimer CampaignHint = iota
	// CampaignPreferred has the replica campaign at once, and again every two ticks until there is a leader: a new group is
	// led in a fraction of a second, though other members may not be open yet.
	CampaignPreferred
)

// Member says where a replica lives.
type Member struct {
	Replica id.Replica
	Node    id.Node
}

// Spec describes a replica to be opened.
type Spec struct {
	Group   id.Group
	Replica id.Replica
	// Members says where the other members live. Voters and learners are what the log's State.ConfState says; when that is
	// empty all Members are voters.
	Members []Member
	Log     Log
	Machine Machine
	// MinInSync is min.insync.replicas; 0 is 1.
	MinInSync int
	Campaign  CampaignHint
}

// Host runs the replicas of one node.
type Host struct{}

// New starts a host without replicas.
func New(o Options) (*Host, error) { return nil, nil }

// Close stops all replicas without ceremony and waits for the workers. The store is closed after it.
func (h *Host) Close() error { return nil }

// Open starts a replica: what its log has above State.Applied is given to Machine.Append before Open returns, and what of it
// is committed is applied soon after. It may read the disk. The log and the machine belong to the group until CloseGroup
// returns.
func (h *Host) Open(s Spec) (*Group, error) { return nil, nil }

// CloseGroup stops a replica and waits until the store has completed what was submitted for it, so that its log can be
// deleted. Whatever waits ends with ErrClosed.
func (h *Host) CloseGroup(ctx context.Context, g *Group) error { return nil }

// Group returns the open replica of a group, or nil.
func (h *Host) Group(g id.Group) *Group { return nil }

// Step takes a message from another node. It owns m and everything in it from then on. What is no valid message for an
// open replica is dropped and counted.
func (h *Host) Step(from id.Node, g id.Group, m *raftpb.Message) {}

// NodeDown tells that a node cannot be reached: groups that it led, or that have no leader, elect a new one without waiting
// for their timers. A false alarm does no harm.
func (h *Host) NodeDown(n id.Node) {}

// NodeUp takes NodeDown back.
func (h *Host) NodeUp(n id.Node) {}

// Cut asks the replica's worker to take a cut of its log soon.
func (h *Host) Cut(g id.Group, r id.Replica) {}

// Metrics returns the counters since New.
func (h *Host) Metrics() Metrics { return Metrics{} }
