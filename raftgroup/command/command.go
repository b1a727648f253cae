// Package command is the form of the entries that change what a group derives from its log without being a record: they take no offset,
// and consumers never see them. A group's machine gives each kind its meaning; replication and storage only tell them from batches.
//
//	0  mark     uint8   0xC0: no batch begins like that, whose first bytes are an offset, which is not negative
//	1  kind     uint8
//	2  version  uint8   of the body's form
//	3  zero     uint8
//	4  body
//	   crc      uint32  CRC-32C of all before, little endian
package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Kind says what a command does. The kinds of a machine are never given another meaning: logs keep them.
type Kind uint8

// MaxBytes is how large an entry may be. The log keeps commands in memory, and each of its cuts holds all of them, so they had better
// be few and small.
const MaxBytes = 1 << 10

const (
	mark      = 0xC0
	headBytes = 4
	sumBytes  = 4
)

// ErrInvalid says that bytes are no command.
var ErrInvalid = errors.New("no valid command")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Command is a decoded entry.
type Command struct {
	Kind    Kind
	Version uint8
	Body    []byte
}

// Is tells a command from a batch and from an empty entry, by the first byte. Whether it is whole says Parse.
func Is(data []byte) bool { return len(data) > 0 && data[0]&0x80 != 0 }

// Append appends the entry to dst.
func (c Command) Append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, mark, byte(c.Kind), c.Version, 0)
	dst = append(dst, c.Body...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// Parse decodes an entry. Body aliases data. The error is an ErrInvalid.
func Parse(data []byte) (Command, error) {
	n := len(data) - sumBytes
	switch {
	case n < headBytes || len(data) > MaxBytes:
		return Command{}, fmt.Errorf("%w: it has %d bytes", ErrInvalid, len(data))
	case crc32.Checksum(data[:n], castagnoli) != binary.LittleEndian.Uint32(data[n:]):
		return Command{}, fmt.Errorf("%w: its checksum does not match", ErrInvalid)
	case data[0] != mark || data[3] != 0:
		return Command{}, fmt.Errorf("%w: it begins with %x", ErrInvalid, data[:headBytes])
	}
	return Command{Kind: Kind(data[1]), Version: data[2], Body: data[headBytes:n:n]}, nil
}
