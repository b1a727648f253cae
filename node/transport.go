package node

import (
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

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
	// known tells whether a node is in the metadata or the gossip. Only such a peer gets lanes back to it: they stay for good.
	known func(id.Node) bool
	// word is shown the messages of the metadata group.
	word func(from id.Node, m *raftpb.Message)

	mu     sync.Mutex
	newest map[id.Node]uint64 // the latest boot epoch that each node has shown: an older one is a ghost
}

// Hello implements rpc.PeerHandler.
func (in *inbound) Hello(peer rpc.PeerHello) (rpc.PeerHello, error) {
	self := in.self
	self.Lane = peer.Lane
	if peer.Node == self.Node {
		return self, rpc.Errorf(rpc.CodeDuplicateBrokerRegistration,
			"a peer says that it is node %d, which is this node: give it a node id and a data directory of its own", peer.Node)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := rpc.CheckHello(self, peer, in.newest[peer.Node]); err != nil {
		return self, fmt.Errorf("node %d refuses a peer: %w", self.Node, err)
	}
	if !in.known(peer.Node) {
		return self, nil // news of it may come in a moment; until then it is listened to, and costs nothing that stays
	}
	in.newest[peer.Node] = peer.Boot
	if peer.Lane == rpc.LaneCtl {
		in.peers.Reset(peer.Node)
	}
	return self, nil
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

// PeerClosed implements rpc.PeerHandler.
func (in *inbound) PeerClosed(from id.Node) {
	if in.known(from) {
		in.peers.Lost(from)
	}
}
