package rpc

import (
	"encoding/binary"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// PeerHello is the first thing said on a lane, in both directions.
type PeerHello struct {
	Versions  Versions // Spoken, where it is left out
	Release   string   // for people
	ClusterID string
	Node      id.Node
	Target    id.Node // whom the dialer means to reach: Peers fills it in
	Boot      uint64  // grows with every start of the node
	Session   uint64  // a random number of the process: two that run on copies of one directory say the same boot epoch
	Lane      Lane
	Health    Health

	picked uint16        // of an answer: the version
	ping   time.Duration // the dialer is heard at least this often. The answer repeats it
}

func (h PeerHello) withDefaults() PeerHello {
	if h.Versions == (Versions{}) {
		h.Versions = Spoken
	}
	if h.Release == "" {
		h.Release = Release
	}
	return h
}

func (h PeerHello) opening() opening {
	return opening{versions: h.Versions, picked: h.picked, release: h.Release}
}

// appendHello encodes a lane's hello and its answer, behind the opening:
//
//	u8 lane | u8 health | i32 node | i32 target | u64 boot | u64 session | u32 ping interval in ms | u16 length, cluster id
func appendHello(dst []byte, h PeerHello) []byte {
	dst = h.opening().begin(dst)
	dst = append(dst, byte(h.Lane), byte(h.Health))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Node))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Target))
	dst = binary.LittleEndian.AppendUint64(dst, h.Boot)
	dst = binary.LittleEndian.AppendUint64(dst, h.Session)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.ping.Milliseconds()))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.ClusterID)))
	return endOpening(append(dst, h.ClusterID...))
}

func decodeHello(message []byte) (PeerHello, error) {
	o, rest, err := readOpening(message)
	if err != nil {
		return PeerHello{}, err
	}
	c := cursor{b: rest}
	h := PeerHello{
		Versions: o.versions, Release: o.release, picked: o.picked,
		Lane: Lane(c.u8()), Health: Health(c.u8()), Node: id.Node(c.u32()), Target: id.Node(c.u32()), Boot: c.u64(), Session: c.u64(),
		ping: time.Duration(c.u32()) * time.Millisecond,
	}
	h.ClusterID = string(c.bytes(int(c.u16())))
	if c.bad {
		return PeerHello{}, kerr.Errorf(kerr.InvalidRequest, "hello of %d bytes is cut short", len(message))
	}
	return h, nil
}

// CheckHello is what a node checks of a peer's hello before the lane changes anything: that both speak a common version and mean the same
// cluster, that the peer means this node and is not itself it, and that its boot epoch can be: registered is that of the node's last
// registration in the metadata, 0 if there is none. The error says both sides' values and what to do.
func CheckHello(self, peer PeerHello, registered uint64) error {
	if _, ok := self.Versions.agree(peer.Versions); !ok {
		return self.Versions.refusal(nodeName(self.Node), peer.Versions, nodeName(peer.Node), peer.Release)
	}
	switch {
	case peer.ClusterID != self.ClusterID:
		return kerr.Errorf(kerr.InconsistentClusterID, "node %d belongs to cluster %.80q, node %d to cluster %q: check the addresses it joins, or give it an empty data directory",
			peer.Node, peer.ClusterID, self.Node, self.ClusterID)
	case peer.Target != self.Node: // before the next one: a node at the address that another one had dials itself there
		return kerr.Errorf(kerr.InvalidRequest, "node %d answers at the address of node %d", self.Node, peer.Target)
	case peer.Node == self.Node:
		return kerr.Errorf(kerr.DuplicateBrokerRegistration, "node id %d is used by two nodes, with boot epochs %d and %d: give one of them another id and an empty data directory",
			self.Node, peer.Boot, self.Boot)
	case peer.Node < 0:
		return kerr.Errorf(kerr.InvalidRequest, "a peer says that it is node %d: node ids are 0 or larger", peer.Node)
	case peer.Boot < registered:
		return kerr.Errorf(kerr.DuplicateBrokerRegistration, "node %d says boot epoch %d, but boot epoch %d of it is registered: an old process of it still runs, or its data directory was copied",
			peer.Node, peer.Boot, registered)
	case !PlausibleBoot(peer.Boot, registered):
		return kerr.Errorf(kerr.InvalidRequest, "node %d says boot epoch %d, while boot epoch %d of it is registered: no node has started so often since",
			peer.Node, peer.Boot, registered)
	}
	return nil
}

// maxStartsAhead is how far a boot epoch may be ahead of the registered one: the starts that have not come to a registration. Nobody starts
// a node four billion times.
const maxStartsAhead = 1 << 32

// PlausibleBoot tells whether a node can have come to a boot epoch since it was registered with another one (0: never).
func PlausibleBoot(boot, registered uint64) bool {
	return boot <= registered || boot-registered <= maxStartsAhead
}

// incarnation is who is at the other end of a lane: one process of one start of a node.
type incarnation struct{ boot, session uint64 }

func (h PeerHello) incarnation() incarnation { return incarnation{h.Boot, h.Session} }

// displace decides whether a process may take the lanes of a node over from another one whose control lane lives. Only the metadata says
// who of two is the node: the process that registered last. One that did not register yet has to wait until the lanes of the one that
// did are dead, as they are when that has ended; of two that did not, the later start is the likelier. Without this rule two processes
// on copies of one directory, or a stranger, would take the lanes from each other for ever.
func displace(node id.Node, held, comes incarnation, registered uint64) error {
	switch {
	case held == comes:
		return nil // the same process again: its connection broke, and we have not noticed
	case comes.boot == held.boot:
		return kerr.Errorf(kerr.DuplicateBrokerRegistration,
			"two processes say that they are start %d of node %d: one runs on a copy of the other's data directory. This one came second", comes.boot, node)
	case comes.boot == registered:
		return nil
	case held.boot == registered:
		return kerr.Errorf(kerr.DuplicateBrokerRegistration,
			"start %d of node %d is registered and connected; start %d is let in once that has ended, or once it is registered itself", held.boot, node, comes.boot)
	case comes.boot < held.boot:
		return kerr.Errorf(kerr.DuplicateBrokerRegistration, "start %d of node %d is connected: start %d must be over", held.boot, node, comes.boot)
	}
	return nil
}
