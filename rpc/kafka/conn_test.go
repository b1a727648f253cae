package kafka

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestTable: the rows stand in the order of their keys, each once, with versions that the messages know.
func TestTable(t *testing.T) {
	last := int16(-1)
	for _, a := range apis {
		require.Greater(t, a.key.Int16(), last, a.key.Name())
		last = a.key.Int16()
		require.LessOrEqual(t, a.min, a.max, a.key.Name())
		require.LessOrEqual(t, a.max, a.key.Request().MaxVersion(), a.key.Name())
	}
}

// TestApiVersionsGolden has the bytes that clients of all ages begin with.
func TestApiVersionsGolden(t *testing.T) {
	s := &Server{apis: []api{{kmsg.Fetch, 4, 16, nil}, {kmsg.ApiVersions, 0, 4, answerApiVersions}}}
	for _, test := range []struct {
		version int16
		code    kerr.Code
		want    string
	}{
		{0, kerr.None, "00000016 00000007 0000 00000002 0001 0004 0010 0012 0000 0004"},
		{0, kerr.UnsupportedVersion, "00000016 00000007 0023 00000002 0001 0004 0010 0012 0000 0004"},
		{2, kerr.None, "0000001a 00000007 0000 00000002 0001 0004 0010 0012 0000 0004 00000000"},
		{3, kerr.None, "0000001a 00000007 0000 03 0001 0004 0010 00 0012 0000 0004 00 00000000 00"},
	} {
		var c conn
		c.say(&turn{header: header{key: kmsg.ApiVersions.Int16(), correlation: 7}}, s.apiVersions(test.version, test.code))
		require.Equal(t, unspaced(test.want), hex.EncodeToString(c.out.Bytes), "version %d", test.version)
	}
}

func unspaced(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] != ' ' {
			out = append(out, s[i])
		}
	}
	return string(out)
}

// TestApiVersionsNewer: a client that is newer than the node is told what there is, in the oldest form (KIP-511).
func TestApiVersionsNewer(t *testing.T) {
	w := serve(t, newLogBroker(), nil).dial()
	w.write([]byte{0, 0, 0, 13, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 1, 2, 3}) // with a body of whatever form
	req := kmsg.NewPtrApiVersionsRequest()
	resp := w.answer(5, req).(*kmsg.ApiVersionsResponse)
	require.EqualValues(t, kerr.UnsupportedVersion, resp.ErrorCode)
	require.Len(t, resp.ApiKeys, len(apis))
	req.Version = 4
	require.Zero(t, w.ask(req).(*kmsg.ApiVersionsResponse).ErrorCode)
}

