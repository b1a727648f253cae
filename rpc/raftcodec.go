package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Raft's messages are protobuf structs, but protobuf is 3 to 40 times too slow for them. This is their form on the lanes,
// little-endian:
//
//	0   u8   type
//	1   u8   0
//	2   u16  mask: which of the following are there (protobuf tells absent from zero, and so does this)
//	4   u64  group
//	12  u64  each of to, from, term, logTerm, index, commit, vote, rejectHint that is there, in this order
//	    u16  length, bytes: context
//	    u32  length, bytes: snapshot, as protobuf (rare, and of a MiB at most: raftgroup sends larger ones in parts)
//	    u32  count, then for each entry
//	         u64 term, u64 index, u32 length of data, u8 type, u8 mask, u16 0, and its data;
//	         or instead of the data, which is in the train's bodies then, the u32 CRC-32C of its first batch.PrefixSize bytes
//
// A heartbeat has 44 bytes and its context. Messages of a train follow each other without padding.
const (
	hasTo = 1 << iota
	hasFrom
	hasTerm
	hasLogTerm
	hasIndex
	hasCommit
	hasVote
	hasRejectHint
	hasReject
	rejectIsTrue
	hasContext
	hasSnapshot
	hasEntries
	maskEnd
)

// Bits of an entry's mask.
const (
	entryHasTerm = 1 << iota
	entryHasIndex
	entryHasType
	entryHasData
	entryInBodies // a batch of at least minBody bytes
	entryMaskEnd
)

// minBody is the size from which a batch is written from where it lies. Smaller ones are copied: a piece of a writev costs something
// too.
const minBody = 2 << 10

const (
	messageHead = 12
	entryHead   = 24
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// travels has a bit for each type of message that goes from node to node; the others stay inside a RawNode.
const travels = 1<<raftpb.MsgApp | 1<<raftpb.MsgAppResp | 1<<raftpb.MsgVote | 1<<raftpb.MsgVoteResp | 1<<raftpb.MsgSnap |
	1<<raftpb.MsgHeartbeat | 1<<raftpb.MsgHeartbeatResp | 1<<raftpb.MsgTransferLeader | 1<<raftpb.MsgTimeoutNow |
	1<<raftpb.MsgReadIndex | 1<<raftpb.MsgReadIndexResp | 1<<raftpb.MsgPreVote | 1<<raftpb.MsgPreVoteResp | 1<<raftpb.MsgProp

// messageSize returns the encoded size of m. False: m has no place on the wire.
func messageSize(m *raftpb.Message) (int, bool) {
	t := m.GetType()
	if t < 0 || t > 31 || travels>>t&1 == 0 || len(m.Responses) > 0 || len(m.Context) > 1<<16-1 {
		return 0, false
	}
	n := messageHead + 8*8 // at most; absent numbers are not worth the branches
	if m.Context != nil {
		n += 2 + len(m.Context)
	}
	if m.Snapshot != nil {
		n += 4 + proto.Size(m.Snapshot)
	}
	if len(m.Entries) > 0 {
		n += 4
		for _, e := range m.Entries {
			n += entryHead + 4 + len(e.Data)
		}
	}
	return n, n <= maxTrain-trainHead
}

// inBodies tells whether an entry's data goes into the bodies of a train.
func inBodies(e *raftpb.Entry) bool {
	return len(e.Data) >= minBody && e.GetType() == raftpb.EntryNormal
}

// appendHead appends m without the data of entries that go into the bodies.
func appendHead(dst []byte, g id.Group, m *raftpb.Message) []byte {
	at := len(dst)
	dst = append(dst, byte(m.GetType()), 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(g))
	mask := 0
	for i, p := range [...]*uint64{m.To, m.From, m.Term, m.LogTerm, m.Index, m.Commit, m.Vote, m.RejectHint} {
		if p != nil {
			mask |= 1 << i
			dst = binary.LittleEndian.AppendUint64(dst, *p)
		}
	}
	if m.Reject != nil {
		mask |= hasReject
		if *m.Reject {
			mask |= rejectIsTrue
		}
	}
	if m.Context != nil {
		mask |= hasContext
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(m.Context)))
		dst = append(dst, m.Context...)
	}
	if m.Snapshot != nil {
		mask |= hasSnapshot
		dst = appendSnapshot(dst, m.Snapshot)
	}
	if len(m.Entries) > 0 {
		mask |= hasEntries
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(m.Entries)))
		for _, e := range m.Entries {
			dst = appendEntry(dst, e)
		}
	}
	binary.LittleEndian.PutUint16(dst[at+2:], uint16(mask))
	return dst
}

