package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
)

// turn is a request whose answer is to be sent, when it is its turn.
type turn struct {
	header
	caller *broker.Caller
	cost   int // bytes that it holds of the connection's share

	unserved bool     // ApiVersions in a version that is not served
	produce  *produce // nil: the rest has the request
	api      *api
	frame    *memory.Buffer
	body     []byte // of frame
}

// queue is the turns of a connection, in the order of their requests. It is bounded by the reader, which stops reading: awaitRoom.
type queue struct {
	mu    sync.Mutex
	turns []*turn
	over  bool          // no more come
	woken chan struct{} // capacity 1: there is something to look at
}

func (q *queue) push(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns = append(q.turns, t)
}

// waiting is how many turns there are.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.turns)
}

// end says that no more come.
func (q *queue) end() {
	q.mu.Lock()
	q.over = true
	q.mu.Unlock()
	q.wake()
}

// drop gives back what nobody answers any more. Batches give theirs back when they have their outcomes.
func (c *conn) drop() {
	for _, t := range c.turns {
		if t.frame != nil {
			t.frame.Release()
		}
		if t.produce == nil {
			c.answered(t.cost)
		}
	}
	c.turns = nil
}

// wake has the writer look. It does not block: turns of partitions call it.
func (q *queue) wake() {
	select {
	case q.woken <- struct{}{}:
	default:
	}
}

// next takes the first turn if it can be answered now; nil: not yet, or, if over, never.
func (q *queue) next() (t *turn, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turns) == 0 {
		return nil, q.over
	}
	t = q.turns[0]
	if t.produce != nil && t.produce.pending.Load() > 0 {
		return nil, false
	}
	q.turns[0] = nil
	if q.turns = q.turns[1:]; len(q.turns) == 0 {
		q.turns = nil
	}
	return t, false
}

// writer is what the goroutine has that answers.
type writer struct {
	out     *memory.Buffer // answers that are not written; nil: none, an idle connection holds no memory
	answers *budget.Share
	fetcher broker.Fetcher
	lastID  broker.SubscriptionID // that was given
	names   topics                // of Fetch
}

// flushBytes is from how much on answers are written though more could be said.
const flushBytes = 64 << 10

// write answers requests in their order, until there are no more. It flushes before it waits.
func (c *conn) write() error {
	defer func() {
		if c.fetcher != nil {
			c.fetcher.Close()
		}
		if c.out != nil {
			c.out.Release()
		}
	}()
	for {
		t, over := c.next()
		if t == nil {
			if err := c.flush(); err != nil || over {
				return err
			}
			select {
			case <-c.woken:
			case <-c.ctx.Done():
				return nil
			}
			continue
		}
		if err := c.answer(t); err != nil {
			return err
		}
		if c.out != nil && len(c.out.Bytes) > flushBytes {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}

// answer answers one request, whose memory is free then.
func (c *conn) answer(t *turn) error {
	switch {
	case t.produce != nil: // its memory was given back when the batches had their outcomes
		if t.produce.acks != broker.AcksNone {
			c.say(t, t.produce.response(t.version))
		}
		t.produce.recycle()
		c.madeRoom()
		return nil
	case t.unserved:
		defer c.answered(t.cost)
		c.say(t, c.server.apiVersions(0, kerr.UnsupportedVersion))
		return nil
	}
	defer func() {
		t.frame.Release()
		c.answered(t.cost)
	}()
	req, err := c.decode(t)
	if err != nil {
		return err
	}
	if fetch, ok := req.(*kmsg.FetchRequest); ok {
		return c.fetch(t, fetch)
	}
	resp := t.api.answer(&call{ctx: c.ctx, server: c.server, caller: t.caller, version: t.version}, req)
	if resp == nil {
		return malformedf("a request that cannot be answered: %s in version %d", t.api.key.Name(), t.version)
	}
	resp.SetVersion(t.version)
	c.say(t, resp)
	return nil
}

// decode makes a message of a request. Large ones take turns in the node.
func (c *conn) decode(t *turn) (kmsg.Request, error) {
	if len(t.body) > smallMessage {
		if err := c.server.decoding.Acquire(c.ctx, 1); err != nil {
			return nil, err
		}
		defer c.server.decoding.Release(1)
	}
	return t.decode()
}

// say encodes an answer behind the others.
func (c *conn) say(t *turn, resp kmsg.Response) {
	if c.out == nil {
		c.out = memory.New(0)
	}
	at := len(c.out.Bytes)
	b := append(c.out.Bytes, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(t.correlation))
	if resp.IsFlexible() && t.key != kmsg.ApiVersions.Int16() { // whose answer has the oldest header, in all versions
		b = append(b, 0) // no tags
	}
	b = resp.AppendTo(b)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	c.out.Bytes = b
}

// uncounted is an answer that a socket takes whether the client reads or not.
const uncounted = 16 << 10

// flush writes the answers that are waiting.
func (c *conn) flush() error {
	b := c.out
	if b == nil {
		return nil
	}
	c.out = nil
	defer b.Release()
	if n := int64(len(b.Bytes)); n > uncounted {
		if c.answers.Take(n) != nil {
			return malformedf("an answer of %d bytes, for which there is no memory: clients do not read theirs", n)
		}
		defer c.answers.Give(n)
	}
	return c.send(net.Buffers{b.Bytes})
}

// leastPace is how many bytes a second a client has to read.
const leastPace = 64 << 10

// send writes, for as long as the client reads at all.
func (c *conn) send(pieces net.Buffers) error {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	patience := stepTimeout + time.Duration(size/leastPace)*time.Second
	_ = c.raw.SetWriteDeadline(time.Now().Add(patience))
	_, err := pieces.WriteTo(c.net)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() && c.ctx.Err() == nil {
		return malformedf("it did not read its answers for %v", patience)
	}
	return err
}

// polling is the context of what waits for records: it ends when the server begins to close.
func (c *conn) polling(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(c.ctx, d)
	stop := context.AfterFunc(c.server.closing, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
