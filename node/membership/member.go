package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Self is what a node tells the others about itself.
type Self struct {
	Node       id.Node
	Boot       uint64 // counts the starts of the node; a later start has a larger number
	StoreID    string // of its data directory
	ClusterID  string // "" until it has a place in a cluster
	RPCAddress string
	Rack       string
	// KafkaAddress is where clients of Kafka's protocol find it; empty: nowhere.
	KafkaAddress string
}

// Member is a node as the gossip sees it.
type Member struct {
	Self
	GossipAddress string
}

// Kind is the kind of an Event.
type Kind int

// Up: a node came, or came back. Down: it left or stopped answering. Updated: what it tells about itself changed. Duplicate: two processes
// claim one node id, Err names both; one of them has to be stopped.
const (
	Up Kind = iota + 1
	Down
	Updated
	Duplicate
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case Up:
		return "up"
	case Down:
		return "down"
	case Updated:
		return "updated"
	case Duplicate:
		return "duplicate"
	}
	return "kind " + strconv.Itoa(int(k))
}

// Event is a hint that something changed. A node that was restarted is Down, then Up.
type Event struct {
	Kind   Kind
	Node   id.Node
	Member Member // as it is now; for Down as it was
	Err    error  // *DuplicateError with Duplicate, else nil
}

// DuplicateError says that a node id is in use twice.
type DuplicateError struct {
	Node       id.Node
	One, Other Member // One was there first, as far as this node can tell
}

// Error names both and what to do.
func (e *DuplicateError) Error() string {
	remedy := "give one of them an unused node id"
	if e.One.StoreID == e.Other.StoreID {
		remedy = "one runs on a copy of the other's data directory: stop it and start it with an empty directory and an unused node id"
	}
	return fmt.Sprintf("node id %d is in use twice: at %s (gossip %s, store %s) and at %s (gossip %s, store %s); %s",
		e.Node, e.One.RPCAddress, e.One.GossipAddress, e.One.StoreID,
		e.Other.RPCAddress, e.Other.GossipAddress, e.Other.StoreID, remedy)
}

// The meta of a member travels in every message that says it is alive:
//
//	0   1  version of this form; later ones append
//	1   4  node id, big endian
//	5   8  boot epoch
//	13  …  store id, cluster id, RPC address, rack, and, from version 2 on, Kafka address, each with its length before it in one byte
//
// Version 2 is for those that have a Kafka address: who has none says nothing that a release of before does not know.
//
// With ids of 36 characters, an IP address and a short rack this is about 120 bytes.
const (
	metaVersion = 1
	metaKafka   = 2 // with a Kafka address
	metaFixed   = 13
	metaMax     = 400 // memberlist panics above 512, and several have to fit into a packet of 1400 bytes
)

var errMeta = errors.New("not the meta of a quorumlog node")

// encodeMeta refuses what is too long to be gossiped.
func encodeMeta(s Self) ([]byte, error) {
	b := make([]byte, metaFixed, metaMax)
	b[0] = metaVersion
	binary.BigEndian.PutUint32(b[1:], uint32(s.Node))
	binary.BigEndian.PutUint64(b[5:], s.Boot)
	fields := []string{s.StoreID, s.ClusterID, s.RPCAddress, s.Rack}
	if s.KafkaAddress != "" {
		b[0] = metaKafka
		fields = append(fields, s.KafkaAddress)
	}
	for _, f := range fields {
		if len(f) > 255 {
			return nil, fmt.Errorf("membership: %.20q… has %d bytes, at most 255 can be gossiped", f, len(f))
		}
		b = append(append(b, byte(len(f))), f...)
	}
	if len(b) > metaMax {
		return nil, fmt.Errorf("membership: store id, cluster id, addresses and rack have %d bytes together, at most %d can be gossiped: use a shorter host name or rack",
			len(b)-metaFixed-4, metaMax-metaFixed-4)
	}
	return b, nil
}

// decodeMeta copies what it returns.
func decodeMeta(b []byte) (Self, error) {
	if len(b) < metaFixed || b[0] < metaVersion {
		return Self{}, errMeta
	}
	s := Self{Node: id.Node(binary.BigEndian.Uint32(b[1:])), Boot: binary.BigEndian.Uint64(b[5:])}
	rest := b[metaFixed:]
	fields := []*string{&s.StoreID, &s.ClusterID, &s.RPCAddress, &s.Rack}
	if b[0] >= metaKafka {
		fields = append(fields, &s.KafkaAddress)
	}
	for _, f := range fields {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return Self{}, errMeta
		}
		*f = string(rest[1 : 1+int(rest[0])])
		rest = rest[1+int(rest[0]):]
	}
	if s.Node < 0 || b[0] <= metaKafka && len(rest) > 0 {
		return Self{}, errMeta
	}
	return s, nil
}

// newName returns the name of one start of a node in the gossip: node id, boot epoch and a random number. With the boot epoch a restarted node is
// a new member, wherever it listens; with the number two processes that claim the same start (a copied data directory) are two members
// that everybody sees, and not one that flickers between two addresses.
func newName(s Self) string { return fmt.Sprintf("%s%08x", namePrefix(s), rand.Uint32()) }

// namePrefix is what the meta of a member vouches for.
func namePrefix(s Self) string {
	return strconv.FormatInt(int64(s.Node), 10) + "." + strconv.FormatUint(s.Boot, 10) + "."
}

const maxName = 10 + 1 + 20 + 1 + 8