func appendSnapshot(dst []byte, s *raftpb.Snapshot) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst, err := proto.MarshalOptions{}.MarshalAppend(dst, s)
	if err != nil { // required fields and invalid UTF-8 are the only causes, and it has neither
		panic(fmt.Sprintf("rpc: marshal a snapshot's metadata: %v", err))
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

func appendEntry(dst []byte, e *raftpb.Entry) []byte {
	mask := byte(0)
	if e.Term != nil {
		mask |= entryHasTerm
	}
	if e.Index != nil {
		mask |= entryHasIndex
	}
	if e.Type != nil {
		mask |= entryHasType
	}
	if e.Data != nil {
		mask |= entryHasData
	}
	if inBodies(e) {
		mask |= entryInBodies
	}
	dst = binary.LittleEndian.AppendUint64(dst, e.GetTerm())
	dst = binary.LittleEndian.AppendUint64(dst, e.GetIndex())
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(e.Data)))
	dst = append(dst, byte(e.GetType()), mask, 0, 0)
	if mask&entryInBodies != 0 {
		return binary.LittleEndian.AppendUint32(dst, prefixSum(e.Data))
	}
	return append(dst, e.Data...)
}

// prefixSum is the checksum of what a batch's own CRC leaves out.
func prefixSum(data []byte) uint32 { return crc32.Checksum(data[:batch.PrefixSize], castagnoli) }

// cursor reads little-endian fields off a buffer. After a read beyond the end, bad is set and everything reads as zero.
type cursor struct {
	b   []byte
	bad bool
}

