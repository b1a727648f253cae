package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
)

// The keys in Pebble.
//
//	'a'                             sequence up to which the stored cuts cover all records of all logs, uint64
//	'c' group replica (big endian)  the replica's cut
//	'd' group replica               nothing: the replica was deleted. See tombstones
//	'f'                             format version, uint32
//	'g'                             generation and digest of everything else: see guard
//	'j' name                        a journal file: journal.FileInfo
//	'q'                             sequence up to which all rounds are complete, uint64
//	'r' group replica               why the replica is refused: it stays so until it is deleted
//	's'                             after an orderly stop only: the last sequence that was used, uint64. The cuts cover all
//	'u' key                         a value of Set
//	'v' group replica               the view of the replica's state, as the cut beside it says: see view.go
var (
	coveredKey   = []byte("a")
	formatKey    = []byte("f")
	completedKey = []byte("q")
	stoppedKey   = []byte("s")
)

const formatVersion = 4

func cutKey(g id.Group, r id.Replica) []byte { return replicaKey('c', g, r) }

func viewKey(g id.Group, r id.Replica) []byte { return replicaKey('v', g, r) }

func tombstoneKey(k logKey) []byte { return replicaKey('d', k.group, k.replica) }

func refusalKey(g id.Group, r id.Replica) []byte { return replicaKey('r', g, r) }

func replicaKey(kind byte, g id.Group, r id.Replica) []byte {
	b := append(make([]byte, 0, 17), kind)
	b = binary.BigEndian.AppendUint64(b, uint64(g))
	return binary.BigEndian.AppendUint64(b, uint64(r))
}

func journalKey(name string) []byte { return append([]byte{'j'}, name...) }

func userKey(key string) []byte { return append([]byte{'u'}, key...) }

func appendSeq(dst []byte, s journal.Seq) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(s))
}

// Get returns a small value stored under key, or ErrNotFound.
func (s *Store) Get(key string) ([]byte, error) {
	return s.metaGet(userKey(key))
}

// Set stores a small value under key, durably.
func (s *Store) Set(key string, value []byte) error {
	return s.metaSet(userKey(key), value)
}

func (s *Store) metaGet(key []byte) ([]byte, error) {
	v, closer, err := s.meta.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, key[1:])
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte{}, v...)
	return v, closer.Close()
}
