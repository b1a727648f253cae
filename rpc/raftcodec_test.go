package rpc

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// drawMessage draws any message that travels, every field absent, zero or not.
func drawMessage(t *rapid.T) *raftpb.Message {
	number := func(name string) *uint64 {
		return rapid.OneOf(rapid.Just((*uint64)(nil)), rapid.Ptr(rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Range(1, 100), rapid.Just(uint64(math.MaxUint64))), false)).Draw(t, name)
	}
	data := func(name string, most int) []byte {
		return rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, most)).Draw(t, name)
	}
	var types []raftpb.MessageType
	for i := range 32 {
		if travels>>i&1 != 0 {
			types = append(types, raftpb.MessageType(i))
		}
	}
	m := &raftpb.Message{
		Type: rapid.SampledFrom(types).Draw(t, "type").Enum(),
		To:   number("to"), From: number("from"), Term: number("term"), LogTerm: number("logTerm"), Index: number("index"),
		Commit: number("commit"), Vote: number("vote"), RejectHint: number("rejectHint"),
		Reject:  rapid.OneOf(rapid.Just((*bool)(nil)), rapid.Ptr(rapid.Bool(), false)).Draw(t, "reject"),
		Context: data("context", 20),
	}
	for range rapid.IntRange(0, 5).Draw(t, "entries") {
		e := &raftpb.Entry{Term: number("entry term"), Index: number("entry index"), Data: data("data", 300)}
		if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
			e.Data = bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, minBody+rapid.IntRange(-1, 1000).Draw(t, "above"))
		}
		if k := rapid.Int32Range(-1, 2).Draw(t, "entry type"); k >= 0 {
			e.Type = raftpb.EntryType(k).Enum()
		}
		m.Entries = append(m.Entries, e)
	}
	if rapid.Bool().Draw(t, "with snapshot") {
		m.Snapshot = &raftpb.Snapshot{Data: data("snapshot", 50), Metadata: &raftpb.SnapshotMetadata{Index: number("snapshot index"), Term: number("snapshot term"),
			ConfState: &raftpb.ConfState{Voters: rapid.SliceOfN(rapid.Uint64(), 0, 5).Draw(t, "voters"), AutoLeave: new(true)}}}
	}
	return m
}

// testLoan counts the references of a loan.
type testLoan struct{ refs int }

func (l *testLoan) Retain()  { l.refs++ }
func (l *testLoan) Release() { l.refs-- }

// trainOf packs messages into one train.
func trainOf(data Loan, messages ...*raftpb.Message) *train {
	t := &train{}
	t.empty()
	for i, m := range messages {
		t.add(id.Group(i), m, data)
	}
	return t
}

const testVersion = trainVersion(Protocol)

// wire is a train as it travels.
func (t *train) wire() []byte {
	return bytes.Join(append([][]byte{testVersion.seal(t.heads, trainMessages)}, t.bodies...), nil)
}

// decodeWire decodes a train as it travels. The visitor need not release anything.
func decodeWire(message []byte, visit func(id.Group, *raftpb.Message)) error {
	kind, heads, bodies, err := testVersion.open(message)
	if err != nil {
		return err
	}
	if kind != trainMessages {
		return errUnexpected(kind)
	}
	return decodeTrain(heads, bodies, &testLoan{}, func(g id.Group, m *raftpb.Message, _ Loan) { visit(g, m) })
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lent Loan
		loan := &testLoan{}
		if rapid.Bool().Draw(t, "lent") {
			lent = loan
		}
		packed := trainOf(lent)
		var sent []*raftpb.Message
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			m := drawMessage(t)
			size, ok := messageSize(m)
			if !ok {
				t.Fatalf("refused %v", m)
			}
			before := packed.size
			packed.add(id.Group(len(sent)), m, lent)
			if n := packed.size - before; n > size {
				t.Fatalf("%d bytes, announced %d: %v", n, size, m)
			}
			sent = append(sent, m)
		}
		wire := packed.wire()
		if len(wire) != packed.size {
			t.Fatalf("%d bytes, counted as %d", len(wire), packed.size)
		}
		i := 0
		if err := decodeWire(wire, func(g id.Group, m *raftpb.Message) {
			if g != id.Group(i) || !proto.Equal(m, sent[i]) {
				t.Fatalf("group %d\nsent     %v\nreceived %v", g, sent[i], m)
			}
			i++
		}); err != nil || i != len(sent) {
			t.Fatal(i, err)
		}
		if packed.empty(); loan.refs != 0 || packed.size != trainHead {
			t.Fatalf("%d references are left, %d bytes", loan.refs, packed.size)
		}
		// Cut anywhere, it fails.
		cut := rapid.IntRange(0, len(wire)-1).Draw(t, "cut")
		if err := decodeWire(wire[:cut], func(id.Group, *raftpb.Message) {}); err == nil {
			t.Fatalf("cut at %d of %d went unnoticed", cut, len(wire))
		}
	})
}

