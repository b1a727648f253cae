package rpc

import (
	"encoding/binary"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A train is one drpc message of a lane, behind the hello and its answer, little-endian:
//
//	0  u8   low byte of the protocol version that the lane has agreed on
//	1  u8   kind
//	2  u16  0
//	4  u32  CRC-32C of what follows up to the end of the heads
//	8  u32  bytes of the heads
//	12 …    heads: of messages, see raftcodec.go; of a ping, the dialer's Health (u8); of a pong, 1 if the dialer is to begin its news anew,
//	        otherwise 0 (u8); of news, see news.go
//	   …    bodies: the batches of the messages, one behind the other
//
// A batch has a CRC of its own, which the follower checks, and its entry in the heads has one of what that leaves out; so neither
// side reads it once more for the train.
const trainHead = 12

// trainVersion is the version of a lane's trains.
type trainVersion uint8

func trainVersionOf(protocol uint16) trainVersion { return trainVersion(protocol) }

type trainKind uint8

const (
	trainMessages trainKind = 1
	trainPing     trainKind = 2
	trainPong     trainKind = 3
	trainNews     trainKind = 4
)

// seal fills in the header of the heads of a train, whose first trainHead bytes were kept free.
func (v trainVersion) seal(heads []byte, kind trainKind) []byte {
	heads[0], heads[1], heads[2], heads[3] = byte(v), byte(kind), 0, 0
	binary.LittleEndian.PutUint32(heads[8:], uint32(len(heads)-trainHead))
	binary.LittleEndian.PutUint32(heads[4:], crc32.Checksum(heads[8:], castagnoli))
	return heads
}

// open checks a train and returns what it carries, aliasing it.
func (v trainVersion) open(train []byte) (kind trainKind, heads, bodies []byte, err error) {
	if len(train) < trainHead {
		return 0, nil, nil, kerr.Errorf(kerr.CorruptMessage, "train of %d bytes, its header has %d", len(train), trainHead)
	}
	if train[0] != byte(v) {
		return 0, nil, nil, kerr.Errorf(kerr.UnsupportedVersion, "train of version %d on a lane that has agreed on %d", train[0], v)
	}
	n := uint64(binary.LittleEndian.Uint32(train[8:]))
	if train[2]|train[3] != 0 {
		return 0, nil, nil, kerr.Errorf(kerr.CorruptMessage, "train with %#x%02x where nothing belongs", train[3], train[2])
	}
	if n > uint64(len(train)-trainHead) {
		return 0, nil, nil, kerr.Errorf(kerr.CorruptMessage, "train of %d bytes with %d bytes of heads", len(train), n)
	}
	heads, bodies = train[trainHead:trainHead+n], train[trainHead+n:]
	stated, actual := binary.LittleEndian.Uint32(train[4:]), crc32.Checksum(train[8:trainHead+n], castagnoli)
	if stated != actual {
		return 0, nil, nil, kerr.Errorf(kerr.CorruptMessage, "train of %d bytes arrived with CRC %08x, sent with %08x", len(train), actual, stated)
	}
	return trainKind(train[1]), heads, bodies, nil
}

// openBare is open for trains that have no bodies.
func (v trainVersion) openBare(train []byte) (trainKind, []byte, error) {
	kind, heads, bodies, err := v.open(train)
	if err == nil && len(bodies) > 0 {
		err = kerr.Errorf(kerr.CorruptMessage, "train of kind %d with %d bytes of bodies", kind, len(bodies))
	}
	return kind, heads, err
}

// ping encodes a ping.
func (v trainVersion) ping(h Health) []byte {
	return v.seal(append(make([]byte, trainHead), byte(h)), trainPing)
}

// decodePing returns what a ping says.
func decodePing(heads []byte) (Health, error) {
	if len(heads) != 1 {
		return 0, kerr.Errorf(kerr.InvalidRequest, "ping of %d bytes, it has one", len(heads))
	}
	return Health(heads[0]), nil
}

// pong encodes the answer to a ping. Anew asks for everything that the dialer has to tell.
func (v trainVersion) pong(anew bool) []byte {
	return v.seal(append(make([]byte, trainHead), flag(anew, 1)), trainPong)
}

// decodeLanePong returns what a pong asks for.
func decodeLanePong(heads []byte) (anew bool, err error) {
	if len(heads) != 1 || heads[0] > 1 {
		return false, kerr.Errorf(kerr.InvalidRequest, "pong of %d bytes: %.4x", len(heads), heads)
	}
	return heads[0] == 1, nil
}

// news encodes news.
func (v trainVersion) news(n News) []byte {
	return v.seal(appendNews(make([]byte, trainHead, trainHead+newsHead+24*len(n.Words)), n), trainNews)
}

// errUnexpected is a train that has no place where it came.
func errUnexpected(kind trainKind) error {
	return kerr.Errorf(kerr.InvalidRequest, "train of kind %d is not expected here", kind)
}

// decodeTrain hands on the messages of a train. Their batches stay where they are: data keeps that, and the visitor takes over one
// reference of it for each message with batches; for others it gets nil. What a message keeps of the heads is a copy.
func decodeTrain(heads, bodies []byte, data Loan, visit func(g id.Group, m *raftpb.Message, data Loan)) error {
	r := trainReader{heads: cursor{b: heads}, bodies: cursor{b: bodies}, data: data}
	for len(r.heads.b) > 0 {
		g, m, data, err := r.next()
		if err != nil {
			return kerr.Errorf(kerr.CorruptMessage, "train with a good CRC does not decode: %v", err)
		}
		visit(g, m, data)
	}
	if n := len(r.bodies.b); n > 0 {
		return kerr.Errorf(kerr.CorruptMessage, "train with a good CRC has %d bytes that belong to no message", n)
	}
	return nil
}
