package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// What memberlist sends, as far as nodes of this release do. A label stands before each packet and at the start of a stream that was
// dialed:
//
//	244  length of the label  label  message
//
// and a message is one byte of type and its body in msgpack; compound packets carry several.
const (
	msgPing         = 0
	msgIndirectPing = 1
	msgAck          = 2
	msgSuspect      = 3
	msgAlive        = 4
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgEncrypt      = 10
	msgNack         = 11
	msgCRC          = 12
	msgError        = 13
	msgLabel        = 244
)

// maxPacket is the largest packet that is looked at. memberlist makes them up to 1400 bytes.
const maxPacket = 4096

// maxPushNodes bounds the states in one exchange, dead ones included: memberlist allocates 112 bytes for each that the header promises, and
// would for a million.
const maxPushNodes = 4 * maxMembers

var (
	errUnlabelled = errors.New("bytes that are not gossip")
	errMessage    = errors.New("a message that nodes do not send")
	errShort      = errors.New("message cut off")
)

// wrongLabelError is the refusal of gossip of another cluster.
type wrongLabelError struct{ label string }

func (e wrongLabelError) Error() string {
	return fmt.Sprintf("gossip of cluster %.60q", e.label)
}

// cutLabel checks the label and returns what stands behind it. errShort: so far so good, but it needs more bytes.
func cutLabel(b []byte, label string) ([]byte, error) {
	if len(b) == 0 {
		return nil, errShort
	}
	if b[0] != msgLabel {
		return nil, errUnlabelled
	}
	if len(b) < 2 || len(b) < 2+int(b[1]) {
		return nil, errShort
	}
	if theirs := string(b[2 : 2+int(b[1])]); theirs != label {
		return nil, wrongLabelError{theirs}
	}
	return b[2+int(b[1]):], nil
}

func appendLabel(b []byte, label string) []byte {
	return append(append(b, msgLabel, byte(len(label))), label...)
}

// screenPacket checks a packet before memberlist sees it. What is encrypted is left to memberlist: whoever has the key is trusted.
func screenPacket(b []byte, label string, encrypted bool) error {
	b, err := cutLabel(b, label)
	if err != nil || encrypted {
		return err
	}
	if len(b) > 5 && b[0] == msgCRC {
		b = b[5:]
	}
	if len(b) == 0 {
		return errShort
	}
	if b[0] != msgCompound {
		return screenMessage(b)
	}
	return screenCompound(b[1:])
}

func screenMessage(b []byte) error {
	if len(b) == 0 {
		return errShort
	}
	switch b[0] {
	case msgPing, msgIndirectPing, msgAck, msgSuspect, msgAlive, msgDead, msgNack:
		return screenBody(b[1:])
	}
	return errMessage
}

// screenBody checks the body of a message in a packet: one msgpack map, with nothing in it that is longer than the packet.
func screenBody(b []byte) error {
	if len(b) == 0 {
		return errShort
	}
	if b[0]&0xf0 != 0x80 {
		return errMessage
	}
	var p packScreen
	if err := p.scan(b); err != nil {
		return err
	}
	if !p.between() {
		return errShort
	}
	return nil
}

// screenCompound checks the parts of a compound message: their number in a byte, their lengths in two bytes each, then they.
func screenCompound(b []byte) error {
	if len(b) == 0 || len(b) < 1+2*int(b[0]) {
		return errShort
	}
	lengths, parts := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(parts) {
			return errShort
		}
		if err := screenMessage(parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// maxStreamHead is how many bytes of a stream are enough to decide.
const maxStreamHead = 2 + 255 + 1 + 64

// screenStream checks the first bytes of a stream. errShort: it needs more of them.
func screenStream(b []byte, label string, encrypted bool) error {
	b, err := cutLabel(b, label)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return errShort
	}
	switch {
	case encrypted || b[0] == msgEncrypt:
		return nil // memberlist answers a node whose key does not fit
	case b[0] == msgPing:
		return nil
	case b[0] == msgPushPull:
		return screenPushPull(b[1:])
	}
	return errMessage
}

// screenAnswer checks the first bytes of the answer to a call, which carry no label. errShort: it needs more of them.
func screenAnswer(b []byte, encrypted bool) error {
	switch {
	case len(b) == 0:
		return errShort
	case encrypted || b[0] == msgEncrypt || b[0] == msgAck || b[0] == msgError:
		return nil
	case b[0] == msgPushPull:
		return screenPushPull(b[1:])
	}
	return errMessage
}

// screenPushPull reads the header of an exchange of states, a msgpack map {Nodes: int, UserStateLen: int, Join: bool} in any order.
func screenPushPull(b []byte) error {
	if len(b) == 0 {
		return errShort
	}
	if b[0] != 0x83 { // a map of three
		return errMessage
	}
	b = b[1:]
	for range 3 {
		var key string
		var err error
		if key, b, err = packString(b); err != nil {
			return err
		}
		var value uint64
		if value, b, err = packValue(b); err != nil {
			return err
		}
		limit := uint64(0) // UserStateLen: nodes have no state of their own to send
		switch key {
		case "Nodes":
			limit = maxPushNodes
		case "Join":
			limit = 1
		}
		if value > limit {
			return errMessage
		}
	}
	return nil
}

// packString reads a short msgpack string.
func packString(b []byte) (string, []byte, error) {
	if len(b) == 0 {
		return "", nil, errShort
	}
	if b[0]&0xe0 != 0xa0 {
		return "", nil, errMessage
	}
	n := int(b[0] & 0x1f)
	if len(b) < 1+n {
		return "", nil, errShort
	}
	return string(b[1 : 1+n]), b[1+n:], nil
}

// packValue reads a msgpack boolean or integer. A negative one comes out as a huge one, which is refused all the same.
func packValue(b []byte) (uint64, []byte, error) {
	if len(b) == 0 {
		return 0, nil, errShort
	}
	size := 0
	switch c := b[0]; {
	case c < 0x80:
		return uint64(c), b[1:], nil
	case c == 0xc2 || c == 0xc3:
		return uint64(c - 0xc2), b[1:], nil
	case c >= 0xcc && c <= 0xcf: // unsigned, 1, 2, 4, 8 bytes
		size = 1 << (c - 0xcc)
	case c >= 0xd0 && c <= 0xd3: // signed
		size = 1 << (c - 0xd0)
	default:
		return 0, nil, errMessage
	}
	if len(b) < 1+size {
		return 0, nil, errShort
	}
	var v uint64
	for _, c := range b[1 : 1+size] {
		v = v<<8 | uint64(c)
	}
	return v, b[1+size:], nil
}