// A flipped bit is noticed by the train's checksum, by the prefix's, or by the batch's own.
func TestFlippedBitOnALane(t *testing.T) {
	var builder batch.Builder
	builder.Append(batch.Record{Value: make([]byte, 2*minBody)})
	b, err := builder.Finish(nil, batch.Plain(0))
	if err != nil {
		t.Fatal(err)
	}
	b.Stamp(77, 3)
	m := appendOf(1, b)
	m.Entries[0].Type = raftpb.EntryNormal.Enum()
	wire := trainOf(nil, m, heartbeat(2)).wire()
	for at := range wire {
		wire[at] ^= 4
		var damaged error
		err := decodeWire(wire, func(_ id.Group, m *raftpb.Message) {
			for _, e := range m.Entries {
				damaged = errors.Join(damaged, batch.Check(e.Data))
			}
		})
		if err == nil && damaged == nil {
			t.Fatalf("a flipped bit in byte %d of %d went unnoticed", at, len(wire))
		}
		wire[at] ^= 4
	}
}

// Of what is decoded only batches share memory with what the train came in, and their messages come with a reference; slices have no
// room to write into their neighbours.
func TestCodecOwnsItsBytes(t *testing.T) {
	m := appendOf(4, []byte("payload"))
	m.Context = []byte("context!")
	wire := trainOf(nil, m, appendOf(5, make([]byte, minBody))).wire()
	_, heads, bodies, err := testVersion.open(wire)
	if err != nil {
		t.Fatal(err)
	}
	loan := &testLoan{}
	var got []*raftpb.Message
	if err := decodeTrain(heads, bodies, loan, func(_ id.Group, m *raftpb.Message, data Loan) {
		if (data != nil) != (len(got) == 1) {
			t.Errorf("message %d came with %v", len(got), data)
		}
		got = append(got, m)
	}); err != nil || loan.refs != 1 {
		t.Fatal(err, loan.refs)
	}
	for i := range wire {
		wire[i] = 0xDB
	}
	if !proto.Equal(m, got[0]) {
		t.Errorf("changed with the receive buffer: %v", got[0])
	}
	if d := got[1].Entries[0].Data; cap(d) != len(d) || d[0] != 0xDB {
		t.Error("a batch was copied, or has room to grow into its neighbour")
	}
	if d := got[0].Entries[0].Data; cap(d) != len(d) || cap(got[0].Context) != len(got[0].Context) {
		t.Error("slices with room to grow into the frame")
	}
}

func init() { memory.Poison = true }

func TestCodecAllocations(t *testing.T) {
	four := appendOf(4, make([]byte, 100))
	four.Entries = append(four.Entries, four.Entries[0], four.Entries[0], four.Entries[0])
	for _, c := range []struct {
		name string
		m    *raftpb.Message
		want float64
	}{
		{"a response", &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: proto.Uint64(2), Index: proto.Uint64(3)}, 1},
		{"an entry", appendOf(4, make([]byte, minBody)), 1},
		{"a small entry", appendOf(4, make([]byte, 100)), 2},
		{"four small entries", four, 4},
	} {
		packed := trainOf(nil, c.m)
		if n := testing.AllocsPerRun(100, func() { packed.empty(); packed.add(1, c.m, nil) }); n != 0 {
			t.Errorf("encoding %s: %v allocations", c.name, n)
		}
		heads, bodies := packed.heads[trainHead:], bytes.Join(packed.bodies, nil)
		if n := testing.AllocsPerRun(100, func() {
			r := trainReader{heads: cursor{b: heads}, bodies: cursor{b: bodies}}
			if _, _, err := r.message(); err != nil {
				t.Fatal(err)
			}
		}); n != c.want {
			t.Errorf("decoding %s: %v allocations", c.name, n)
		}
	}
	if n := len(appendHead(nil, 1, heartbeat(1))); n > 60 {
		t.Errorf("a heartbeat has %d bytes", n)
	}
}

