package segment

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Key names a segment within its partition. Base alone is not enough: a truncation may drop a segment, and another one of
// the same base may begin before the dropped one's files are gone.
type Key struct {
	Base id.Offset
	ID   uint32
}

// The suffixes of a segment's files.
const (
	LogSuffix   = ".log"
	IndexSuffix = ".index"
)

// stem is the part of the names before the suffix.
func (k Key) stem() string {
	if k.ID == 0 {
		return fmt.Sprintf("%020d", int64(k.Base))
	}
	return fmt.Sprintf("%020d.%d", int64(k.Base), k.ID)
}

// Log is the name of the file that holds the batches.
func (k Key) Log() string { return k.stem() + LogSuffix }

// Index is the name of the file that holds the rows.
func (k Key) Index() string { return k.stem() + IndexSuffix }

// String is the name without suffix.
func (k Key) String() string { return k.stem() }

// ParseName returns the key of a file name; false when it is not one of a segment's.
func ParseName(name string) (Key, bool) {
	stem, ok := strings.CutSuffix(name, LogSuffix)
	if !ok {
		if stem, ok = strings.CutSuffix(name, IndexSuffix); !ok {
			return Key{}, false
		}
	}
	base, rest, more := strings.Cut(stem, ".")
	if len(base) != 20 {
		return Key{}, false
	}
	b, err := strconv.ParseInt(base, 10, 64)
	if err != nil || b < 0 {
		return Key{}, false
	}
	k := Key{Base: id.Offset(b)}
	if more {
		n, err := strconv.ParseUint(rest, 10, 32)
		if err != nil || n == 0 {
			return Key{}, false
		}
		k.ID = uint32(n)
	}
	if k.stem() != stem {
		return Key{}, false
	}
	return k, true
}
