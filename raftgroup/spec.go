package raftgroup

import "github.com/quorumlog/quorumlog/wal/id"

// CampaignHint says when a replica that is opened campaigns, if it does not hear of a leader.
type CampaignHint uint8

// Hints.
const (
	// CampaignInTurn waits until a leader would have been heard, and for those who come before it. In a group that is new it waits longer.
	CampaignInTurn CampaignHint = iota
	// CampaignPreferred has the replica campaign at once, and again until there is a leader: a new group is led in a fraction of a second,
	// though other members may not be open yet.
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
	// Members says where the other members live, in the same order everywhere: when a leader's node fails, the first that is
	// left campaigns first. Voters and learners are what the log's State.ConfState says; when that is empty all Members are
	// voters.
	Members []Member
	Log     Log
	Machine Machine
	// MinInSync is min.insync.replicas; 0 is 1.
	MinInSync int
	Campaign  CampaignHint
	// Vital says that the group goes on on a disk that is full, so that space can be made: it has little to store.
	Vital bool
}