// bytes takes the next n bytes, aliasing the buffer, without room to append.
func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() uint8 {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// messageSlab is a message and all its numbers in one allocation. It is never reused: Raft keeps pointers into messages
// that it has stepped, and answers with them.
type messageSlab struct {
	m       raftpb.Message
	typ     raftpb.MessageType
	numbers [8]uint64
	reject  bool
}

type entrySlab struct {
	e           raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

// appSlab is the slab of a message with entries, with room for one: at low rates they come one by one.
type appSlab struct {
	messageSlab
	entry [1]entrySlab
	list  [1]*raftpb.Entry
}

// trainReader reads the messages of a train.
type trainReader struct {
	heads, bodies cursor
	owned         bool // the rest of the heads is a copy that messages may alias
	data          Loan // keeps the bodies
}

// own is called before bytes are taken off the heads that a message keeps: Raft keeps them longer than the train's memory lasts. Answers
// have none, and appends none but small batches.
func (r *trainReader) own() {
	if !r.owned {
		r.owned, r.heads.b = true, bytes.Clone(r.heads.b)
	}
}

// next reads one message. Its batches alias the bodies: then data is a reference of these. One allocation, or three with more than one
// entry, and one a train for what is kept of the heads.
func (r *trainReader) next() (g id.Group, m *raftpb.Message, data Loan, err error) {
	before := len(r.bodies.b)
	if g, m, err = r.message(); err == nil && len(r.bodies.b) < before {
		r.data.Retain()
		data = r.data
	}
	return g, m, data, err
}

func (r *trainReader) message() (id.Group, *raftpb.Message, error) {
	c := &r.heads
	head := c.bytes(messageHead)
	if head == nil {
		return 0, nil, fmt.Errorf("message header cut short")
	}
	t := raftpb.MessageType(head[0])
	mask := binary.LittleEndian.Uint16(head[2:])
	g := id.Group(binary.LittleEndian.Uint64(head[4:]))
	if t > 31 || travels>>t&1 == 0 || head[1] != 0 || mask >= maskEnd {
		return 0, nil, fmt.Errorf("message of type %d, mask %#x: not known to protocol %d", head[0], mask, Protocol)
	}
	var app *appSlab
	var s *messageSlab
	if mask&hasEntries != 0 {
		app = new(appSlab)
		s = &app.messageSlab
	} else {
		s = new(messageSlab)
	}
	s.typ = t
	m := &s.m
	m.Type = &s.typ
	for i, p := range [...]**uint64{&m.To, &m.From, &m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.Vote, &m.RejectHint} {
		if mask>>i&1 != 0 {
			s.numbers[i] = c.u64()
			*p = &s.numbers[i]
		}
	}
	if mask&hasReject != 0 {
		s.reject = mask&rejectIsTrue != 0
		m.Reject = &s.reject
	}
	if mask&hasContext != 0 {
		r.own()
		m.Context = c.bytes(int(c.u16()))
	}
	if mask&hasSnapshot != 0 {
		m.Snapshot = &raftpb.Snapshot{}
		if err := proto.Unmarshal(c.bytes(int(c.u32())), m.Snapshot); err != nil {
			return 0, nil, fmt.Errorf("snapshot metadata: %w", err)
		}
	}
	if mask&hasEntries != 0 {
		if err := r.entries(app); err != nil {
			return 0, nil, err
		}
	}
	if c.bad {
		return 0, nil, fmt.Errorf("%s cut short", t)
	}
	return g, m, nil
}

func (r *trainReader) entries(s *appSlab) error {
	c := &r.heads
	n := int(c.u32())
	if n == 0 || n > len(c.b)/entryHead { // before the count is believed
		return fmt.Errorf("%d entries in %d bytes", n, len(c.b))
	}
	slab, list := s.entry[:], s.list[:]
	if n > 1 {
		slab, list = make([]entrySlab, n), make([]*raftpb.Entry, n)
	}
	s.m.Entries = list
	for i := range slab {
		list[i] = &slab[i].e
		if err := r.entry(&slab[i]); err != nil {
			return err
		}
	}
	return nil
}

// entry reads one entry; where the heads end early they are bad afterwards.
func (r *trainReader) entry(s *entrySlab) error {
	c := &r.heads
	head := c.bytes(entryHead)
	if head == nil {
		return nil
	}
	s.term = binary.LittleEndian.Uint64(head)
	s.index = binary.LittleEndian.Uint64(head[8:])
	s.typ = raftpb.EntryType(head[20])
	mask := head[21]
	if mask >= entryMaskEnd || s.typ > raftpb.EntryConfChangeV2 {
		return fmt.Errorf("entry of type %d, mask %#x: not known to protocol %d", s.typ, mask, Protocol)
	}
	if mask&entryHasTerm != 0 {
		s.e.Term = &s.term
	}
	if mask&entryHasIndex != 0 {
		s.e.Index = &s.index
	}
	if mask&entryHasType != 0 {
		s.e.Type = &s.typ
	}
	size := int(binary.LittleEndian.Uint32(head[16:]))
	if mask&entryInBodies != 0 {
		return r.body(s, size, mask)
	}
	if mask&entryHasData != 0 {
		r.own()
		s.e.Data = c.bytes(size)
	} else {
		c.bytes(size)
	}
	return nil
}

func (r *trainReader) body(s *entrySlab, size int, mask byte) error {
	sum := r.heads.u32()
	if size < minBody || size > len(r.bodies.b) || mask&entryHasData == 0 || s.typ != raftpb.EntryNormal {
		return fmt.Errorf("entry of type %d, mask %#x with a body of %d bytes, of which the train has %d", s.typ, mask, size, len(r.bodies.b))
	}
	s.e.Data = r.bodies.bytes(size)
	if actual := prefixSum(s.e.Data); actual != sum {
		return fmt.Errorf("the batch of entry %d arrived with a prefix of CRC %08x, sent with %08x", s.index, actual, sum)
	}
	return nil
}
