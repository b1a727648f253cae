package serving

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// maxInFlight bounds the bytes of unanswered batches of one connection. It is what clients are told; a client that sends more all the same
	// is answered with THROTTLING_QUOTA_EXCEEDED, never by not reading: a connection that is not read does not even notice that its client is gone.
	maxInFlight = 32 << 20
	// defaultInFlight bounds those of all connections: beyond it each gets a fair share, but at least leastInFlight.
	defaultInFlight = 256 << 20
	leastInFlight   = 64 << 10
)

// defaultProduceTimeout is how long a batch may wait for its commit if its producer does not say. Kafka's request.timeout.ms.
const defaultProduceTimeout = 30 * time.Second

// appender is what one connection appends.
type appender struct {
	broker    *Broker
	permits   *broker.Permits
	answered  func()
	inFlight  *budget.Share // bytes
	unflushed atomic.Bool   // in the list of Turns
}

// OpenAppender implements broker.Appends.
func (b *Broker) OpenAppender(c *broker.Caller, answered func()) broker.Appender {
	return &appender{
		broker: b, permits: broker.NewPermits(b.o.Authorizer, c), answered: answered, inFlight: b.inFlight.Share(maxInFlight),
	}
}

// proposal is an appended batch on its way through its partition. Proposals go round through a pool.
type proposal struct {
	raftgroup.Proposal
	appender *appender
	group    *raftgroup.Group
	request  *broker.Append
	size     int
	data     broker.Loan // keeps the batch; nil: it is in buffer
	buffer   []byte
}

var proposals = sync.Pool{New: func() any { return new(proposal) }}

// keep has the proposal hold a batch beyond the call that lent it. A batch that is most of the memory it came in stays there; others are
// copied, or a few of them would keep the memory of many.
func (w *proposal) keep(a *broker.Append) []byte {
	w.size = len(a.Batch)
	if a.Data != nil && a.Memory <= 2*w.size {
		a.Data.Retain()
		w.data = a.Data
		return a.Batch
	}
	w.buffer = append(w.buffer[:0], a.Batch...)
	return w.buffer
}

// Append implements broker.Appender. It must not block: the partition answers through proposed, in a turn of its worker.
func (a *appender) Append(r *broker.Append) {
	now := time.Now()
	p, err := a.admit(r, now)
	if err == nil && a.inFlight.Take(int64(len(r.Batch))) != nil {
		err = kerr.Errorf(kerr.ThrottlingQuotaExceeded, "%d bytes of batches of this connection wait for an answer, of which node %d takes %d from a connection, and less while it has many of others: wait for answers",
			a.inFlight.Held(), a.broker.o.Node, maxInFlight)
	}
	if err != nil {
		refuse(r, err, nil)
		r.Done(r)
		return
	}
	w := proposals.Get().(*proposal)
	w.appender, w.group, w.request = a, p.Group(), r
	timeout := r.Timeout
	if timeout == 0 {
		timeout = defaultProduceTimeout
	}
	w.Proposal = raftgroup.Proposal{Batch: w.keep(r), Acks: raftgroup.AcksAll, Deadline: now.Add(timeout), Done: proposed, Owner: w}
	if r.Acks != broker.AcksAll {
		w.Proposal.Acks = raftgroup.AcksLeader
	}
	a.broker.o.Host.Visit().Propose(w.group, &w.Proposal)
}

// End implements broker.Appender.
func (a *appender) End() { a.broker.o.Host.Visit().End() }

// admit finds the partition and makes the checks that need no log. This is where a caller is told that he may not write here, or writes too
// much: before anything of his is kept.
func (a *appender) admit(r *broker.Append, now time.Time) (*partition.Partition, error) {
	o := &a.broker.o
	pressure := o.Pressure()
	p := o.Replicas.Find(r.Topic, r.Partition)
	if p == nil {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "node %d has no replica of partition %d of topic %v", o.Node, r.Partition, r.Topic)
	}
	if err := a.permits.Topic("Produce", p.TopicPartition.Topic); err != nil {
		return nil, err
	}
	switch {
	case pressure == wal.PressureThrottle && p.Group().IsLeader(): // who does not lead says who does
		return nil, kerr.Errorf(kerr.ThrottlingQuotaExceeded, "node %d has as many records in memory as it may: its disk or its followers are behind", o.Node)
	case pressure == wal.PressureNoSpace && p.Group().IsLeader():
		return nil, kerr.Errorf(kerr.StorageError, "the disk of node %d is full: %v: delete topics, free space otherwise or add a node", o.Node, o.Space())
	default:
		if err := p.Check(r.Batch, now); err != nil {
			return nil, err
		}
		if r.Acks != broker.AcksAll && batch.Batch(r.Batch).Producer() != id.NoProducer {
			return nil, kerr.Errorf(kerr.InvalidRequiredAcks, "an idempotent producer needs acks=all, not %d", r.Acks)
		}
		return p, nil
	}
}

// proposed is the end of every proposal; it runs in a turn of the partition's worker, on whichever goroutine that is, or on the caller's
// when the proposal was refused at once.
func proposed(p *raftgroup.Proposal) {
	w := p.Owner.(*proposal)
	a, r, size := w.appender, w.request, int64(w.size)
	if err := p.Result.Err; err != nil {
		refuse(r, err, w.group)
	} else {
		r.Err, r.BaseOffset, r.Leader, r.Epoch = nil, p.Result.Offset, a.broker.o.Node, id.EpochOf(p.Result.Term)
	}
	a.inFlight.Give(size) // before the answer, or who has it would be refused for what is answered
	r.Done(r)             // from here on it is not ours
	a.broker.o.Turns.add(a)
	if w.data != nil {
		w.data.Release()
	}
	w.appender, w.group, w.request, w.data, w.Proposal = nil, nil, nil, nil, raftgroup.Proposal{}
	proposals.Put(w)
}

// refuse notes why a batch did not get in.
func refuse(r *broker.Append, err error, group *raftgroup.Group) {
	r.Err, r.BaseOffset = Refusal(err), id.NoOffset
	r.Leader, r.Epoch = leaderOfRefusal(r.Err, group)
}

// leaderOfRefusal returns whom to name as the leader when a client is refused, and in which epoch. Both come from one look at the group: a
// client believes the newer epoch, so an old leader must not be named with a new one. The refusal may be older than the look.
func leaderOfRefusal(e *kerr.Error, group *raftgroup.Group) (id.Node, id.Epoch) {
	if e.Code != kerr.NotLeaderOrFollower || group == nil || group.Failed() {
		return e.Leader, 0
	}
	_, leader, term := group.Leader()
	return leader, id.EpochOf(term)
}
