package rpc

import (
	"encoding/binary"

	"hash/crc32"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// A train is one drpc message of a lane, little-endian:
//
//	0  u8   version of this format (trainVersion)
//	1  u8   kind
//	2  u16  0
//	4  u32  CRC-32C of what follows up to the end of the heads
//	8  u32  bytes of the heads
//	12 …    heads: of a hello or welcome, see appendHello; of messages, see raftcodec.go; of a ping, the
//	      dialer's Health (u8); of a pong, nothing
//	   …    bodies: the batches of the messages, one behind the other
//
// A batch has a CRC of its own, which the follower checks, and its entry in the heads has one of what that leaves out; so neither
// side reads it once more for the train.
const (
	trainVersion = 3
	trainHead    = 12
)

type trainKind uint8

const (
	trainHello    trainKind = 1 // the dialer's first
	trainWelcome  trainKind = 2 // the answer to it
	trainMessages trainKind = 3
	trainPing     trainKind = 4
	trainPong     trainKind = 5
)

// seal fills in the header of the heads of a train, whose first trainHead bytes were kept free.
func seal(heads []byte, kind trainKind) []byte {
	heads[0], heads[1], heads[2], heads[3] = trainVersion, byte(kind), 0, 0
	binary.LittleEndian.PutUint32(heads[8:], uint32(len(heads)-trainHead))
	binary.LittleEndian.PutUint32(heads[4:], crc32.Checksum(heads[8:], castagnoli))
	return heads
}

// openTrain checks a train and returns what it carries, aliasing it.
func openTrain(train []byte) (kind trainKind, heads, bodies []byte, err error) {
	if len(train) < trainHead {
		return 0, nil, nil, Errorf(CodeCorruptMessage, "train of %d bytes, its header has %d", len(train), trainHead)
	}
	if train[0] != trainVersion {
		return 0, nil, nil, Errorf(CodeUnsupportedVersion, "train of version %d, this node reads version %d", train[0], trainVersion)
	}
	n := uint64(binary.LittleEndian.Uint32(train[8:]))
	if train[2]|train[3] != 0 {
		return 0, nil, nil, Errorf(CodeCorruptMessage, "train with %#x%02x where nothing belongs", train[3], train[2])
	}
	if n > uint64(len(train)-trainHead) {
		return 0, nil, nil, Errorf(CodeCorruptMessage, "train of %d bytes with %d bytes of heads", len(train), n)
	}
	heads, bodies = train[trainHead:trainHead+n], train[trainHead+n:]
	stated, actual := binary.LittleEndian.Uint32(train[4:]), crc32.Checksum(train[8:trainHead+n], castagnoli)
	if stated != actual {
		return 0, nil, nil, Errorf(CodeCorruptMessage, "train of %d bytes arrived with CRC %08x, sent with %08x", len(train), actual, stated)
	}
	return trainKind(train[1]), heads, bodies, nil
}

// bareTrain is openTrain for trains that have no bodies.
func bareTrain(train []byte) (trainKind, []byte, error) {
	kind, heads, bodies, err := openTrain(train)
	if err == nil && len(bodies) > 0 {
		err = Errorf(CodeCorruptMessage, "train of kind %d with %d bytes of bodies", kind, len(bodies))
	}
	return kind, heads, err
}

// appendHello encodes a hello after an empty train header:
//
//	u16 version | u8 lane | u8 health | i32 node | u64 boot | u32 ping interval in ms | u16 length, cluster id
//
// The ping interval is how often the dialer will at least be heard; the answer repeats it.
func appendHello(train []byte, h PeerHello, ping time.Duration) []byte {
	train = append(train, zeros[:trainHead]...)
	train = binary.LittleEndian.AppendUint16(train, h.Version)
	train = append(train, byte(h.Lane), byte(h.Health))
	train = binary.LittleEndian.AppendUint32(train, uint32(h.Node))
	train = binary.LittleEndian.AppendUint64(train, h.Boot)
	train = binary.LittleEndian.AppendUint32(train, uint32(ping.Milliseconds()))
	train = binary.LittleEndian.AppendUint16(train, uint16(len(h.ClusterID)))
	return append(train, h.ClusterID...)
}

func decodeHello(b []byte) (PeerHello, time.Duration, error) {
	c := cursor{b: b}
	h := PeerHello{Version: c.u16(), Lane: Lane(c.u8()), Health: Health(c.u8()), Node: id.Node(c.u32()), Boot: c.u64()}
	ping := time.Duration(c.u32()) * time.Millisecond
	h.ClusterID = string(c.bytes(int(c.u16())))
	if c.bad {
		return PeerHello{}, 0, Errorf(CodeInvalidRequest, "hello of %d bytes is cut short", len(b))
	}
	return h, ping, nil
}

// pingOf encodes a ping.
func pingOf(h Health) []byte { return seal(append(make([]byte, trainHead), byte(h)), trainPing) }

// decodePing returns what a ping says.
func decodePing(heads []byte) (Health, error) {
	if len(heads) != 1 {
		return 0, Errorf(CodeInvalidRequest, "ping of %d bytes, it has one", len(heads))
	}
	return Health(heads[0]), nil
}

// CheckHello is what a node checks of a peer's hello: version, cluster id, that the peer is not itself, and that its boot epoch is
// not older than newest, the newest seen of that node (0: none). The error names both values.
func CheckHello(self, peer PeerHello, newest uint64) error {
	switch {
	case peer.Version != self.Version:
		return Errorf(CodeUnsupportedVersion, "node %d speaks protocol %d, node %d speaks %d: run the same release on all nodes",
			peer.Node, peer.Version, self.Node, self.Version)
	case peer.ClusterID != self.ClusterID:
		return Errorf(CodeInconsistentClusterID, "node %d belongs to cluster %q, node %d to cluster %q: check the addresses it joins, or give it an empty data directory",
			peer.Node, peer.ClusterID, self.Node, self.ClusterID)
	case peer.Node == self.Node:
		return Errorf(CodeDuplicateBrokerRegistration, "node id %d is used by two nodes, with boot epochs %d and %d: give one of them another id and an empty data directory",
			self.Node, peer.Boot, self.Boot)
	case peer.Boot < newest:
		return Errorf(CodeDuplicateBrokerRegistration, "node %d says boot epoch %d, but boot epoch %d of it has been seen: an old process of it still runs, or its data directory was copied",
			peer.Node, peer.Boot, newest)
	}
	return nil
}

// errUnexpected is a train that has no place where it came.
func errUnexpected(kind trainKind) error {
	return Errorf(CodeInvalidRequest, "train of kind %d is not expected here", kind)
}

// decodeTrain hands on the messages of a train. Their batches stay where they are: data keeps that, and the visitor takes over one
// reference of it for each message with batches; for others it gets nil. What a message keeps of the heads is a copy.
func decodeTrain(heads, bodies []byte, data Loan, visit func(g id.Group, m *raftpb.Message, data Loan)) error {
	r := trainReader{heads: cursor{b: heads}, bodies: cursor{b: bodies}, data: data}
	for len(r.heads.b) > 0 {
		g, m, data, err := r.next()
		if err != nil {
			return Errorf(CodeCorruptMessage, "train with a good CRC does not decode: %v", err)
		}
		visit(g, m, data)
	}
	if n := len(r.bodies.b); n > 0 {
		return Errorf(CodeCorruptMessage, "train with a good CRC has %d bytes that belong to no message", n)
	}
	return nil
}
