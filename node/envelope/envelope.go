// Package envelope is the form of a stored view: what a replica derived from its log, in sections that know their version. A reader that
// finds a kind or a version that it does not know must stop: what it would leave out, other replicas have.
//
//	magic     uint32   "QLVW"
//	version   uint16   1, of the envelope
//	sections  uint16   how many
//	crc       uint32   CRC-32C of all before
//	then each section:
//	  kind     uint16
//	  version  uint16  of the body
//	  length   uint32  of the body
//	  crc      uint32  CRC-32C of kind, version, length and body
//	  body
//
// Little endian. A bit that flipped is told from a later release by the checksums, which come first.
package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Kind says what a section holds. The kinds are those of whose view it is.
type Kind uint16

// Section is a part of a view.
type Section struct {
	Kind    Kind
	Version uint16
	Body    []byte
}

var (
	// ErrDamaged says that what is stored is no envelope, or not what was stored.
	ErrDamaged = errors.New("a stored view is damaged")
	// ErrUnknown says that what is stored is whole, and of a release that knows more than this one.
	ErrUnknown = errors.New("a stored view is of a later release: go on with that one")
)

const (
	magic       = 'Q' | 'L'<<8 | 'V'<<16 | 'W'<<24
	version     = 1
	headBytes   = 12
	sectionHead = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends an envelope with the sections to dst.
func Append(dst []byte, sections ...Section) []byte {
	le := binary.LittleEndian
	at := len(dst)
	dst = le.AppendUint32(dst, magic)
	dst = le.AppendUint16(dst, version)
	dst = le.AppendUint16(dst, uint16(len(sections)))
	dst = le.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
	for _, s := range sections {
		at := len(dst)
		dst = le.AppendUint16(dst, uint16(s.Kind))
		dst = le.AppendUint16(dst, s.Version)
		dst = le.AppendUint32(dst, uint32(len(s.Body)))
		dst = le.AppendUint32(dst, sum(dst[at:at+8], s.Body))
		dst = append(dst, s.Body...)
	}
	return dst
}

func sum(head, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
}

// Parse returns the sections of an envelope; their bodies alias b. The error wraps ErrDamaged or ErrUnknown.
func Parse(b []byte) ([]Section, error) {
	le := binary.LittleEndian
	switch {
	case len(b) < headBytes || le.Uint32(b) != magic:
		return nil, fmt.Errorf("%w: %d bytes that are no envelope", ErrDamaged, len(b))
	case crc32.Checksum(b[:headBytes-4], castagnoli) != le.Uint32(b[headBytes-4:]):
		return nil, fmt.Errorf("%w: the checksum of its head does not match", ErrDamaged)
	case le.Uint16(b[4:]) != version:
		return nil, fmt.Errorf("%w: envelope of version %d", ErrUnknown, le.Uint16(b[4:]))
	}
	n := int(le.Uint16(b[6:]))
	b = b[headBytes:]
	var sections []Section
	for i := range n {
		if len(b) < sectionHead || int64(le.Uint32(b[4:])) > int64(len(b)-sectionHead) {
			return nil, fmt.Errorf("%w: section %d of %d is cut short", ErrDamaged, i+1, n)
		}
		end := sectionHead + int(le.Uint32(b[4:]))
		body := b[sectionHead:end:end]
		if sum(b[:8], body) != le.Uint32(b[8:]) {
			return nil, fmt.Errorf("%w: the checksum of section %d of %d does not match", ErrDamaged, i+1, n)
		}
		sections = append(sections, Section{Kind: Kind(le.Uint16(b)), Version: le.Uint16(b[2:]), Body: body})
		b = b[end:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind its %d sections", ErrDamaged, len(b), n)
	}
	return sections, nil
}
