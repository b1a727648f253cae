package partition

import (
	"sync/atomic"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Config is what the topic's configuration says about a partition. It can change while the partition is open.
type Config struct {
	MaxMessageBytes int // the largest batch, in bytes as sent
	MinInSync       int // min.insync.replicas
}

// Partition is one replica of a partition.
type Partition struct {
	id.TopicPartition
	Topic id.Topic

	log       *wal.Log
	group     *raftgroup.Group // set by Attach before the partition is published
	producers *Producers       // the worker's alone
	config    atomic.Pointer[Config]
	hw        atomic.Int64
	closed    atomic.Bool

	oldest     atomic.Uint64 // Producers.Oldest as of the last applied entry
	notes      notes         // of Expire's caller alone
	forgetting atomic.Bool   // a command of Expire's is on its way

	waiters Waiters // for records, or for another leader
}

// New returns the partition whose log is log, with the view that the log's last cut holds. An error that wraps envelope.ErrUnknown says
// that it is another release's.
func New(log *wal.Log, tp id.TopicPartition, config Config, limits Limits) (*Partition, error) {
	p := &Partition{TopicPartition: tp, Topic: log.Topic(), log: log, producers: NewProducers(limits)}
	p.config.Store(&config)
	p.hw.Store(int64(log.StartOffset()))
	if err := p.restore(log.State().View); err != nil {
		p.producers.clear()
		return nil, err
	}
	p.oldest.Store(uint64(p.producers.Oldest()))
	return p, nil
}

// Attach gives the partition its Raft group. It is called once, before anyone else sees the partition.
func (p *Partition) Attach(g *raftgroup.Group) { p.group = g }

// Group returns the partition's Raft group.
func (p *Partition) Group() *raftgroup.Group { return p.group }

// Leads tells whether this replica leads. By the time it returns another may lead in a later term.
func (p *Partition) Leads() bool { return p.group.IsLeader() }

// Log returns the partition's log.
func (p *Partition) Log() *wal.Log { return p.log }

// StartOffset returns the first offset that the partition has.
func (p *Partition) StartOffset() id.Offset { return p.log.StartOffset() }

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
func (p *Partition) Release() { p.producers.clear() }

// Closed tells whether the replica is gone.
func (p *Partition) Closed() bool { return p.closed.Load() }

// Admit implements raftgroup.Machine: idempotence, decided before a batch enters the log.
func (p *Partition) Admit(index id.Index, term id.Term, b batch.Batch) raftgroup.Admission {
	if b.Producer() == id.NoProducer {
		return raftgroup.Accept()
	}
	verdict, err := p.producers.Check(b)
	switch {
	case err != nil:
		return raftgroup.Refuse(err)
	case verdict.Duplicate:
		return raftgroup.Duplicate(verdict.Index, verdict.Term, verdict.BaseOffset)
	}
	p.producers.Append(index, term, b)
	return raftgroup.Accept()
}

// Append implements raftgroup.Machine.
func (p *Partition) Append(index id.Index, term id.Term, b batch.Batch) {
	p.producers.Append(index, term, b)
}

// Truncate implements raftgroup.Machine.
func (p *Partition) Truncate(from id.Index) { p.producers.Truncate(from) }

// Apply implements raftgroup.Machine.
func (p *Partition) Apply(index id.Index, term id.Term, kind wal.EntryKind, data []byte) (any, error) {
	switch kind {
	case wal.KindBatch:
		p.producers.Apply(index, term, batch.Batch(data))
	case wal.KindCommand:
		if err := p.command(data); err != nil {
			return nil, err
		}
	}
	if oldest := uint64(p.producers.Oldest()); oldest != p.oldest.Load() {
		p.oldest.Store(oldest)
	}
	return nil, nil
}

// Committed implements raftgroup.Machine: the high watermark moved.
func (p *Partition) Committed(hw id.Offset) {
	p.hw.Store(int64(hw))
	p.waiters.Advanced(ToHighWatermark)
}

// Leader implements raftgroup.Machine: whoever waits for records here may have to go elsewhere.
func (p *Partition) Leader(raftgroup.LeaderChange) { p.waiters.Moved() }

// InSync implements raftgroup.Machine.
func (p *Partition) InSync(raftgroup.InSync) {}

// HighWatermark returns the offset after the last committed record, as far as this replica knows.
func (p *Partition) HighWatermark() id.Offset { return id.Offset(p.hw.Load()) }
