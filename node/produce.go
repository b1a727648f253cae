package node

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// maxProduceInFlight bounds the bytes of unanswered batches of one produce stream. It is what clients are told; a client that
// sends more all the same is answered with THROTTLING_QUOTA_EXCEEDED, never by not reading: a stream that is not read does not
// even notice that its client is gone.
const maxProduceInFlight = 32 << 20

// defaultProduceTimeout is how long a batch may wait for its commit if its producer does not say. Kafka's request.timeout.ms.
const defaultProduceTimeout = 30 * time.Second

// produceStream is one producer's connection.
type produceStream struct {
	node      *Node
	stream    *rpc.ProduceStream
	inFlight  atomic.Int64 // bytes
	unflushed atomic.Bool  // in the list of node.answers
}

// answers are the producers to whom something was said in turns that have not ended yet: each is flushed once a turn, not once an
// answer.
type answers struct {
	some atomic.Bool

	mu      sync.Mutex // held for no I/O
	streams []*produceStream
}

func (a *answers) add(s *produceStream) {
	if s.unflushed.Load() || s.unflushed.Swap(true) {
		return
	}
	a.mu.Lock()
	a.streams = append(a.streams, s)
	a.mu.Unlock()
	a.some.Store(true)
}

// flush is called at the end of each turn. What another worker's turn said meanwhile goes along.
func (a *answers) flush() {
	if !a.some.Load() || !a.some.Swap(false) {
		return
	}
	a.mu.Lock()
	streams := a.streams
	a.streams = nil
	a.mu.Unlock()
	for i, s := range streams {
		s.unflushed.Store(false) // before the flush: what is said after it puts the stream into the list again
		s.stream.Flush()
		streams[i] = nil
	}
	a.mu.Lock()
	if a.streams == nil {
		a.streams = streams[:0]
	}
	a.mu.Unlock()
}

// pending is a produced batch on its way through a partition. A batch that is most of the message it came in stays there; others are
// copied, or a few of them would keep the memory of many. Pendings go round through a pool, so a batch in flight costs no allocation
// in the long run.
type pending struct {
	raftgroup.Proposal
	stream      *produceStream
	group       *raftgroup.Group
	correlation uint64
	acks        rpc.Acks
	size        int
	message     rpc.Loan // keeps the batch; nil: it is in buffer
	buffer      []byte
}

// keep has the pending hold a request's batch.
func (w *pending) keep(r *rpc.ProduceRequest) []byte {
	w.size = len(r.Batch)
	if r.Data != nil && r.Memory <= 2*w.size {
		r.Data.Retain()
		w.message = r.Data
		return r.Batch
	}
	w.buffer = append(w.buffer[:0], r.Batch...)
	return w.buffer
}

var pendings = sync.Pool{New: func() any { return new(pending) }}

// produce serves one producer until its stream ends.
func (n *Node) produce(stream *rpc.ProduceStream) error {
	s := &produceStream{node: n, stream: stream}
	return stream.Recv(s.receive, func() { n.host.Visit().End() })
}

// receive takes one request off the wire. It must not block: the partition answers through answered, in a turn of its worker.
func (s *produceStream) receive(r rpc.ProduceRequest) {
	now := time.Now()
	p, err := s.admit(r, now)
	if err != nil {
		s.refuse(r.Correlation, r.Acks, err, nil)
		return
	}
	w := pendings.Get().(*pending)
	w.stream, w.group, w.correlation, w.acks = s, p.Group(), r.Correlation, r.Acks
	timeout := r.Timeout
	if timeout == 0 {
		timeout = defaultProduceTimeout
	}
	w.Proposal = raftgroup.Proposal{Batch: w.keep(&r), Acks: raftgroup.AcksAll, Deadline: now.Add(timeout), Done: answered, Owner: w}
	if r.Acks != rpc.AcksAll {
		w.Proposal.Acks = raftgroup.AcksLeader
	}
	s.inFlight.Add(int64(len(r.Batch)))
	s.node.host.Visit().Propose(p.Group(), &w.Proposal)
}

// admit makes the checks that need no log and finds the partition.
func (s *produceStream) admit(r rpc.ProduceRequest, now time.Time) (*partition.Partition, error) {
	pressure := s.node.store.Pressure()
	switch p := s.node.replicas.find(r.Topic, r.Partition); {
	case p == nil:
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "node %d has no replica of partition %d of topic %v", s.node.options.NodeID, r.Partition, r.Topic)
	case s.inFlight.Load()+int64(len(r.Batch)) > maxProduceInFlight:
		return nil, kerr.Errorf(kerr.ThrottlingQuotaExceeded, "more than %d bytes of batches of this connection wait for an answer", maxProduceInFlight)
	case pressure == wal.PressureThrottle && p.Group().IsLeader(): // who does not lead says who does
		return nil, kerr.Errorf(kerr.ThrottlingQuotaExceeded, "node %d has as many records in memory as it may: its disk or its followers are behind", s.node.options.NodeID)
	case pressure == wal.PressureNoSpace && p.Group().IsLeader():
		return nil, kerr.Errorf(kerr.StorageError, "node %d is below its reserve of free disk space: free some or add a node", s.node.options.NodeID)
	default:
		if err := p.Check(r.Batch, now); err != nil {
			return nil, err
		}
		if r.Acks != rpc.AcksAll && batch.Batch(r.Batch).Producer() != id.NoProducer {
			return nil, kerr.Errorf(kerr.InvalidRequiredAcks, "an idempotent producer needs acks=all, not %d", r.Acks)
		}
		return p, nil
	}
}

