package kafka

// Fetch 4-16. The response is encoded by hand: batches are read from the log into the memory that they are sent from. Deviations: there are no
// sessions, each request names all of its partitions (session id 0, which is always legal); the leader epoch that a client believes in is not
// compared, since no log is ever cut back behind what a consumer has seen; there are no followers to read from; without transactions the
// last stable offset is the high watermark, and nothing is aborted.

import (
	"context"
	"encoding/binary"
	"net"
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
	// maxFetchBytes bounds the batches of one response: Kafka's fetch.max.bytes of brokers.
	maxFetchBytes = 55 << 20
	// pieceBytes is about what the broker reads of one partition at a time, pieceRoom the memory that several pieces are read into.
	pieceBytes = 256 << 10
	pieceRoom  = 512 << 10
	// maxPoll bounds how long a client may have the node wait.
	maxPoll = 5 * time.Minute

	flexibleFetch = 12 // compact fields
	topicIDFetch  = 13 // topics by id
)

// poll is a fetch on its way.
type poll struct {
	conn     *conn
	parts    []fetched
	first    broker.SubscriptionID // of the first part
	most     int                   // bytes of batches
	bytes    int                   // so far
	full     bool                  // no more batches, whatever there is
	refused  bool                  // something is wrong with a part: the client is to know at once
	throttle time.Duration
	room     []*memory.Buffer // what has been read; the last has room left
	held     int64            // of the node's memory for answers
}

// fetched is what is said of a partition.
type fetched struct {
	partition    int32
	err          *kerr.Error
	hw, logStart id.Offset
	leader       id.Node
	epoch        id.Epoch
	pieces       [][]byte
	bytes        int
}

// fetch answers a Fetch: it serves until there is enough, or the time is over.
func (c *conn) fetch(t *turn, req *kmsg.FetchRequest) error {
	if req.SessionID != 0 { // no such was ever given out
		return c.sendFetch(t, &kmsg.FetchRequest{}, &poll{conn: c}, kerr.FetchSessionIDNotFound)
	}
	if c.fetcher == nil {
		c.fetcher = c.server.options.Broker.OpenFetcher(t.caller)
	}
	p := &poll{conn: c, first: c.lastID + 1, most: min(max(int(req.MaxBytes), 0), maxFetchBytes)}
	defer p.release()
	if err := p.subscribe(t, req); err != nil {
		return err
	}
	defer func() {
		for i := range p.parts {
			c.fetcher.Unsubscribe(p.first + broker.SubscriptionID(i))
		}
	}()
	wait := min(max(time.Duration(req.MaxWaitMillis)*time.Millisecond, 0), maxPoll)
	ctx, cancel := c.polling(wait)
	defer cancel()
	if err := p.serve(ctx, max(int(req.MinBytes), 0), wait); err != nil {
		return err
	}
	if c.ctx.Err() != nil {
		return nil
	}
	return c.sendFetch(t, req, p, kerr.None)
}

