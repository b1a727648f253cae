package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// snapshot is what somebody gets who needs entries that the leader's log does not begin with any more: where it begins, and the leader's
// state, which is newer. Records it gets as entries, like everybody, from the start on.
//
// State and configuration are the leader's present ones, as of applied, not those as of the start: nobody keeps the old ones. So whoever
// takes it has a state that is ahead of its log, until it has the entries up to applied.
type snapshot struct {
	start   wal.Start
	applied id.Index // not below start.Index
	conf    *raftpb.ConfState
	members []Member // where those of the configuration live, as far as known
	view    []byte
}

// On the wire, in Snapshot.Data, little-endian. The body goes in parts, each in a message of its own with all metadata: a view may be larger
// than what a lane carries at once.
//
//	0   u8   version
//	1   u8   0
//	2   u16  0
//	4   u32  CRC-32C of what follows
//	8   u64  number of the snapshot: parts of two do not mix
//	16  u32  length of the body
//	20  u32  position of this part in it
//	24  …    the part
//
// The body:
//
//	0   u32  CRC-32C of what follows
//	4   u64  each of index, term and offset of the start, and applied
//	36  u32  length of the configuration, and that, as protobuf
//	    u32  length of the members, and them: see appendMember
//	    …    the view
const (
	snapshotVersion = 1
	partHead        = 24
	bodyHead        = 36
	// partBytes is the size of a part.
	partBytes = mib
	// maxSnapshotBytes bounds a body. The largest views have some tens of millions of bytes.
	maxSnapshotBytes = 64 * mib
	// maxAhead bounds how far a state is believed to be ahead of its log. It would take years to write as much.
	maxAhead = 1 << 38
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errSnapshotDamaged = errors.New("the snapshot is damaged")
	errSnapshotVersion = errors.New("the snapshot is of a later release")
	errSnapshotSize    = errors.New("the state is too large for a snapshot")
)

// encode returns the body.
func (s *snapshot) encode() ([]byte, error) {
	conf, members := mustMarshal(s.conf), []byte(nil)
	for _, m := range s.members {
		members = appendMember(members, m)
	}
	size := bodyHead + 8 + len(conf) + len(members) + len(s.view)
	if size > maxSnapshotBytes {
		return nil, fmt.Errorf("%w: %d bytes", errSnapshotSize, size)
	}
	b := make([]byte, 4, size)
	for _, n := range [...]uint64{uint64(s.start.Index), uint64(s.start.Term), uint64(s.start.Offset), uint64(s.applied)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(conf))), conf...)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(members))), members...)
	b = append(b, s.view...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b, nil
}

// decodeSnapshot is the inverse of encode. The view aliases b.
func decodeSnapshot(b []byte) (*snapshot, error) {
	if len(b) < bodyHead || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return nil, errSnapshotDamaged
	}
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	s := &snapshot{
		start:   wal.Start{Index: id.Index(number(4)), Term: id.Term(number(12)), Offset: id.Offset(number(20))},
		applied: id.Index(number(28)), conf: &raftpb.ConfState{},
	}
	conf, rest, ok := prefixed(b[bodyHead:])
	if !ok || proto.Unmarshal(conf, s.conf) != nil {
		return nil, errSnapshotDamaged
	}
	members, view, ok := prefixed(rest)
	if !ok {
		return nil, errSnapshotDamaged
	}
	var err error
	if s.members, err = decodeMembers(members); err != nil {
		return nil, errSnapshotDamaged
	}
	s.view = view
	return s, s.check()
}

// prefixed takes off what its length stands before.
func prefixed(b []byte) (taken, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if b = b[4:]; n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// check tells what no leader sends. Raft panics on some of it.
func (s *snapshot) check() error {
	start := s.start
	if start.Index == 0 || start.Index > math.MaxUint64/2 || start.Term == 0 || start.Term > maxTerm || start.Offset < 0 ||
		s.applied < start.Index || s.applied-start.Index > maxAhead {
		return errSnapshotDamaged
	}
	cs := s.conf
	n := 0
	for _, set := range [...][]uint64{cs.Voters, cs.VotersOutgoing, cs.Learners, cs.LearnersNext} {
		n += len(set)
		for _, r := range set {
			if !ordinaryReplica(r) {
				return errSnapshotDamaged
			}
		}
	}
	if n > maxPeers || len(s.members) > maxPeers || len(cs.Voters) == 0 {
		return errSnapshotDamaged
	}
	for _, m := range s.members {
		if !ordinaryReplica(uint64(m.Replica)) {
			return errSnapshotDamaged
		}
	}
	// As Raft will do it.
	config, progress, err := confchange.Restore(confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: uint64(start.Index)}, cs)
	if err != nil {
		return errSnapshotDamaged
	}
	made := tracker.ProgressTracker{Config: config, Progress: progress}
	if cs.Equivalent(made.ConfState()) != nil {
		return errSnapshotDamaged
	}
	return nil
}

// has tells whether a replica is in the configuration.
func (s *snapshot) has(r id.Replica) bool {
	for _, set := range [...][]uint64{s.conf.Voters, s.conf.VotersOutgoing, s.conf.Learners} {
		for _, x := range set {
			if x == uint64(r) {
				return true
			}
		}
	}
	return false
}

// part is a piece of a body.
type part struct {
	number   uint64
	total    int // bytes of the body
	position int // of data in it
	data     []byte
}

// cutPart returns the data of the message that carries the part at a position of a body, and the next position.
func cutPart(number uint64, body []byte, at int) (data []byte, next int) {
	next = min(at+partBytes, len(body))
	b := make([]byte, 8, partHead+next-at)
	b[0] = snapshotVersion
	b = binary.LittleEndian.AppendUint64(b, number)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, uint32(at))
	b = append(b, body[at:next]...)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b, next
}

// decodePart aliases b.
func decodePart(b []byte) (part, error) {
	if len(b) < 1 || b[0] > snapshotVersion {
		return part{}, errSnapshotVersion
	}
	if len(b) <= partHead || b[0] == 0 || b[1]|b[2]|b[3] != 0 || crc32.Checksum(b[8:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return part{}, errSnapshotDamaged
	}
	p := part{
		number: binary.LittleEndian.Uint64(b[8:]), total: int(binary.LittleEndian.Uint32(b[16:])),
		position: int(binary.LittleEndian.Uint32(b[20:])), data: b[partHead:],
	}
	if p.total > maxSnapshotBytes || p.position > p.total-len(p.data) {
		return part{}, errSnapshotDamaged
	}
	return p, nil
}

// assembly is a body of which not all parts have come.
type assembly struct {
	from    id.Replica
	term    id.Term
	number  uint64
	total   int
	body    []byte
	touched time.Time
}

// assemblyIdle is how long the next part is waited for.
const assemblyIdle = 10 * time.Second

// fits tells whether p is the next part.
func (a *assembly) fits(from id.Replica, term id.Term, p part) bool {
	return a.from == from && a.term == term && a.number == p.number && a.total == p.total && len(a.body) == p.position
}

// offer is what became of the snapshots for a follower.
type offer struct {
	index    id.Index  // where it has the follower begin
	bytes    int64     // under way, in the host's budget; 0: none is
	deadline time.Time // for the answer
	failures int       // since the last answer
	after    time.Time // not to be offered another one before
	unsent   *unsent   // parts that wait for the next tick; nil: none do
}

// unsent is what is left to be sent of a snapshot.
type unsent struct {
	message raftpb.Message // of each part, but for the data
	number  uint64
	body    []byte
	at      int
}

// arrival is a snapshot that Raft has taken.
type arrival struct {
	*snapshot
	own bool // the replica's own state is newer
}