// answered is the end of every proposal; it runs in a turn of the partition's worker, on whichever goroutine that is, or on the caller's
// when the proposal was refused at once.
func answered(p *raftgroup.Proposal) {
	w := p.Owner.(*pending)
	s, size := w.stream, int64(w.size)
	switch {
	case p.Result.Err != nil:
		s.refuse(w.correlation, w.acks, p.Result.Err, w.group)
	case w.acks != rpc.AcksNone:
		s.stream.Send(rpc.ProduceResponse{
			Correlation: w.correlation, Code: kerr.None, BaseOffset: p.Result.Offset,
			Leader: s.node.options.NodeID, Epoch: id.EpochOf(p.Result.Term),
		})
	}
	s.node.answers.add(s)
	s.inFlight.Add(-size)
	if w.message != nil {
		w.message.Release()
	}
	w.stream, w.group, w.message, w.Proposal = nil, nil, nil, raftgroup.Proposal{}
	pendings.Put(w)
}

// refuse answers a batch that did not get in. With acks=0 nobody waits for an answer: the stream is closed, so that the producer
// looks for the leader again instead of sending into the void.
func (s *produceStream) refuse(correlation uint64, acks rpc.Acks, err error, group *raftgroup.Group) {
	e := toRPC(err)
	if acks == rpc.AcksNone {
		s.stream.Fail(e)
		return
	}
	leader, epoch := leaderOfRefusal(e, group)
	s.stream.Send(rpc.ProduceResponse{Correlation: correlation, Code: e.Code, BaseOffset: id.NoOffset, Leader: leader, Epoch: epoch, Message: e.Message})
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

// toRPC gives an error of the layers below its code on the wire.
func toRPC(err error) *kerr.Error {
	var (
		e         *kerr.Error
		notLeader *raftgroup.NotLeaderError
		tooLarge  *batch.TooLargeError
		outside   *partition.ErrOutOfRange
		failed    *raftgroup.FailedError
		halted    *raftgroup.HaltedError
		late      *raftgroup.TimeoutError
	)
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &failed):
		// Whatever stopped the replica: what it had in flight may be committed by the others. Only they can say.
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: "the replica stopped: another one leads in a moment", Leader: id.NoNode}
	case errors.As(err, &halted):
		const message = "the replica is halted: another one leads in a moment, if one can"
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: message, Leader: id.NoNode}
	case errors.As(err, &notLeader):
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: notLeader.Leader}
	case errors.As(err, &late):
		return kerr.Errorf(kerr.RequestTimedOut, "%v", err)
	case errors.As(err, &tooLarge):
		return kerr.Errorf(kerr.MessageTooLarge, "%v", err)
	case errors.As(err, &outside):
		return kerr.Errorf(kerr.OffsetOutOfRange, "%v", err)
	}
	for _, m := range errorCodes {
		if errors.Is(err, m.err) {
			return kerr.Errorf(m.code, "%v", err)
		}
	}
	return kerr.Errorf(kerr.Unknown, "%v", err)
}

// errorCodes maps the sentinels of the layers below to what clients know; the first that matches counts.
var errorCodes = []struct {
	err  error
	code kerr.Code
}{
	{raftgroup.ErrOverloaded, kerr.ThrottlingQuotaExceeded},
	{raftgroup.ErrNotEnoughReplicasAfterAppend, kerr.NotEnoughReplicasAfter},
	{raftgroup.ErrNotEnoughReplicas, kerr.NotEnoughReplicas},
	{raftgroup.ErrProposalDropped, kerr.NotLeaderOrFollower},
	{raftgroup.ErrClosed, kerr.NotLeaderOrFollower},
	{partition.ErrOutOfOrderSequence, kerr.OutOfOrderSequence},
	{partition.ErrDuplicateSequence, kerr.DuplicateSequence},
	{partition.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{partition.ErrUnknownProducer, kerr.CoordinatorLoadInProgress},
	{partition.ErrTooManyProducers, kerr.ThrottlingQuotaExceeded},
	{batch.ErrCorrupt, kerr.CorruptMessage},
	{batch.ErrInvalidTimestamp, kerr.InvalidTimestamp},
	{batch.ErrInvalid, kerr.InvalidRecord},
	{partition.ErrTransactional, kerr.InvalidRequest},
	{wal.ErrCorrupt, kerr.StorageError},
	{wal.ErrUnavailable, kerr.OffsetNotAvailable},
	{wal.ErrClosed, kerr.BrokerNotAvailable},
	{wal.ErrDeleted, kerr.UnknownTopicOrPartition},
}
