package membership

import "errors"

// packScreen reads along with memberlist's msgpack decoder and stops what the decoder would make room for before it has come: a string that
// claims 4 GiB costs an allocation of 4 GiB, in a packet of thirty bytes too. It takes the bytes cut anywhere and looks at one thing, the
// lengths: what a value means is the decoder's business.
//
//	80..8f, 90..9f    map, array of up to 15      not counted: their elements are seen as they come
//	a0..bf, d9, c4    text or bytes               length in the byte, or in the next one
//	da, c5            text or bytes               length in two bytes; those of four (db, c6) are too long in any case
//	ca..d3, c0 c2 c3  numbers, nil, booleans
//
// Nodes send nothing else, so larger containers and extensions are refused.
type packScreen struct {
	taken int    // bytes so far
	need  int    // bytes of a length still to come
	size  uint64 // that length, as far as it is there
	skip  uint64 // bytes of a value still to come
}

const (
	// maxText is above everything nodes put into a string: the meta has at most 512 bytes.
	maxText = 1024
	// maxStreamBytes is above every exchange of states: each takes less than 700 bytes.
	maxStreamBytes = maxPushNodes * maxText
)

var errTooLong = errors.New("a message with a length that nodes do not send")

// scan takes the next bytes. An error is final.
func (p *packScreen) scan(b []byte) error {
	if p.taken += len(b); p.taken > maxStreamBytes {
		return errTooLong
	}
	for len(b) > 0 {
		if p.skip > 0 {
			n := min(p.skip, uint64(len(b)))
			p.skip -= n
			b = b[n:]
			continue
		}
		c := b[0]
		b = b[1:]
		if p.need > 0 {
			p.size = p.size<<8 | uint64(c)
			if p.need--; p.need == 0 {
				p.skip, p.size = p.size, 0
			}
			if p.skip > maxText {
				return errTooLong
			}
			continue
		}
		if err := p.begin(c); err != nil {
			return err
		}
	}
	return nil
}

// begin takes the first byte of a value.
func (p *packScreen) begin(c byte) error {
	switch {
	case c < 0xa0, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // small numbers and containers, nil, booleans
	case c < 0xc0:
		p.skip = uint64(c & 0x1f)
	case c == 0xd9, c == 0xc4:
		p.need = 1
	case c == 0xda, c == 0xc5:
		p.need = 2
	case c == 0xca: // numbers of four bytes
		p.skip = 4
	case c == 0xcb:
		p.skip = 8
	case c >= 0xcc && c <= 0xcf:
		p.skip = 1 << (c - 0xcc)
	case c >= 0xd0 && c <= 0xd3:
		p.skip = 1 << (c - 0xd0)
	default:
		return errTooLong
	}
	return nil
}

// between tells whether the bytes so far end where a value does.
func (p *packScreen) between() bool { return p.need == 0 && p.skip == 0 }
