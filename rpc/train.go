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
//	4  u32  CRC-32C of all that follows
//	8  …    hello and welcome: see appendHello; messages: Raft messages, see raftcodec.go; ping and pong: nothing
const (
	trainVersion = 1
	trainHead    = 8
)

type trainKind uint8

const (
	trainHello    trainKind = 1 // the dialer's first
	trainWelcome  trainKind = 2 // the answer to it
	trainMessages trainKind = 3
	trainPing     trainKind = 4
	trainPong     trainKind = 5
)

// seal fills in the header of a train whose first trainHead bytes were kept free.
func seal(train []byte, kind trainKind) []byte {
	train[0], train[1], train[2], train[3] = trainVersion, byte(kind), 0, 0
	binary.LittleEndian.PutUint32(train[4:], crc32.Checksum(train[trainHead:], castagnoli))
	return train
}

// openTrain checks a train and returns what it carries, aliasing it.
func openTrain(train []byte) (trainKind, []byte, error) {
	if len(train) < trainHead {
		return 0, nil, Errorf(CodeCorruptMessage, "train of %d bytes, its header has %d", len(train), trainHead)
	}
	if train[0] != trainVersion {
		return 0, nil, Errorf(CodeUnsupportedVersion, "train of version %d, this node reads version %d", train[0], trainVersion)
	}
	stated, actual := binary.LittleEndian.Uint32(train[4:]), crc32.Checksum(train[trainHead:], castagnoli)
	if stated != actual {
		return 0, nil, Errorf(CodeCorruptMessage, "train of %d bytes arrived with CRC %08x, sent with %08x", len(train), actual, stated)
	}
	return trainKind(train[1]), train[trainHead:], nil
}

// appendHello encodes a hello after an empty train header:
//
//	u16 version | u8 lane | u8 0 | i32 node | u64 boot | u32 ping interval in ms | u16 length, cluster id
//
// The ping interval is how often the dialer will at least be heard; the answer repeats it.
func appendHello(train []byte, h PeerHello, ping time.Duration) []byte {
	train = append(train, zeros[:trainHead]...)
	train = binary.LittleEndian.AppendUint16(train, h.Version)
	train = append(train, byte(h.Lane), 0)
	train = binary.LittleEndian.AppendUint32(train, uint32(h.Node))
	train = binary.LittleEndian.AppendUint64(train, h.Boot)
	train = binary.LittleEndian.AppendUint32(train, uint32(ping.Milliseconds()))
	train = binary.LittleEndian.AppendUint16(train, uint16(len(h.ClusterID)))
	return append(train, h.ClusterID...)
}

func decodeHello(b []byte) (PeerHello, time.Duration, error) {
	c := cursor{b: b}
	h := PeerHello{Version: c.u16(), Lane: Lane(c.u16()), Node: id.Node(c.u32()), Boot: c.u64()}
	ping := time.Duration(c.u32()) * time.Millisecond
	h.ClusterID = string(c.bytes(int(c.u16())))
	if c.bad {
		return PeerHello{}, 0, Errorf(CodeInvalidRequest, "hello of %d bytes is cut short", len(b))
	}
	return h, ping, nil
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

// decodeTrain copies the messages of a train out of drpc's buffer once and hands them on; their bytes alias that copy.
func decodeTrain(body []byte, visit func(id.Group, *raftpb.Message)) error {
	c := cursor{b: append([]byte(nil), body...)}
	for len(c.b) > 0 {
		g, m, err := decodeMessage(&c)
		if err != nil {
			return Errorf(CodeCorruptMessage, "train with a good CRC does not decode: %v", err)
		}
		visit(g, m)
	}
	return nil
}
