package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/raftgroup/insync"
	"github.com/quorumlog/quorumlog/wal/id"
)

// EncodeConfState returns the State.ConfState of a log that is created with these voters and learners.
func EncodeConfState(voters, learners []id.Replica) []byte {
	cs := &raftpb.ConfState{}
	for _, v := range voters {
		cs.Voters = append(cs.Voters, uint64(v))
	}
	for _, l := range learners {
		cs.Learners = append(cs.Learners, uint64(l))
	}
	return mustMarshal(cs)
}

// DecodeConfState returns the voters and learners of a State.ConfState; those of both halves while it is joint.
func DecodeConfState(b []byte) (voters, learners []id.Replica, err error) {
	cs := &raftpb.ConfState{}
	if err := proto.Unmarshal(b, cs); err != nil {
		return nil, nil, fmt.Errorf("raftgroup: decode configuration: %w", err)
	}
	for _, v := range votersOf(cs) {
		voters = append(voters, id.Replica(v))
	}
	for _, l := range cs.Learners {
		learners = append(learners, id.Replica(l))
	}
	return voters, learners, nil
}

// votersOf returns the voters of both halves, each once, sorted.
func votersOf(cs *raftpb.ConfState) []uint64 {
	all := slices.Concat(cs.Voters, cs.VotersOutgoing)
	slices.Sort(all)
	return slices.Compact(all)
}

// mustMarshal encodes one of raft's messages, which have no way to fail.
func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("raftgroup: marshal %T: %v", m, err))
	}
	return b
}

// Change is one step of a membership change.
type Change struct {
	Type    raftpb.ConfChangeType // raftpb.ConfChangeAddNode, ...AddLearnerNode, ...RemoveNode
	Replica id.Replica
	Node    id.Node // where it lives; not needed to remove
}

// ConfChange builds a membership change, with the nodes of new members in its Context. One change is done at once, several
// go through a joint configuration that is left by itself.
func ConfChange(changes ...Change) *raftpb.ConfChangeV2 {
	cc := &raftpb.ConfChangeV2{}
	for _, c := range changes {
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: c.Type.Enum(), NodeId: new(uint64(c.Replica))})
		if c.Type != raftpb.ConfChangeRemoveNode {
			cc.Context = appendMember(cc.Context, Member{Replica: c.Replica, Node: c.Node})
		}
	}
	return cc
}

// The Context of a membership change says where members live:
//
//	replica uvarint, node varint, again and again
func appendMember(b []byte, m Member) []byte {
	b = binary.AppendUvarint(b, uint64(m.Replica))
	return binary.AppendVarint(b, int64(m.Node))
}

var errMembers = errors.New("the context of a membership change does not decode")

func decodeMembers(b []byte) ([]Member, error) {
	var members []Member
	for len(b) > 0 {
		r, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errMembers
		}
		b = b[n:]
		node, n := binary.Varint(b)
		if n <= 0 {
			return nil, errMembers
		}
		b = b[n:]
		members = append(members, Member{Replica: id.Replica(r), Node: id.Node(node)})
	}
	return members, nil
}

// peers says where replicas live. It is replaced, never changed: the store's goroutine reads it to send responses.
type peers map[id.Replica]id.Node

// maxPeers bounds what strangers can make a group remember.
const maxPeers = 128

// with returns p and m.
func (p peers) with(members ...Member) peers {
	q := maps.Clone(p)
	if q == nil {
		q = peers{}
	}
	for _, m := range members {
		q[m.Replica] = m.Node
	}
	return q
}

// toldStart is the start of the log that a member was told last: see logstart.go.
type toldStart struct {
	index id.Index
	at    time.Time
}

// member is what a leader knows of a member beyond Raft's progress.
type member struct {
	replica  id.Replica
	seat     insync.Seat
	lastAck  int64 // UnixNano of its last response; 0: never
	inSync   bool
	declined int64     // UnixNano of when it declined to lead; 0: never
	told     toldStart // while it was full
}

func (m *member) voter() bool { return m.seat != 0 }

// orderOf returns the replicas of a Spec's members in their order, and then those that it does not name.
func orderOf(members []Member, voters []uint64) []id.Replica {
	var order []id.Replica
	for _, m := range members {
		order = append(order, m.Replica)
	}
	for _, v := range voters {
		if !slices.Contains(order, id.Replica(v)) {
			order = append(order, id.Replica(v))
		}
	}
	return order
}

func membersInOrder(order []id.Replica) []Member {
	members := make([]Member, len(order))
	for i, r := range order {
		members[i].Replica = r
	}
	return members
}

// ordinaryReplica tells whether r is the id of a replica, and none of those that Raft keeps for itself.
func ordinaryReplica(r uint64) bool { return r != 0 && r < math.MaxUint64-1 }