// TestMessagesOutliveTheirTrain overwrites a train after it was decoded: what Raft keeps of it must be its own.
func TestMessagesOutliveTheirTrain(t *testing.T) {
	beat := heartbeat(1)
	beat.Context = []byte("readonly")
	sent := []*raftpb.Message{beat, appendOf(2, []byte("small")), heartbeat(3), appendOf(4, []byte("another"))}
	heads := bytes.Clone(trainOf(nil, sent...).heads[trainHead:])
	var got []*raftpb.Message
	if err := decodeTrain(heads, nil, &testLoan{}, func(_ id.Group, m *raftpb.Message, _ Loan) { got = append(got, m) }); err != nil {
		t.Fatal(err)
	}
	for i := range heads {
		heads[i] = 0xa5
	}
	for i, m := range sent {
		if !proto.Equal(got[i], m) {
			t.Errorf("message %d is %v, was sent as %v", i, got[i], m)
		}
	}
}

func FuzzDecodeTrain(f *testing.F) {
	add := func(messages ...*raftpb.Message) {
		t := trainOf(nil, messages...)
		f.Add(t.heads[trainHead:], bytes.Join(t.bodies, nil))
	}
	add(heartbeat(1))
	add(appendOf(1, []byte("data")), heartbeat(2), appendOf(1, make([]byte, minBody)))
	m := heartbeat(3)
	m.Type, m.Reject, m.Snapshot = raftpb.MsgSnap.Enum(), new(true), &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1))}}
	add(m)
	f.Fuzz(func(t *testing.T, heads, bodies []byte) {
		_ = decodeTrain(heads, bodies, &testLoan{}, func(g id.Group, m *raftpb.Message, data Loan) {
			size, ok := messageSize(m)
			if !ok {
				t.Fatalf("decoded what cannot be encoded: %v", m)
			}
			if size > 4*(len(heads)+len(bodies))+1024 {
				t.Fatalf("%d bytes decoded from %d", size, len(heads)+len(bodies))
			}
			err := decodeWire(trainOf(nil, m).wire(), func(_ id.Group, again *raftpb.Message) {
				if !proto.Equal(m, again) {
					t.Fatalf("%v and %v", m, again)
				}
			})
			if err != nil {
				t.Fatalf("%v: %v", err, m)
			}
		})
	})
}

// FuzzStreamFrames feeds the decoders of all frames that a client or a server may send.
func FuzzStreamFrames(f *testing.F) {
	f.Add(append(appendRequestHead(nil, ProduceRequest{Correlation: 1, Batch: []byte("batch")}), "batch"...))
	f.Add(appendAnswer(nil, ProduceResponse{Correlation: 1, Message: "no"}))
	f.Add(appendCommand(nil, FetchCommand{Kind: Credit, Credit: 7}))
	e := appendEventHead(nil, FetchEvent{Subscription: 1, Message: "no"})
	endFrame(e, 0)
	f.Add(e)
	f.Add(appendLimits(nil, opening{versions: Spoken, picked: Protocol}, Limits{Node: 1}))
	f.Add(appendClientHello(nil, Spoken, "me"))
	f.Add(appendHello(nil, hello(2)))
	f.Add([]byte{0xff, 0xff, 0xff, 0x3f, 1})
	f.Fuzz(func(t *testing.T, message []byte) {
		total := 0
		_ = frames(message, func(_ byte, frame []byte) error {
			total += len(frame)
			if r, err := decodeRequest(frame); err == nil && len(r.Batch) != len(frame)-requestHead {
				t.Fatal("request")
			}
			if r, err := decodeAnswer(frame); err == nil && len(r.Message) != len(frame)-answerHead {
				t.Fatal("answer")
			}
			if e, err := decodeEvent(frame); err == nil && len(e.Message)+len(e.Batches) != len(frame)-eventHead {
				t.Fatal("event")
			}
			_, _ = decodeCommand(frame)
			return nil
		})
		if total > len(message) {
			t.Fatal("frames overlap")
		}
		_, _, _, _ = testVersion.open(message)
		_, _ = decodeHello(message)
		_, _, _ = decodeLimits(message)
		_, _, _ = decodeClientHello(message)
	})
}

