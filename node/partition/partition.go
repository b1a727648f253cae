package partition

import (
	"sync/atomic"

	"github.com/quorumlog/quorumlog/node/retention"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Config is what the topic's configuration says about a partition. It can change while the partition is open.
type Config struct {
	MaxMessageBytes int // the largest batch, in bytes as sent
	MinInSync       int // min.insync.replicas

	Retention retention.Limits
	SegmentMS int64 // segment.ms
	// How far a timestamp may be from this node's clock, in milliseconds: message.timestamp.before.max.ms and after.max.ms.
	TimestampBeforeMS, TimestampAfterMS int64
}

// Partition is one replica of a partition.
type Partition struct {
	id.TopicPartition
	Topic id.Topic

	log    *wal.Log
	limits Limits
	group  *raftgroup.Group // set by Attach before the partition is published
	config atomic.Pointer[Config]
	hw     atomic.Int64
	closed atomic.Bool

	views     views         // the worker's alone
	producers *producerView // one of them
	start     *logStartView // another
	applied   id.Index      // that they are as of; the worker's alone

	trimming trimming // of the log start
	keeping  keeping  // of Retain's caller alone

	notes      notes       // of Expire's caller alone
	forgetting atomic.Bool // a command of Expire's is on its way

	waiters Waiters // for records, or for another leader
}

// New returns the partition whose log is log, with the view that the log's last cut holds. An error that wraps envelope.ErrUnknown says
// that it is another release's.
func New(log *wal.Log, tp id.TopicPartition, config Config, limits Limits) (*Partition, error) {
	p := derived(limits)
	p.TopicPartition, p.Topic, p.log = tp, log.Topic(), log
	p.config.Store(&config)
	state := log.State()
	if err := p.views.restore(state.View); err != nil {
		return nil, err
	}
	p.applied = state.Applied
	p.hw.Store(int64(log.StartOffset()))
	p.trimLog() // what the last process did not come to
	return p, nil
}

// derived returns a partition with what is derived from an empty log: the list of all views.
func derived(limits Limits) *Partition {
	limits = limits.withDefaults()
	p := &Partition{limits: limits, producers: &producerView{Producers: NewProducers(limits)}, start: &logStartView{}}
	p.views.add(p.producers)
	if knowsLogStart {
		p.views.add(p.start)
	}
	return p
}

// Attach gives the partition its Raft group. It is called once, before anyone else sees the partition.
func (p *Partition) Attach(g *raftgroup.Group) { p.group = g }

// Group returns the partition's Raft group.
func (p *Partition) Group() *raftgroup.Group { return p.group }

// Leads tells whether this replica leads. By the time it returns another may lead in a later term.
func (p *Partition) Leads() bool { return p.group.IsLeader() }

// Log returns the partition's log.
func (p *Partition) Log() *wal.Log { return p.log }

// Config returns the configuration in force.
func (p *Partition) Config() Config { return *p.config.Load() }

// SetConfig changes the configuration.
func (p *Partition) SetConfig(c Config) {
	p.config.Store(&c)
	p.group.SetMinInSync(c.MinInSync)
}

// Close ends waiting fetches: the replica is going away. The group and the log are closed by their owner.
func (p *Partition) Close() {
	p.closed.Store(true)
	p.waiters.Moved()
}

// Release gives back what the partition counts against limits that it shares. Its group is closed.
func (p *Partition) Release() { p.views.clear() }

// Closed tells whether the replica is gone.
func (p *Partition) Closed() bool { return p.closed.Load() }

// Admit implements raftgroup.Machine.
func (p *Partition) Admit(index id.Index, term id.Term, b batch.Batch) raftgroup.Admission {
	return p.views.admit(index, term, b)
}

// Append implements raftgroup.Machine.
func (p *Partition) Append(index id.Index, term id.Term, b batch.Batch) {
	p.views.append(index, term, b)
}

// Truncate implements raftgroup.Machine.
func (p *Partition) Truncate(from id.Index) { p.views.truncate(from) }

// Apply implements raftgroup.Machine.
func (p *Partition) Apply(index id.Index, term id.Term, kind wal.EntryKind, data []byte) (any, error) {
	var result any
	switch kind {
	case wal.KindBatch:
		p.views.apply(index, term, batch.Batch(data))
	case wal.KindCommand:
		before := p.start.start
		var err error
		if result, err = p.views.command(index, data); err != nil {
			return nil, err
		}
		if p.start.start != before {
			p.trimLog()
		}
	}
	p.applied = index
	return result, nil
}

// View implements raftgroup.Machine.
func (p *Partition) View() []byte { return p.views.encode() }

// CheckView implements raftgroup.Machine.
func (p *Partition) CheckView(view []byte) error {
	limits := p.limits
	limits.Budget = nil // it is gone in a moment
	return derived(limits).views.restore(view)
}

// Restore implements raftgroup.Machine. The log start of the view is that of a leader who is ahead: readers see no older one meanwhile.
func (p *Partition) Restore(view []byte, applied id.Index) error {
	p.views.clear()
	if err := p.views.restore(view); err != nil {
		return err
	}
	p.applied = applied
	p.waiters.Advanced(ToHighWatermark)
	p.trimLog()
	return nil
}

// Committed implements raftgroup.Machine: the high watermark moved.
func (p *Partition) Committed(hw id.Offset) {
	p.hw.Store(int64(hw))
	p.waiters.Advanced(ToHighWatermark)
}

// Elected implements raftgroup.Machine.
func (p *Partition) Elected() { p.start.doubt(p.namedStart()) }

// Leader implements raftgroup.Machine: whoever waits for records here may have to go elsewhere.
func (p *Partition) Leader(l raftgroup.LeaderChange) {
	if l.Role != raftgroup.Leader {
		p.start.doubt(0) // it is the leader's business
	}
	p.waiters.Moved()
}

// InSync implements raftgroup.Machine.
func (p *Partition) InSync(raftgroup.InSync) {}

// HighWatermark returns the offset after the last committed record, as far as this replica knows. It is never below a log start that was
// returned before: that may be ahead of what this replica has of the log, or knows to be committed, but what is below it is.
func (p *Partition) HighWatermark() id.Offset {
	return max(id.Offset(p.hw.Load()), id.Offset(p.start.shown.Load()))
}