// subscribe begins to read what is asked for.
func (p *poll) subscribe(t *turn, req *kmsg.FetchRequest) error {
	c := p.conn
	for i := range req.Topics {
		topic := &req.Topics[i]
		which, err := id.Topic(topic.TopicID), (*kerr.Error)(nil)
		if t.version < topicIDFetch {
			which, err = c.names.find(c.ctx, c.server.options.Broker, t.caller, []byte(topic.Topic))
		}
		for j := range topic.Partitions {
			asked := &topic.Partitions[j]
			c.lastID++
			p.parts = append(p.parts, fetched{partition: asked.Partition, err: err, hw: id.NoOffset, logStart: id.NoOffset, leader: id.NoNode})
			if err != nil {
				p.refused = true
				continue
			}
			if err := c.fetcher.Subscribe(broker.Subscription{
				ID: c.lastID, Topic: which, Partition: id.Partition(asked.Partition), Offset: id.Offset(asked.FetchOffset),
				Credit: int64(min(max(int(asked.PartitionMaxBytes), 1), max(p.most, 1))),
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve takes what the broker has to say until that is enough.
func (p *poll) serve(ctx context.Context, enough int, wait time.Duration) error {
	f := p.conn.fetcher
	if throttle := f.Throttle(); throttle > 0 {
		return p.pause(ctx, throttle)
	}
	for !p.full {
		more, err := f.Serve(p)
		switch {
		case err != nil:
			return err
		case more:
			continue
		case p.bytes >= enough || p.refused || wait == 0 || f.Wait(ctx) != nil:
			p.throttle = f.Throttle()
			return nil
		}
	}
	p.throttle = f.Throttle()
	return nil
}

// pause is the poll of a client that is ahead of its quota: it is told what has ended, and waits its time, as far as it wants to wait.
func (p *poll) pause(ctx context.Context, throttle time.Duration) error {
	if err := p.conn.fetcher.ServeEnded(p); err != nil {
		return err
	}
	timer := time.NewTimer(throttle)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	p.throttle = p.conn.fetcher.Throttle()
	return nil
}

// part is what an event is about.
func (p *poll) part(e broker.FetchEvent) *fetched {
	part := &p.parts[e.Subscription-p.first]
	part.hw, part.logStart = max(part.hw, e.HighWatermark), e.LogStart
	if e.Err != nil {
		part.err, part.leader, part.epoch, p.refused = e.Err, e.Leader, e.Epoch, true
		if gone(e.Err) {
			p.conn.names.forget()
		}
	}
	return part
}

// Append implements broker.FetchSink.
func (p *poll) Append(e broker.FetchEvent) error {
	p.part(e)
	return nil
}

// AppendRead implements broker.FetchSink. The first batch is taken however large it is; what does not fit then is read again by the next poll.
func (p *poll) AppendRead(e broker.FetchEvent, read func(dst []byte) ([]byte, error)) error {
	b := p.roomFor(pieceBytes)
	if b == nil {
		p.full = true
		return nil
	}
	at := len(b.Bytes)
	out, err := read(b.Bytes)
	if err != nil {
		return err
	}
	if extra := int64(cap(out) - cap(b.Bytes)); extra > 0 { // a batch that is larger than a piece
		if p.conn.answers.Take(extra) == nil {
			p.held += extra
		} else {
			p.full = true // with this one
		}
	}
	piece := out[at:]
	if p.bytes+len(piece) >= p.most {
		p.full = true
		piece = piece[:whole(piece, p.most-p.bytes, p.bytes == 0)]
	}
	b.Bytes = out[:at+len(piece)]
	part := p.part(e)
	if len(piece) > 0 {
		part.pieces = append(part.pieces, piece[:len(piece):len(piece)])
	}
	part.bytes += len(piece)
	p.bytes += len(piece)
	return nil
}

// roomFor returns a buffer with room for n bytes more; nil: the node has no memory for it.
func (p *poll) roomFor(n int) *memory.Buffer {
	if len(p.room) > 0 {
		if last := p.room[len(p.room)-1]; cap(last.Bytes)-len(last.Bytes) >= n {
			return last
		}
	}
	if p.conn.answers.Take(pieceRoom) != nil {
		return nil
	}
	p.held += pieceRoom
	b := memory.New(pieceRoom)
	b.Bytes = b.Bytes[:0]
	p.room = append(p.room, b)
	return b
}

func (p *poll) release() {
	for _, b := range p.room {
		b.Release()
	}
	p.conn.answers.Give(p.held)
}

// whole returns how much of some batches are whole ones that fit; with one at least the first is.
func whole(b []byte, most int, one bool) int {
	n := 0
	for rest := b; len(rest) > 0; {
		first, after, err := batch.Next(rest)
		if err != nil || n+len(first) > most && (n > 0 || !one) {
			break
		}
		n, rest = n+len(first), after
	}
	return n
}

// sendFetch writes the answer: what is said about each partition, and behind it its batches, from where they are.
func (c *conn) sendFetch(t *turn, req *kmsg.FetchRequest, p *poll, code kerr.Code) error {
	if err := c.flush(); err != nil {
		return err
	}
	head := memory.New(0)
	defer head.Release()
	e := fetchEncoder{version: t.version, dst: head.Bytes}
	e.dst = binary.BigEndian.AppendUint32(e.dst, 0) // the size
	e.dst = binary.BigEndian.AppendUint32(e.dst, uint32(t.correlation))
	e.tags()
	e.dst = kbin.AppendInt32(e.dst, int32(p.throttle.Milliseconds()))
	if t.version >= 7 {
		e.dst = kbin.AppendInt16(e.dst, int16(code))
		e.dst = kbin.AppendInt32(e.dst, 0) // the session
	}
	e.array(len(req.Topics))
	parts := p.parts
	for i := range req.Topics {
		topic := &req.Topics[i]
		e.topic(topic)
		for j := range topic.Partitions {
			e.partition(&parts[j])
		}
		parts = parts[len(topic.Partitions):]
		e.tags()
	}
	e.tags()
	pieces, size := e.pieces()
	binary.BigEndian.PutUint32(e.dst, uint32(size-4))
	head.Bytes = e.dst
	return c.send(pieces)
}

// fetchEncoder appends what stands between batches, and notes where they belong.
type fetchEncoder struct {
	version int16
	dst     []byte
	gaps    []gap
}

// gap is where batches belong.
type gap struct {
	at     int // of dst
	pieces [][]byte
}

func (e *fetchEncoder) flexible() bool { return e.version >= flexibleFetch }

func (e *fetchEncoder) tags() {
	if e.flexible() {
		e.dst = append(e.dst, 0)
	}
}

func (e *fetchEncoder) array(n int) {
	if e.flexible() {
		e.dst = kbin.AppendCompactArrayLen(e.dst, n)
	} else {
		e.dst = kbin.AppendArrayLen(e.dst, n)
	}
}

func (e *fetchEncoder) topic(t *kmsg.FetchRequestTopic) {
	switch {
	case e.version >= topicIDFetch:
		e.dst = append(e.dst, t.TopicID[:]...)
	case e.flexible():
		e.dst = kbin.AppendCompactString(e.dst, t.Topic)
	default:
		e.dst = kbin.AppendString(e.dst, t.Topic)
	}
	e.array(len(t.Partitions))
}

func (e *fetchEncoder) partition(p *fetched) {
	e.dst = kbin.AppendInt32(e.dst, p.partition)
	e.dst = kbin.AppendInt16(e.dst, codeOf(p.err))
	e.dst = kbin.AppendInt64(e.dst, int64(p.hw))
	e.dst = kbin.AppendInt64(e.dst, int64(p.hw)) // the last stable offset
	if e.version >= 5 {
		e.dst = kbin.AppendInt64(e.dst, int64(p.logStart))
	}
	if e.flexible() { // nothing is aborted: null
		e.dst = append(e.dst, 0)
	} else {
		e.dst = kbin.AppendInt32(e.dst, -1)
	}
	if e.version >= 11 {
		e.dst = kbin.AppendInt32(e.dst, -1) // no other replica is better
	}
	if e.flexible() {
		e.dst = kbin.AppendUvarint(e.dst, uint32(p.bytes)+1)
	} else {
		e.dst = kbin.AppendInt32(e.dst, int32(p.bytes)) // never null: old clients take that for an error
	}
	if p.bytes > 0 {
		e.gaps = append(e.gaps, gap{len(e.dst), p.pieces})
	}
	if e.flexible() {
		e.partitionTags(p)
	}
}

// partitionTags tells who leads, if it is not this node.
func (e *fetchEncoder) partitionTags(p *fetched) {
	if p.err == nil || p.err.Code != kerr.NotLeaderOrFollower || p.leader == id.NoNode {
		e.dst = append(e.dst, 0)
		return
	}
	const currentLeader, size = 1, 4 + 4 + 1
	e.dst = append(e.dst, 1, currentLeader, size)
	e.dst = kbin.AppendInt32(e.dst, int32(p.leader))
	e.dst = kbin.AppendInt32(e.dst, int32(p.epoch))
	e.dst = append(e.dst, 0)
}

// pieces is the whole answer.
func (e *fetchEncoder) pieces() (out net.Buffers, size int) {
	at := 0
	for _, g := range e.gaps {
		out = append(append(out, e.dst[at:g.at]), g.pieces...)
		at = g.at
	}
	out = append(out, e.dst[at:])
	for _, b := range out {
		size += len(b)
	}
	return out, size
}