// TestStrangers: what is not Kafka's protocol, or not all of it, is one line in the log, and the end of the connection.
func TestStrangers(t *testing.T) {
	metadata := kmsg.NewPtrMetadataRequest()
	cut := frameOf(1, metadata)
	for _, test := range []struct {
		name, said, want string
	}{
		{"http", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it is HTTP"},
		{"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "it is TLS"},
		{"garbage", "\xff\xfe\xfd\xfc\xfb\xfa", "not Kafka's protocol: it begins with ff fe fd fc"},
		{"too large", "\x7f\xff\xff\xff", "a request of 2147483647 bytes"},
		{"too small", "\x00\x00\x00\x05", "a request of 5 bytes"},
		{"half", string(cut[:9]), "it ended in the middle of a request, after 9 of"},
		{"no header", "\x00\x00\x00\x0a\x00\x03\x00\x01\x00\x00\x00\x01\x7f\xff", "a request without a header"},
		{"unknown key", "\x00\x00\x00\x0a\x03\xe7\x00\x00\x00\x00\x00\x01\xff\xff", "the key 999"},
		{"unknown version", "\x00\x00\x00\x0a\x00\x03\x00\x63\x00\x00\x00\x01\xff\xff", "Metadata in version 99: from 0 to 12 are served"},
		{"body", "\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff", "Metadata in version 1 cannot be understood"},
		{"produce", "\x00\x00\x00\x0c\x00\x00\x00\x07\x00\x00\x00\x01\xff\xff\xff\xff", "Produce in version 7 cannot be understood"},
	} {
		s := serve(t, newLogBroker(), nil)
		w := s.dial()
		w.write([]byte(test.said))
		if test.name == "half" {
			require.NoError(t, w.Conn.(interface{ CloseWrite() error }).CloseWrite())
		}
		w.closed()
		s.logged(test.want)
	}
}

// TestClaimedLength: nobody gets memory for saying how much he will send, only for sending it.
func TestClaimedLength(t *testing.T) {
	s := serve(t, newLogBroker(), nil)
	w := s.dial()
	w.write([]byte{0x06, 0x40, 0, 0, 0, 0, 0, 9})
	used := func() int64 { return s.server.requests.Used() }
	require.Eventually(t, func() bool { return used() > 0 }, patience, time.Millisecond)
	require.EqualValues(t, firstRead, used())
	w.write(make([]byte, firstRead))
	require.Eventually(t, func() bool { return used() > firstRead }, patience, time.Millisecond)
	require.LessOrEqual(t, used(), int64(3*firstRead))
	require.NoError(t, w.Close())
	require.Eventually(t, func() bool { return used() == 0 }, patience, time.Millisecond)
}

// TestPipeline: requests that came together are under way together, and answered in their order.
func TestPipeline(t *testing.T) {
	b := newLogBroker()
	taken := make(chan *broker.Append, 10)
	b.take = func(a *broker.Append) { taken <- a }
	s := serve(t, b, nil)
	w := s.dial()
	requests := []*kmsg.ProduceRequest{
		produceRequest(7, -1, map[int32]batch.Batch{0: records(t, 2, 10)}), produceRequest(9, 1, map[int32]batch.Batch{1: records(t, 3, 10)}),
		produceRequest(3, -1, map[int32]batch.Batch{0: records(t, 4, 10), 1: records(t, 1, 10)}),
	}
	for i, req := range requests {
		w.send(int32(i), req)
	}
	metadata := kmsg.NewPtrMetadataRequest()
	w.send(3, metadata)
	var appends []*broker.Append
	for range 4 {
		appends = append(appends, <-taken) // the first has no answer yet
	}
	require.Equal(t, broker.AcksLeader, appends[1].Acks)
	for i := len(appends) - 1; i >= 0; i-- {
		appends[i].BaseOffset = id.Offset(10 * (i + 1))
		appends[i].Done(appends[i])
	}
	b.endTurn() // the end of the turn
	var offsets []int64
	for i, req := range requests {
		for _, p := range w.answer(int32(i), req).(*kmsg.ProduceResponse).Topics[0].Partitions {
			require.Zero(t, p.ErrorCode)
			offsets = append(offsets, p.BaseOffset)
		}
	}
	require.Equal(t, []int64{10, 20, 30, 40}, offsets)
	w.answer(3, metadata)
}

// TestPanic: a panic ends the connection that it is about, and nothing else.
func TestPanic(t *testing.T) {
	b := newLogBroker()
	b.metadata = func(q broker.MetadataQuery) (*broker.Metadata, error) { panic("the broker is broken") }
	s := serve(t, b, nil)
	other, w := s.dial(), s.dial()
	w.send(1, kmsg.NewPtrMetadataRequest())
	w.closed()
	s.logged("the broker is broken")
	other.ask(kmsg.NewPtrApiVersionsRequest())
}

// TestSlowReader: a client that never reads its answers keeps a bounded part of them in memory, and holds up nobody.
func TestSlowReader(t *testing.T) {
	b := newLogBroker()
	for range 8 {
		b.add(0, records(t, 1, 1<<20))
	}
	s := serve(t, b, func(o *Options) { o.AnswerBytes = 32 << 20 })
	slow := s.dial()
	req := fetchRequest(11, 8<<20, 0)
	req.Topics[0].Partitions[0].PartitionMaxBytes = 8 << 20
	for i := range int32(maxQueued / 2) {
		slow.send(i, req)
	}
	require.Eventually(t, func() bool { return s.server.answers.Used() >= 7<<20 }, patience, time.Millisecond)
	other := s.dial()
	for range 10 {
		require.Zero(t, other.ask(produceRequest(7, -1, map[int32]batch.Batch{1: records(t, 1, 10)})).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	}
	require.LessOrEqual(t, s.server.answers.Used(), int64(32<<20))
	require.NoError(t, slow.Close())
}

// TestTooManyConnections: who comes when there is no room is told so by the end of his connection.
func TestTooManyConnections(t *testing.T) {
	s := serve(t, newLogBroker(), func(o *Options) { o.MaxConnections = 1 })
	first := s.dial()
	first.ask(kmsg.NewPtrApiVersionsRequest())
	s.dial().closed()
	s.logged("the node has as many as it may")
	require.NoError(t, first.Close())
	require.Eventually(t, func() bool { return s.server.Connections() == 0 }, patience, time.Millisecond)
	s.dial().ask(kmsg.NewPtrApiVersionsRequest())
}

// TestClose: what has been asked is answered before the server is closed, but for those who wait for what may never come.
func TestClose(t *testing.T) {
	b := newLogBroker()
	taken := make(chan *broker.Append, 1)
	b.take = func(a *broker.Append) { taken <- a }
	s := serve(t, b, nil)
	producer, poller := s.dial(), s.dial()
	produce := produceRequest(7, -1, map[int32]batch.Batch{0: records(t, 1, 10)})
	producer.send(1, produce)
	a := <-taken
	poll := fetchRequest(11, 1<<20, 0)
	poller.send(2, poll)
	require.Eventually(t, func() bool { return s.server.requests.Used() > 2*4096 }, patience, time.Millisecond) // both have been read
	closed := make(chan error, 1)
	go func() { closed <- s.server.Close(context.Background()) }()
	require.Zero(t, poller.answer(2, poll).(*kmsg.FetchResponse).ErrorCode)
	a.Done(a)
	b.endTurn()
	require.Zero(t, producer.answer(1, produce).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	require.NoError(t, <-closed)
}

// FuzzRequest: whatever comes, no message is made that panics or takes much.
func FuzzRequest(f *testing.F) {
	for _, a := range apis {
		for version := a.min; version <= a.max; version++ {
			req := a.key.Request()
			req.SetVersion(version)
			f.Add(frameOf(1, req)[4:])
		}
	}
	s := &Server{apis: apis}
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, r, ok := parseHeader(frame)
		if !ok || h.key == kmsg.Produce.Int16() {
			return
		}
		if a := s.apiOf(h.key); a != nil && a.min <= h.version && h.version <= a.max {
			_, _ = (&turn{header: h, api: a, body: r.Src}).decode()
		}
	})
}

// TestHead: what of a frame is the client's own does not decide how much is read.
func TestHead(t *testing.T) {
	frame := frameOf(3, kmsg.NewPtrMetadataRequest())
	require.EqualValues(t, len(frame)-4, binary.BigEndian.Uint32(frame))
	h, _, ok := parseHeader(frame[4:])
	require.True(t, ok)
	require.Equal(t, "tester", string(h.clientID))
	require.EqualValues(t, 3, h.correlation)
}
