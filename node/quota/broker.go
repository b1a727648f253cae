package quota

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Broker is a broker whose clients have quotas. Where there is none for a client nothing is in the way.
type Broker struct {
	broker.Broker
	engine *Engine
}

// Of puts quotas before a broker.
func (e *Engine) Of(b broker.Broker) *Broker { return &Broker{b, e} }

// appender counts what one connection appends: bytes, and the time that it takes.
type appender struct {
	broker.Appender
	bytes, time Meter
}

// OpenAppender implements broker.Appends.
func (b *Broker) OpenAppender(c *broker.Caller, answered func()) broker.Appender {
	return &appender{b.Broker.OpenAppender(c, answered), b.engine.Meter(quota.ProducerByteRate, c), b.engine.Meter(quota.RequestPercentage, c)}
}

// Append implements broker.Appender.
func (a *appender) Append(r *broker.Append) {
	r.Throttle = 0
	now := time.Now()
	bytes, timed := a.bytes.Limited(now), a.time.Limited(now)
	if !bytes && !timed {
		a.Appender.Append(r)
		return
	}
	for _, m := range [...]struct {
		meter   *Meter
		limited bool
	}{{&a.bytes, bytes}, {&a.time, timed}} {
		if !m.limited {
			continue
		}
		if ahead, refuses := m.meter.Refuses(now); refuses {
			r.Err, r.BaseOffset, r.Leader, r.Epoch = exceeded(m.meter.key, ahead), id.NoOffset, id.NoNode, 0
			r.Throttle = ahead
			r.Done(r)
			return
		}
	}
	if bytes {
		r.Throttle = a.bytes.Use(int64(len(r.Batch)), now)
	}
	if timed {
		r.Throttle = max(r.Throttle, a.time.Ahead(now)) // what this one takes is known when it may have been answered
	}
	a.Appender.Append(r)
	if timed {
		a.time.Use(time.Since(now).Microseconds(), now)
	}
}

func exceeded(key quota.Key, ahead time.Duration) *kerr.Error {
	return kerr.Errorf(kerr.ThrottlingQuotaExceeded, "the client is %v ahead of its quota (%v): it has to pause as the answers to it say", ahead.Round(time.Millisecond), key)
}

// fetcher counts what one connection is sent.
type fetcher struct {
	broker.Fetcher
	meter Meter
	sink  counting
}

// OpenFetcher implements broker.Fetches.
func (b *Broker) OpenFetcher(c *broker.Caller) broker.Fetcher {
	return &fetcher{Fetcher: b.Broker.OpenFetcher(c), meter: b.engine.Meter(quota.ConsumerByteRate, c)}
}

// Serve implements broker.Fetcher.
func (f *fetcher) Serve(sink broker.FetchSink) (bool, error) {
	if now := time.Now(); !f.meter.Limited(now) {
		return f.Fetcher.Serve(sink)
	}
	f.sink = counting{FetchSink: sink}
	more, err := f.Fetcher.Serve(&f.sink)
	f.sink.FetchSink = nil
	if f.sink.bytes > 0 {
		f.meter.Use(f.sink.bytes, time.Now())
	}
	return more, err
}

// Throttle implements broker.Fetcher.
func (f *fetcher) Throttle() time.Duration {
	now := time.Now()
	if !f.meter.Limited(now) {
		return 0
	}
	return f.meter.Ahead(now)
}

// counting counts the bytes of batches.
type counting struct {
	broker.FetchSink
	bytes int64
}

func (c *counting) AppendRead(e broker.FetchEvent, read func(dst []byte) ([]byte, error)) error {
	return c.FetchSink.AppendRead(e, func(dst []byte) ([]byte, error) {
		out, err := read(dst)
		if err == nil {
			c.bytes += int64(len(out) - len(dst))
		}
		return out, err
	})
}

// callPatience is how long an administrative call waits until its caller is within his quota.
const callPatience = time.Second

// Call is asked before an administrative call: it waits a moment until the caller is within his quota, and refuses who is far ahead of it.
// done is called when the call has ended.
func (e *Engine) Call(ctx context.Context, c *broker.Caller) (done func(), err error) {
	m := e.Meter(quota.RequestPercentage, c)
	begun := time.Now()
	if !m.Limited(begun) {
		return func() {}, nil
	}
	ahead, refuses := m.Refuses(begun)
	if refuses {
		return nil, exceeded(m.key, ahead)
	}
	if ahead > 0 {
		wait := time.NewTimer(min(ahead, callPatience))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return nil, exceeded(m.key, ahead)
		}
	}
	begun = time.Now()
	return func() {
		if m.Limited(time.Now()) {
			m.Use(time.Since(begun).Microseconds(), time.Now())
		}
	}, nil
}