// FuzzGuard cuts the same bytes in two ways, which must make no difference, and lets nothing large through.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{kindInvoke<<1 | 1, 1, 1, 3, 'a', '/', 'b', kindMessage<<1 | 1, 1, 2, 1, 0}, uint8(3))
	f.Add([]byte{kindInvoke << 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x03}, uint8(1))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var whole, pieces guard
		whole.maxMessage.Store(maxMessage)
		pieces.maxMessage.Store(maxMessage)
		want := whole.scan(b)
		var got error
		for rest := b; len(rest) > 0 && got == nil; {
			n := min(int(step)+1, len(rest))
			got = pieces.scan(rest[:n])
			rest = rest[n:]
		}
		if (want == nil) != (got == nil) || (want != nil && want.Error() != got.Error()) {
			t.Fatalf("%v, in pieces %v", want, got)
		}
		if want == nil && whole.skip > maxWireFrame {
			t.Fatalf("expects %d bytes", whole.skip)
		}
	})
}

func TestFrameRoundTrips(t *testing.T) {
	r := ProduceRequest{Correlation: 1 << 60, Topic: topic, Partition: 7, Acks: AcksAll, Timeout: 1500e6, Batch: []byte("batch")}
	if got, err := decodeRequest(append(appendRequestHead(nil, r), r.Batch...)); err != nil || got.Correlation != r.Correlation || got.Topic != topic || got.Partition != 7 ||
		got.Acks != AcksAll || got.Timeout != r.Timeout || !bytes.Equal(got.Batch, r.Batch) {
		t.Errorf("%+v %v", got, err)
	}
	a := ProduceResponse{Correlation: 2, Code: kerr.Unknown, BaseOffset: id.NoOffset, Leader: id.NoNode, Epoch: 4, Message: "m"}
	if got, err := decodeAnswer(appendAnswer(nil, a)); err != nil || got != a {
		t.Errorf("%+v %v", got, err)
	}
	a.Code, a.Oldest = kerr.InvalidTimestamp, -77
	if got, err := decodeAnswer(appendAnswer(nil, a)); err != nil || got != a {
		t.Errorf("%+v %v", got, err)
	}
	c := FetchCommand{Kind: Credit, Subscription: 9, Topic: topic, Partition: 3, Offset: -2, Credit: 1 << 40}
	if got, err := decodeCommand(appendCommand(nil, c)); err != nil || got != c {
		t.Errorf("%+v %v", got, err)
	}
}

var benchmarkMessages = []struct {
	name string
	m    *raftpb.Message
}{
	{"heartbeat", heartbeat(1)},
	{"100B", appendOf(1, make([]byte, 100))},
	{"16KiB", appendOf(1, make([]byte, 16<<10))},
	{"256KiB", appendOf(1, make([]byte, 256<<10))},
}

func BenchmarkEncode(b *testing.B) {
	for _, c := range benchmarkMessages {
		b.Run(c.name+"/hand", func(b *testing.B) {
			b.ReportAllocs()
			packed := trainOf(nil)
			for b.Loop() {
				if _, ok := messageSize(c.m); !ok {
					b.Fatal("refused")
				}
				packed.empty()
				packed.add(1, c.m, nil)
			}
		})
		b.Run(c.name+"/proto", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := proto.Marshal(c.m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range benchmarkMessages {
		hand := trainOf(nil, c.m).wire()
		b.Run(c.name+"/hand", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decodeWire(hand, func(id.Group, *raftpb.Message) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
		wire, _ := proto.Marshal(c.m)
		b.Run(c.name+"/proto", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal(wire, &raftpb.Message{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
