package rpc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Versions is a range of protocol versions. One number stands for all that this package puts on the wire: hellos, trains, Raft
// messages, produce and fetch frames.
type Versions struct{ Oldest, Newest uint16 }

// Spoken is what this release speaks. A release that changes a format counts Newest up and goes on speaking the versions before it, so
// that nodes can be upgraded one by one.
var Spoken = Versions{Oldest: oldestProtocol, Newest: Protocol}

// String writes the range as people are told of it: "4" or "3-4".
func (v Versions) String() string {
	if v.Oldest == v.Newest {
		return fmt.Sprint(v.Newest)
	}
	return fmt.Sprintf("%d-%d", v.Oldest, v.Newest)
}

// Release is this release's name, for people on the other side.
const Release = "0.1.0"

// agree returns the newest version that both speak.
func (v Versions) agree(o Versions) (uint16, bool) {
	newest := min(v.Newest, o.Newest)
	return newest, newest >= max(v.Oldest, o.Oldest)
}

// refusal says who of two that have no version in common has to be upgraded.
func (v Versions) refusal(self string, peer Versions, them, release string) *kerr.Error {
	remedy := "upgrade " + them
	if peer.Oldest > v.Newest {
		remedy = "upgrade " + self
	}
	if release != "" {
		them = fmt.Sprintf("%s (release %s)", them, release)
	}
	return kerr.Errorf(kerr.UnsupportedVersion, "%s speaks protocol %s, %s speaks %s: %s", them, peer, self, v, remedy)
}

// The opening is how every stream begins, in both directions, in every release, for ever. Little-endian:
//
//	0   4   "qlog"
//	4   u16 oldest protocol that the speaker speaks
//	6   u16 newest
//	8   u16 in an answer the version that both use from then on; in a hello 0
//	10  u16 0
//	12  u32 CRC-32C of all other bytes of the message
//	16  u8  length of the release's name, then the name: to tell people, never to decide by
//	    …   the rest; see appendHello, appendClientHello, appendLimits
//
// The caller says its range, the answer picks: mostly the newest version that both speak. If there is none, the answer is an error that
// says so (errors.go, whose form never changes either).
//
// The rest has to be read before a version is agreed on. So its fields stay where they are, in all releases; a release appends its new
// ones, and whoever does not know what comes at the end passes over it.
const (
	openingMagic = "qlog"
	openingSum   = 12
	openingHead  = 16
	maxRelease   = 40
)

// opening is what a hello and its answer begin with.
type opening struct {
	versions Versions
	picked   uint16 // 0 in a hello
	release  string
}

// begin appends an opening up to its rest; endOpening seals the message once the rest is there.
func (o opening) begin(dst []byte) []byte {
	dst = append(dst, openingMagic...)
	for _, v := range [...]uint16{o.versions.Oldest, o.versions.Newest, o.picked, 0} {
		dst = binary.LittleEndian.AppendUint16(dst, v)
	}
	dst = append(dst, 0, 0, 0, 0)
	release := o.release[:min(len(o.release), maxRelease)]
	return append(append(dst, byte(len(release))), release...)
}

func endOpening(message []byte) []byte {
	binary.LittleEndian.PutUint32(message[openingSum:], sumOpening(message))
	return message
}

func sumOpening(message []byte) uint32 {
	return crc32.Update(crc32.Checksum(message[:openingSum], castagnoli), castagnoli, message[openingHead:])
}

// readOpening checks an opening and returns the rest of the message, aliasing it.
func readOpening(message []byte) (opening, []byte, error) {
	if len(message) <= openingHead || string(message[:len(openingMagic)]) != openingMagic {
		return opening{}, nil, kerr.Errorf(kerr.UnsupportedVersion,
			"the stream begins with %d bytes that are no hello of quorumlog: who sent them is older than all that this release knows, or something else", len(message))
	}
	if stated, actual := binary.LittleEndian.Uint32(message[openingSum:]), sumOpening(message); stated != actual {
		return opening{}, nil, kerr.Errorf(kerr.CorruptMessage, "hello of %d bytes arrived with CRC %08x, sent with %08x", len(message), actual, stated)
	}
	c := cursor{b: message[len(openingMagic):]}
	o := opening{versions: Versions{Oldest: c.u16(), Newest: c.u16()}, picked: c.u16()}
	c.bytes(6) // a later release's, and the sum
	o.release = printable(c.bytes(int(c.u8())))
	if c.bad || o.versions.Oldest > o.versions.Newest {
		return opening{}, nil, kerr.Errorf(kerr.InvalidRequest, "hello of %d bytes makes no sense", len(message))
	}
	return o, c.b, nil
}

// answerTo is the opening of the answer to a hello, or the refusal of it. Who names the two for people: node 3, the client.
func (v Versions) answerTo(hello opening, self, caller string) (opening, error) {
	picked, ok := v.agree(hello.versions)
	if !ok {
		return opening{}, v.refusal(self, hello.versions, caller, hello.release)
	}
	return opening{versions: v, picked: picked, release: Release}, nil
}

// accept checks the answer to a hello with range v and returns the version that it picked.
func (v Versions) accept(answer opening, self, server string) (uint16, error) {
	if answer.picked < v.Oldest || answer.picked > v.Newest {
		return 0, v.refusal(self, answer.versions, server, answer.release)
	}
	return answer.picked, nil
}

// printable keeps a name that came from outside, a release's or a client's, from writing anything but a name into logs.
func printable(name []byte) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(name[:min(len(name), maxRelease)]))
}

// versionsKey is the metadata with which an administrative call says what its caller speaks, as "3-4". These calls are protobuf, which
// grows by itself; but they are the first that a client says, and so it is here that one of another age learns it.
const versionsKey = "protocol"

func (v Versions) text() string { return fmt.Sprintf("%d-%d", v.Oldest, v.Newest) }

// checkCaller refuses a call whose caller speaks no version that v has. Callers that do not say what they speak are let through.
func (v Versions) checkCaller(text, self string) error {
	var caller Versions
	if n, _ := fmt.Sscanf(text, "%d-%d", &caller.Oldest, &caller.Newest); n != 2 || caller.Oldest > caller.Newest {
		return nil
	}
	if _, ok := v.agree(caller); !ok {
		return v.refusal(self, caller, "the caller", "")
	}
	return nil
}

// nodeName is how messages speak of a node.
func nodeName(n id.Node) string {
	if n < 0 {
		return "this node"
	}
	return fmt.Sprintf("node %d", n)
}
