package kafka

// Produce 3-11; 0-2 are advertised and refused, since old releases of librdkafka send gzip and snappy uncompressed to whom does not advertise
// them (KAFKA-18659). The request is decoded by hand: its batches stay in the memory that they came in, and the log takes them from there.
// Deviations: no transactions. What is refused for want of room, THROTTLING_QUOTA_EXCEEDED in the native protocol, is told as
// NOT_ENOUGH_REPLICAS, which all clients take for what it is: nothing was written, try again. No broker stamps records, so there is no log
// append time, and the log start is not told.

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	leastProduce = 3 // the oldest version that is not refused
	// flexibleProduce is the first version with compact fields, zstdProduce the first whose clients know zstd.
	flexibleProduce = 9
	zstdProduce     = 7
	// maxPartitions bounds the partitions of one request: each costs more memory than it takes on the wire.
	maxPartitions = 10_000
)

// produce is a request on its way through its partitions. They go round through a pool.
type produce struct {
	conn    *conn
	acks    broker.Acks
	timeout time.Duration
	refusal *kerr.Error // of all of it
	topics  []produceTopic
	parts   []part
	cost    int
	// pending is how many parts have no outcome, and one more until all of them are appended. At zero the writer may have it.
	pending atomic.Int32
}

type produceTopic struct {
	name   []byte // in the frame until the request is appended
	text   string // the same
	id     id.Topic
	err    *kerr.Error
	first  int // of parts
	number int
}

// part is one partition's batch.
type part struct {
	broker.Append
	produce *produce
}

var produces = sync.Pool{New: func() any { return new(produce) }}

// keptParts is the largest request whose memory is used again.
const keptParts = 1000

func (p *produce) recycle() {
	if cap(p.parts) > keptParts || cap(p.topics) > keptParts {
		return
	}
	clear(p.parts)
	clear(p.topics)
	p.conn, p.refusal, p.topics, p.parts = nil, nil, p.topics[:0], p.parts[:0]
	produces.Put(p)
}

// receiveProduce appends the batches of a request. The frame is given back when the broker has what it needs of it.
func (c *conn) receiveProduce(t *turn, frame *memory.Buffer, r *kbin.Reader) error {
	defer frame.Release()
	p := produces.Get().(*produce)
	if err := p.parse(t.version, r); err != nil {
		c.answered(t.cost)
		return err
	}
	p.conn, p.cost, t.produce = c, t.cost, p
	p.pending.Store(1)
	if c.appender == nil {
		c.appender = c.server.options.Broker.OpenAppender(t.caller, c.wake)
	}
	c.push(t) // before the first outcome, which may be the last
	for i := range p.topics {
		topic := &p.topics[i]
		topic.text = string(topic.name)
		topic.id, topic.err = c.topics.find(c.ctx, c.server.options.Broker, t.caller, topic.name)
		for j := range p.parts[topic.first : topic.first+topic.number] {
			p.append(topic, &p.parts[topic.first+j], t.version, frame)
		}
	}
	p.done()
	return nil
}

// append has the broker append one batch, or refuses it.
func (p *produce) append(topic *produceTopic, a *part, version int16, frame *memory.Buffer) {
	err := topic.err
	switch {
	case p.refusal != nil:
		err = p.refusal
	case err == nil && version < zstdProduce && len(a.Batch) >= batch.HeaderSize && batch.Batch(a.Batch).Compression() == batch.Zstd:
		err = kerr.Errorf(kerr.UnsupportedCompression, "zstd needs Produce in version %d", zstdProduce)
	}
	p.pending.Add(1)
	a.produce, a.Owner, a.Done = p, a, partDone
	a.Topic, a.Acks, a.Timeout, a.Data, a.Memory = topic.id, p.acks, p.timeout, frame, cap(frame.Bytes)
	if err != nil {
		a.Err, a.BaseOffset, a.Leader = err, id.NoOffset, id.NoNode
		partDone(&a.Append)
		return
	}
	p.conn.appender.Append(&a.Append)
}

// partDone is the outcome of a part. It runs in a turn of a partition.
func partDone(a *broker.Append) {
	p := a.Owner.(*part).produce
	a.Batch, a.Data = nil, nil
	if gone(a.Err) {
		p.conn.topics.forget()
	}
	if a.Err != nil && p.acks == broker.AcksNone {
		p.conn.cancel() // nobody would be told: so the producer looks for the leader again instead of sending into the void
	}
	p.done()
}

