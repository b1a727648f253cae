package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

func init() { memory.Poison = true }

// logBroker is a broker with one topic, "t", whose partitions are logs in memory.
type logBroker struct {
	broker.Broker
	metadata func(broker.MetadataQuery) (*broker.Metadata, error) // nil: the topic

	mu       sync.Mutex
	take     func(*broker.Append) // nil: append it at once
	answered func()               // of the last appender

	logs  map[id.Partition][]byte
	ends  map[id.Partition]id.Offset
	added chan struct{} // closed and made anew with each batch
}

var topicT = id.Topic{1, 2, 3}

func newLogBroker() *logBroker {
	return &logBroker{logs: make(map[id.Partition][]byte), ends: make(map[id.Partition]id.Offset), added: make(chan struct{})}
}

func (b *logBroker) Metadata(_ context.Context, _ *broker.Caller, q broker.MetadataQuery) (*broker.Metadata, error) {
	if b.metadata != nil {
		return b.metadata(q)
	}
	m := &broker.Metadata{ClusterID: "c", Controller: 1, Nodes: []broker.Node{
		{ID: 1, Alive: true, KafkaAddress: "one:9092", Rack: "r"}, {ID: 2, Alive: true, KafkaAddress: "two:9093"}, {ID: 3, KafkaAddress: "dead:1"}, {ID: 4, Alive: true},
	}}
	names := q.Topics
	if q.All {
		names = []string{"t"}
	}
	for _, name := range names {
		if name != "t" {
			m.Topics = append(m.Topics, broker.Topic{Name: name, Err: kerr.Errorf(kerr.UnknownTopicOrPartition, "none")})
			continue
		}
		m.Topics = append(m.Topics, broker.Topic{Name: name, ID: topicT, Partitions: []broker.Partition{
			{ID: 0, Leader: 1, Epoch: 5, Replicas: []id.Node{1, 2, 3}, ISR: []id.Node{1, 2}}, {ID: 1, Leader: 3, Epoch: 6, Replicas: []id.Node{3}},
		}})
	}
	return m, nil
}

func (b *logBroker) InitProducerID(context.Context, *broker.Caller) (id.Producer, error) {
	return 77, nil
}

func (b *logBroker) ListOffsets(_ context.Context, _ *broker.Caller, queries []broker.OffsetQuery) []broker.Offset {
	answers := make([]broker.Offset, len(queries))
	for i, q := range queries {
		answers[i] = broker.Offset{Offset: id.Offset(100 + q.Partition), Timestamp: q.Time, Leader: 1, Epoch: 5}
		if q.Topic != "t" {
			answers[i] = broker.Offset{Offset: id.NoOffset, Epoch: 5, Err: kerr.Errorf(kerr.UnknownTopicOrPartition, "none")}
		}
	}
	return answers
}

func (b *logBroker) OpenAppender(_ *broker.Caller, answered func()) broker.Appender {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered = answered
	return logAppender{b}
}

type logAppender struct{ *logBroker }

func (a logAppender) End() {}

func (a logAppender) Append(r *broker.Append) {
	a.mu.Lock()
	take := a.take
	a.mu.Unlock()
	if take == nil {
		take = a.append
	}
	take(r)
}

// taking has batches taken by do instead.
func (b *logBroker) taking(do func(*broker.Append)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.take = do
}

// endTurn tells the last appender's owner that outcomes have been said.
func (b *logBroker) endTurn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answered()
}

// stored is what a partition has.
func (b *logBroker) stored(p id.Partition) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.logs[p]
}

func (b *logBroker) append(r *broker.Append) {
	r.Err, r.BaseOffset = nil, b.add(r.Partition, r.Batch)
	r.Done(r)
}

func (b *logBroker) add(p id.Partition, records batch.Batch) id.Offset {
	b.mu.Lock()
	defer b.mu.Unlock()
	base := b.ends[p]
	at := len(b.logs[p])
	b.logs[p] = append(b.logs[p], records...)
	batch.Batch(b.logs[p][at:]).Stamp(base, 5)
	b.ends[p] = base + id.Offset(records.Count())
	close(b.added)
	b.added = make(chan struct{})
	return base
}

func (b *logBroker) OpenFetcher(*broker.Caller) broker.Fetcher { return &logFetcher{logBroker: b} }

// logFetcher serves each subscription in turn, one batch at a time.
type logFetcher struct {
	*logBroker
	subscriptions []broker.Subscription
	said          map[broker.SubscriptionID]bool
	seen          chan struct{}
}

func (f *logFetcher) Subscribe(s broker.Subscription) error {
	f.subscriptions = append(f.subscriptions, s)
	return nil
}

func (f *logFetcher) Credit(broker.SubscriptionID, int64) error { return nil }

func (f *logFetcher) Unsubscribe(which broker.SubscriptionID) {
	for i := range f.subscriptions {
		if f.subscriptions[i].ID == which {
			f.subscriptions = append(f.subscriptions[:i], f.subscriptions[i+1:]...)
			return
		}
	}
}

