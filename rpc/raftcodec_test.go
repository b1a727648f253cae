package rpc

import (
	"bytes"
	"math"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

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

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var train []byte
		var sent []*raftpb.Message
		for range rapid.IntRange(1, 4).Draw(t, "messages") {
			m := drawMessage(t)
			size, ok := messageSize(m)
			if !ok {
				t.Fatalf("refused %v", m)
			}
			before := len(train)
			train = appendMessage(train, id.Group(len(sent)), m)
			if n := len(train) - before; n > size {
				t.Fatalf("%d bytes, announced %d: %v", n, size, m)
			}
			sent = append(sent, m)
		}
		i := 0
		if err := decodeTrain(train, func(g id.Group, m *raftpb.Message) {
			if g != id.Group(i) || !proto.Equal(m, sent[i]) {
				t.Fatalf("group %d\nsent     %v\nreceived %v", g, sent[i], m)
			}
			i++
		}); err != nil || i != len(sent) {
			t.Fatal(i, err)
		}
		// Cut anywhere, it either fails or ends between two messages.
		cut := rapid.IntRange(0, len(train)-1).Draw(t, "cut")
		n := 0
		if err := decodeTrain(train[:cut], func(id.Group, *raftpb.Message) { n++ }); err == nil && n == len(sent) {
			t.Fatalf("cut at %d of %d went unnoticed", cut, len(train))
		}
	})
}

// What is decoded shares no memory with the receive buffer, and its slices have no room to write into their neighbours.
func TestCodecOwnsItsBytes(t *testing.T) {
	m := appendOf(4, []byte("payload"))
	m.Context = []byte("context!")
	train := appendMessage(nil, 1, m)
	var got *raftpb.Message
	if err := decodeTrain(train, func(_ id.Group, m *raftpb.Message) { got = m }); err != nil {
		t.Fatal(err)
	}
	clear(train)
	if !proto.Equal(m, got) {
		t.Errorf("changed with the receive buffer: %v", got)
	}
	if d := got.Entries[0].Data; cap(d) != len(d) || cap(got.Context) != len(got.Context) {
		t.Error("slices with room to grow into the frame")
	}
}

func TestCodecAllocations(t *testing.T) {
	m := appendOf(4, make([]byte, 100))
	m.Entries = append(m.Entries, m.Entries[0], m.Entries[0], m.Entries[0])
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = appendMessage(buf[:0], 1, m) }); n != 0 {
		t.Errorf("encoding: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := decodeMessage(&cursor{b: buf}); err != nil {
			t.Fatal(err)
		}
	}); n != 3 {
		t.Errorf("decoding 4 entries: %v allocations", n)
	}
	if n := len(appendMessage(nil, 1, heartbeat(1))); n > 60 {
		t.Errorf("a heartbeat has %d bytes", n)
	}
}

func FuzzDecodeTrain(f *testing.F) {
	f.Add(appendMessage(nil, 1, heartbeat(1)))
	f.Add(appendMessage(appendMessage(nil, 1, appendOf(1, []byte("data"))), 2, heartbeat(2)))
	m := heartbeat(3)
	m.Type, m.Reject, m.Snapshot = raftpb.MsgSnap.Enum(), new(true), &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1))}}
	f.Add(appendMessage(nil, 3, m))
	f.Fuzz(func(t *testing.T, train []byte) {
		_ = decodeTrain(train, func(g id.Group, m *raftpb.Message) {
			size, ok := messageSize(m)
			if !ok {
				t.Fatalf("decoded what cannot be encoded: %v", m)
			}
			if size > 4*len(train)+1024 {
				t.Fatalf("%d bytes decoded from %d", size, len(train))
			}
			var again *raftpb.Message
			if err := decodeTrain(appendMessage(nil, g, m), func(_ id.Group, m *raftpb.Message) { again = m }); err != nil || !proto.Equal(m, again) {
				t.Fatalf("%v: %v and %v", err, m, again)
			}
		})
	})
}

// FuzzStreamFrames feeds the decoders of all frames that a client or a server may send.
func FuzzStreamFrames(f *testing.F) {
	f.Add(appendRequest(nil, ProduceRequest{Correlation: 1, Batch: []byte("batch")}))
	f.Add(appendAnswer(nil, ProduceResponse{Correlation: 1, Message: "no"}))
	f.Add(appendCommand(nil, FetchCommand{Kind: Credit, Credit: 7}))
	e := appendEventHead(nil, FetchEvent{Subscription: 1, Message: "no"})
	endFrame(e, 0)
	f.Add(e)
	f.Add(appendLimits(nil, Limits{Node: 1}))
	f.Add(appendHelloFrame(nil, "me"))
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
			_, _ = decodeLimits(frame)
			return nil
		})
		if total > len(message) {
			t.Fatal("frames overlap")
		}
		_, _, _ = openTrain(message)
		_, _, _ = decodeHello(message)
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
	if got, err := decodeRequest(appendRequest(nil, r)); err != nil || got.Correlation != r.Correlation || got.Topic != topic || got.Partition != 7 ||
		got.Acks != AcksAll || got.Timeout != r.Timeout || !bytes.Equal(got.Batch, r.Batch) {
		t.Errorf("%+v %v", got, err)
	}
	a := ProduceResponse{Correlation: 2, Code: CodeUnknown, BaseOffset: id.NoOffset, Leader: id.NoNode, Epoch: 4, Message: "m"}
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
			var buf []byte
			for b.Loop() {
				if _, ok := messageSize(c.m); !ok {
					b.Fatal("refused")
				}
				buf = appendMessage(buf[:0], 1, c.m)
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
		hand := appendMessage(nil, 1, c.m)
		b.Run(c.name+"/hand", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decodeTrain(hand, func(id.Group, *raftpb.Message) {}); err != nil {
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
