package raftgroup

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Transport carries messages to other nodes. All methods are called by several goroutines at once: workers, and the store's
// when it completes appends.
type Transport interface {
	// Send takes m for group g on node to. It encodes what it needs before it returns: m is not to be kept or changed, and the
	// data of its entries may alias memory of a log that is reused afterwards. Data that is lent may be kept by reference as
	// long as the transport holds a reference of the loan, of which it takes its own; data is nil where there is nothing to be
	// had by reference. Send never blocks and may drop.
	Send(to id.Node, g id.Group, m *raftpb.Message, data Loan)
	// Flush says that nothing more comes for a while.
	Flush()
}

// Loan is memory that its owner uses again when the last reference is released.
type Loan interface {
	Retain()
	Release()
}

// Options configure a Host. Zero values take the defaults.
type Options struct {
	Node      id.Node   // the node's own id
	Store     LogStore  // required
	Transport Transport // required

	Workers        int           // shard workers; default GOMAXPROCS
	TickInterval   time.Duration // default 100 ms
	HeartbeatTicks int           // default 5
	ElectionTicks  int           // default 30

	// ReplicaLagMax is how long a voter may fail to catch up before it counts as out of sync. Default 30 s.
	ReplicaLagMax time.Duration

	// MaxMessageBytes is the size of entries put into one message to a follower, and proposed in one step. Default 1 MiB.
	MaxMessageBytes int
	// MaxGroupBytes bounds the bytes of a group that are proposed and not yet committed and applied on the leader; beyond it
	// proposals are refused. Default 32 MiB.
	MaxGroupBytes int64
	// MaxHostBytes bounds the same over all groups. Default 256 MiB.
	MaxHostBytes int64
	// MaxInboxBytes bounds the entries from other nodes that wait for one worker; beyond it messages are dropped, but each
	// group always has room for one. Default 64 MiB.
	MaxInboxBytes int64
	// MaxInflightBytes bounds what is sent to one follower and not acknowledged. Default 16 MiB.
	MaxInflightBytes int64
	// ReadAheadBytes is the size of one read from disk for a lagging follower. Default 2 MiB.
	ReadAheadBytes int
	// Readers is how many of these reads are done at once. Default 4.
	Readers int

	// StallAfter is how long a commit round may take before the host counts as stalled (default 1500 ms), and StallClears how long no
	// round must have done so for it to take part again (5 s).
	StallAfter, StallClears time.Duration

	// TurnDone is called at the end of each turn, on its goroutine: for what is better done once for all proposals that were answered
	// than for each of them. It must not block. Several workers may call it at the same time.
	TurnDone func()
	// OnGroupFailed is told of each replica that stopped, or is refused, which is durable then, with a *FailedError; called in a turn of
	// its worker, must not block.
	OnGroupFailed func(*Group, error)
	// Logger takes what Raft does to groups at the debug level, and failures. nil drops all.
	Logger *slog.Logger
}

const mib = 1 << 20

func (o Options) withDefaults() (Options, error) {
	if o.Store == nil || o.Transport == nil {
		return o, errors.New("raftgroup: Options need a Store and a Transport")
	}
	def(&o.Workers, runtime.GOMAXPROCS(0))
	def(&o.TickInterval, 100*time.Millisecond)
	def(&o.HeartbeatTicks, 5)
	def(&o.ElectionTicks, 30)
	def(&o.ReplicaLagMax, 30*time.Second)
	def(&o.MaxMessageBytes, mib)
	def(&o.MaxGroupBytes, 32*mib)
	def(&o.MaxHostBytes, 256*mib)
	def(&o.MaxInboxBytes, 64*mib)
	def(&o.MaxInflightBytes, 16*mib)
	def(&o.StallAfter, 1500*time.Millisecond)
	def(&o.StallClears, 5*time.Second)
	def(&o.ReadAheadBytes, 2*mib)
	def(&o.Readers, 4)
	if o.ElectionTicks <= o.HeartbeatTicks {
		return o, fmt.Errorf("raftgroup: %d election ticks must be more than %d heartbeat ticks", o.ElectionTicks, o.HeartbeatTicks)
	}
	if o.MaxInflightBytes < int64(o.MaxMessageBytes) {
		return o, fmt.Errorf("raftgroup: %d bytes in flight are less than one message of %d", o.MaxInflightBytes, o.MaxMessageBytes)
	}
	if o.OnGroupFailed == nil {
		o.OnGroupFailed = func(*Group, error) {}
	}
	if o.TurnDone == nil {
		o.TurnDone = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func def[T int | int64 | time.Duration](p *T, v T) {
	if *p <= 0 {
		*p = v
	}
}
