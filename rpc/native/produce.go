package native

import (
	"sync"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// producer is one producer's stream.
type producer struct {
	stream   *rpc.ProduceStream
	appender broker.Appender
}

// request is a batch that has not been answered. Requests go round through a pool, so a batch in flight costs no allocation in the long run.
type request struct {
	broker.Append
	producer    *producer
	correlation uint64
}

var requests = sync.Pool{New: func() any { return new(request) }}

// Produce returns the service of produce streams over a broker.
func Produce(b broker.Appends) func(*rpc.ProduceStream) error {
	return func(stream *rpc.ProduceStream) error {
		p := &producer{stream: stream, appender: b.OpenAppender(stream.Caller(), stream.Flush)}
		return stream.Recv(p.receive, p.appender.End)
	}
}

// receive takes one request off the wire. It must not block.
func (p *producer) receive(r rpc.ProduceRequest) {
	w := requests.Get().(*request)
	w.producer, w.correlation = p, r.Correlation
	w.Append = broker.Append{
		Topic: r.Topic, Partition: r.Partition, Acks: broker.Acks(r.Acks), Timeout: r.Timeout,
		Batch: r.Batch, Data: r.Data, Memory: r.Memory, Done: answer, Owner: w,
	}
	p.appender.Append(&w.Append)
}

// answer sends the outcome of a request. With acks=0 nobody waits for it: when the batch did not get in the stream is closed, so that the
// producer looks for the leader again instead of sending into the void.
func answer(a *broker.Append) {
	w := a.Owner.(*request)
	stream, refused := w.producer.stream, a.Err
	if a.Throttle > 0 {
		stream.Throttle(a.Throttle)
	}
	switch {
	case a.Acks == broker.AcksNone && refused != nil:
		stream.Fail(refused)
	case a.Acks == broker.AcksNone:
	case refused != nil:
		stream.Send(rpc.ProduceResponse{
			Correlation: w.correlation, Code: refused.Code, BaseOffset: a.BaseOffset, Leader: a.Leader, Epoch: a.Epoch, Message: refused.Message, Oldest: refused.Oldest,
		})
	default:
		stream.Send(rpc.ProduceResponse{Correlation: w.correlation, Code: kerr.None, BaseOffset: a.BaseOffset, Leader: a.Leader, Epoch: a.Epoch})
	}
	*w = request{}
	requests.Put(w)
}