// done counts an outcome. With the last one the request is the writer's.
func (p *produce) done() {
	c, cost := p.conn, p.cost
	if p.pending.Add(-1) == 0 {
		c.answered(cost)
	}
}

// parse reads a request behind its header. What is wrong with a batch is the broker's to find.
func (p *produce) parse(version int16, r *kbin.Reader) error {
	f := fields{r, version >= flexibleProduce}
	f.tags() // of the header
	transactional := f.nullable()
	p.acks, p.timeout = broker.Acks(r.Int16()), time.Duration(r.Int32())*time.Millisecond
	for topics := f.array(); topics > 0 && r.Ok(); topics-- {
		topic := produceTopic{name: f.nullable(), first: len(p.parts)}
		topic.number = f.array()
		if len(p.parts)+topic.number > maxPartitions || len(p.topics) >= maxPartitions {
			return malformedf("Produce with more than %d partitions", maxPartitions)
		}
		for range topic.number {
			a := part{Append: broker.Append{Partition: id.Partition(r.Int32()), Batch: f.bytes()}}
			f.tags()
			p.parts = append(p.parts, a)
		}
		f.tags()
		p.topics = append(p.topics, topic)
	}
	f.tags()
	switch {
	case !r.Ok():
		return malformedf("Produce in version %d cannot be understood", version)
	case version < leastProduce:
		p.refusal = kerr.Errorf(kerr.UnsupportedVersion, "Produce below version %d has records in a form that is not taken any more", leastProduce)
	case transactional != nil:
		p.refusal = kerr.Errorf(kerr.UnsupportedVersion, "transactions are not served")
	case p.acks < broker.AcksAll || p.acks > broker.AcksLeader:
		p.refusal = kerr.Errorf(kerr.InvalidRequiredAcks, "acks has to be -1, 0 or 1")
	}
	return nil
}

// response is what the client is told.
func (p *produce) response(version int16) *kmsg.ProduceResponse {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = version
	resp.Topics = make([]kmsg.ProduceResponseTopic, len(p.topics))
	parts := make([]kmsg.ProduceResponseTopicPartition, len(p.parts))
	var throttle time.Duration
	for i := range p.topics {
		topic := &p.topics[i]
		resp.Topics[i].Topic = topic.text
		resp.Topics[i].Partitions = parts[topic.first : topic.first+topic.number]
		for j := range resp.Topics[i].Partitions {
			a := &p.parts[topic.first+j]
			throttle = max(throttle, a.Throttle)
			a.tell(&resp.Topics[i].Partitions[j])
		}
	}
	resp.ThrottleMillis = int32(throttle.Milliseconds())
	return resp
}

func (a *part) tell(to *kmsg.ProduceResponseTopicPartition) {
	to.Default()
	to.Partition, to.BaseOffset = int32(a.Partition), int64(a.BaseOffset)
	if a.Err == nil {
		return
	}
	code := a.Err.Code
	if code == kerr.ThrottlingQuotaExceeded {
		code = kerr.NotEnoughReplicas
	}
	to.ErrorCode, to.ErrorMessage = int16(code), &a.Err.Message
	if code == kerr.NotLeaderOrFollower && a.Leader != id.NoNode {
		to.CurrentLeader.LeaderID, to.CurrentLeader.LeaderEpoch = int32(a.Leader), int32(a.Epoch)
	}
	if code == kerr.InvalidTimestamp || code == kerr.InvalidRecord {
		record := kmsg.NewProduceResponseTopicPartitionErrorRecord()
		record.ErrorMessage = &a.Err.Message
		to.ErrorRecords = append(to.ErrorRecords, record)
	}
}

// fields reads the fields whose form depends on the version: compact, or not.
type fields struct {
	*kbin.Reader
	compact bool
}

// nullable is a string, as it stands in what is read; nil: there is none.
func (f fields) nullable() []byte {
	n := 0
	if f.compact {
		n = int(f.Uvarint()) - 1
	} else {
		n = int(f.Int16())
	}
	if n < 0 {
		return nil
	}
	if b := f.Span(n); b != nil {
		return b
	}
	return []byte{}
}

// bytes are as they stand in what is read.
func (f fields) bytes() []byte {
	if f.compact {
		return f.CompactNullableBytes()
	}
	return f.NullableBytes()
}

// array is the length of an array, never more than there can be.
func (f fields) array() int {
	if f.compact {
		return int(max(f.CompactArrayLen(), 0))
	}
	return int(max(f.ArrayLen(), 0))
}

func (f fields) tags() {
	if f.compact {
		kmsg.SkipTags(f.Reader)
	}
}
