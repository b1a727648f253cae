package node

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// transport carries Raft messages out: it is raftgroup's Transport over rpc's peer lanes.
type transport struct{ peers *rpc.Peers }

var _ raftgroup.Transport = transport{}

// Send implements raftgroup.Transport.
func (t transport) Send(to id.Node, g id.Group, m *raftpb.Message, data raftgroup.Loan) {
	t.peers.Send(to, g, m, data)
}

// Flush implements raftgroup.Transport.
func (t transport) Flush() { t.peers.Flush() }

// inbound is the receiving end: what the lanes of other nodes bring goes to the host.
type inbound struct {
	self  rpc.PeerHello
	peers *rpc.Peers
	host  *raftgroup.Host
	// leaders takes what the others say of who leads.
	leaders *leaders.Table
	// known tells whether a node is in the metadata or the gossip. Only such a peer gets lanes back to it: they stay for good.
	known func(id.Node) bool
	// word is shown the messages of the metadata group.
	word func(from id.Node, m *raftpb.Message)
	// registered is the boot epoch of a node in the metadata, 0 if it is not there.
	registered func(id.Node) uint64
}

// dropped is told of a message that was not sent. Raft says it again, but for a snapshot.
func (in *inbound) dropped(g id.Group, m *raftpb.Message) {
	if m.GetType() == raftpb.MsgSnap {
		in.host.SnapshotLost(g, id.Replica(m.GetTo()))
	}
}

// Hello implements rpc.PeerHandler.
func (in *inbound) Hello(peer rpc.PeerHello) (rpc.PeerHello, uint64, error) {
	registered := in.registered(peer.Node)
	if err := rpc.CheckHello(in.self, peer, registered); err != nil {
		return in.self, registered, fmt.Errorf("node %d refuses a peer: %w", in.self.Node, err)
	}
	return in.self, registered, nil
}

// PeerOpened implements rpc.PeerHandler.
func (in *inbound) PeerOpened(from id.Node) {
	if in.known(from) { // news of it may come in a moment; until then it is listened to, and costs nothing that stays
		in.peers.Reset(from)
	}
}

// Step implements rpc.PeerHandler.
func (in *inbound) Step(from id.Node, g id.Group, m *raftpb.Message, data rpc.Loan) {
	if g == id.MetadataGroup {
		in.word(from, m) // before Step, which may give m's memory back
	}
	in.host.Visit().Step(from, g, m, data)
}

// Stepped implements rpc.PeerHandler.
func (in *inbound) Stepped() { in.host.Visit().End() }

// News implements rpc.PeerHandler. What a node says that is not known is lost; it says it again once it is.
func (in *inbound) News(from id.Node, session uint64, n rpc.News) bool {
	return in.known(from) && in.leaders.Hear(from, session, n)
}

// PeerClosed implements rpc.PeerHandler.
func (in *inbound) PeerClosed(from id.Node, session uint64) {
	in.leaders.Closed(from, session)
	if in.known(from) {
		in.peers.Lost(from)
	}
}