func (f *logFetcher) Serve(sink broker.FetchSink) (bool, error) {
	f.mu.Lock()
	f.seen = f.added
	f.mu.Unlock()
	for i := range f.subscriptions {
		s := &f.subscriptions[i]
		if s.Topic != topicT {
			which := s.ID
			f.Unsubscribe(which)
			return true, sink.Append(broker.FetchEvent{
				Subscription: which, HighWatermark: id.NoOffset, LogStart: id.NoOffset, Err: kerr.Errorf(kerr.UnknownTopicOrPartition, "none"), Leader: id.NoNode,
			})
		}
		if f.said == nil {
			f.said = make(map[broker.SubscriptionID]bool)
		}
		f.mu.Lock()
		records, end := f.logs[s.Partition], f.ends[s.Partition]
		f.mu.Unlock()
		e := broker.FetchEvent{Subscription: s.ID, HighWatermark: end, LogStart: 0}
		var next batch.Batch
		for rest := records; len(rest) > 0 && s.Credit > 0; {
			first, after, err := batch.Next(rest)
			if err != nil {
				return false, err
			}
			if first.BaseOffset() >= s.Offset {
				next = first
				break
			}
			rest = after
		}
		switch {
		case next != nil:
			return true, sink.AppendRead(e, func(dst []byte) ([]byte, error) {
				s.Offset, s.Credit = next.NextOffset(), s.Credit-int64(len(next))
				return append(dst, next...), nil
			})
		case !f.said[s.ID]:
			f.said[s.ID] = true
			return true, sink.Append(e)
		}
	}
	return false, nil
}

func (f *logFetcher) ServeEnded(broker.FetchSink) error { return nil }
func (f *logFetcher) Throttle() time.Duration           { return 0 }
func (f *logFetcher) Close()                            {}

func (f *logFetcher) Wait(ctx context.Context) error {
	select {
	case <-f.seen:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// served is a server over a broker, and what it logs.
type served struct {
	t      *testing.T
	server *Server
	log    *rpctest.Log
}

func serve(t *testing.T, b broker.Broker, change func(*Options)) *served {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &served{t: t, log: &rpctest.Log{}}
	o := Options{Listener: listener, Broker: b, Node: 1, ClusterID: "c", Logger: slog.New(slog.NewTextHandler(s.log, nil))}
	if change != nil {
		change(&o)
	}
	s.server = NewServer(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(t, s.server.Close(ctx))
		require.Zero(t, s.server.requests.Used(), "memory of requests is not given back")
		require.Zero(t, s.server.answers.Used(), "memory of answers is not given back")
		require.Zero(t, s.server.Connections())
	})
	return s
}

// patience is how long anything may take.
const patience = 20 * time.Second

// wire is a client's end of a connection.
type wire struct {
	t *testing.T
	net.Conn
}

func (s *served) dial() *wire {
	s.t.Helper()
	c, err := net.Dial("tcp", s.server.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	require.NoError(s.t, c.SetDeadline(time.Now().Add(patience)))
	return &wire{s.t, c}
}

// frameOf is a request as it travels.
func frameOf(correlation int32, req kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester")).AppendRequest(nil, req, correlation)
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	_, err := w.Write(b)
	require.NoError(w.t, err)
}

func (w *wire) send(correlation int32, req kmsg.Request) {
	w.t.Helper()
	w.write(frameOf(correlation, req))
}

// receive reads the next answer: its correlation id and the rest.
func (w *wire) receive() (int32, []byte) {
	w.t.Helper()
	head := make([]byte, 4)
	_, err := io.ReadFull(w, head)
	require.NoError(w.t, err)
	body := make([]byte, binary.BigEndian.Uint32(head))
	_, err = io.ReadFull(w, body)
	require.NoError(w.t, err)
	return int32(binary.BigEndian.Uint32(body)), body[4:]
}

// answer reads the answer to a request, which has to be the next.
func (w *wire) answer(correlation int32, req kmsg.Request) kmsg.Response {
	w.t.Helper()
	got, body := w.receive()
	require.Equal(w.t, correlation, got)
	resp := req.ResponseKind()
	r := kbin.Reader{Src: body}
	if resp.IsFlexible() && req.Key() != kmsg.ApiVersions.Int16() {
		kmsg.SkipTags(&r)
	}
	require.NoError(w.t, resp.ReadFrom(r.Src))
	return resp
}

func (w *wire) ask(req kmsg.Request) kmsg.Response {
	w.t.Helper()
	w.send(9, req)
	return w.answer(9, req)
}

// closed expects the server to have closed the connection, without a word.
func (w *wire) closed() {
	w.t.Helper()
	n, err := w.Read(make([]byte, 1))
	require.Zero(w.t, n)
	var timeout net.Error
	require.False(w.t, err == nil || errors.As(err, &timeout) && timeout.Timeout(), "it is open: %v", err)
}

// logged waits for a line.
func (s *served) logged(text string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return strings.Contains(s.log.String(), text) }, patience, time.Millisecond, "no line with %q in:\n%s", text, s.log)
}

// records is a batch with n records of some bytes.
func records(t testing.TB, n, size int) batch.Batch {
	t.Helper()
	var b batch.Builder
	for range n {
		b.Append(batch.Record{Timestamp: 1000, Value: make([]byte, size)})
	}
	out, err := b.Finish(nil, batch.Plain(batch.None))
	require.NoError(t, err)
	return out
}

func produceRequest(version, acks int16, parts map[int32]batch.Batch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 1000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "t"
	for i := int32(0); len(topic.Partitions) < len(parts); i++ {
		if b, ok := parts[i]; ok {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records = i, b
			topic.Partitions = append(topic.Partitions, p)
		}
	}
	req.Topics = append(req.Topics, topic)
	return req
}

func fetchRequest(version int16, most int32, parts ...int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxBytes, req.MinBytes, req.MaxWaitMillis = version, most, 1, int32(patience.Milliseconds())
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = "t", topicT
	for _, number := range parts {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.PartitionMaxBytes = number, 1<<20
		topic.Partitions = append(topic.Partitions, p)
	}
	req.Topics = append(req.Topics, topic)
	return req
}
