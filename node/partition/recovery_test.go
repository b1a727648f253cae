package partition_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// life is one life of a node with one partition, of one replica unless there is a net.
type life struct {
	t       *testing.T
	sim     *disksim.Disk
	node    id.Node
	members []raftgroup.Member
	net     *raftgrouptest.Network

	store *wal.Store
	host  *raftgroup.Host
	p     *partition.Partition
	log   *wal.Log
}

func begin(t *testing.T, sim *disksim.Disk) *life { return beginWith(t, sim, partition.Limits{}) }

func beginWith(t *testing.T, sim *disksim.Disk, limits partition.Limits) *life {
	l := &life{t: t, sim: sim, node: 1, members: []raftgroup.Member{{Replica: 71, Node: 1}}}
	l.live(limits)
	return l
}

// live opens the node, and waits until it leads.
func (l *life) live(limits partition.Limits) {
	l.open(limits)
	l.until("a leader", l.p.Leads)
}

// open opens the node.
func (l *life) open(limits partition.Limits) {
	t, sim := l.t, l.sim
	replica, transport := id.Replica(70+l.node), raftgroup.Transport(raftgrouptest.Nowhere{})
	if l.net != nil {
		transport = l.net.Endpoint(l.node)
	}
	store, err := wal.Open(context.Background(), wal.Options{
		Dir: "/data", FS: sim, PebbleFS: sim.Pebble(), CacheBytes: 8 << 20, JournalFileBytes: 1 << 20, ReserveBytes: 1,
		CheckpointInterval: time.Millisecond, // that is to say, at each tick of the checkpointer
	})
	require.NoError(t, err)
	l.store = store
	l.host, err = raftgroup.New(raftgroup.Options{Node: l.node, Store: store, Transport: transport, Workers: 1})
	require.NoError(t, err)
	if l.net != nil {
		l.net.Attach(l.node, l.host)
	}
	if logs := store.Logs(); len(logs) == 1 {
		l.log = logs[0]
	} else {
		var voters []id.Replica
		for _, m := range l.members {
			voters = append(voters, m.Replica)
		}
		l.log, err = store.Create(context.Background(), wal.Spec{
			Group: 7, Replica: replica, Name: "t-0", Start: wal.Start{Index: 1, Term: 1},
			HardState: wal.HardState{Term: 1, Commit: 1}, State: wal.State{Applied: 1, ConfState: raftgroup.EncodeConfState(voters, nil)},
		})
		require.NoError(t, err)
	}
	config := partition.Config{MaxMessageBytes: 1 << 20, MinInSync: 1}
	p, err := partition.New(l.log, id.TopicPartition{Topic: "t"}, config, limits)
	require.NoError(t, err)
	g, err := l.host.Open(raftgroup.Spec{
		Group: 7, Replica: replica, Members: l.members, Log: l.log, Machine: p,
		Campaign: raftgroup.CampaignPreferred,
	})
	require.NoError(t, err)
	p.Attach(g)
	l.p = p
}

// killed returns the next life of the node, which is to be opened, after kill -9.
func (l *life) killed() *life {
	l.sim.Halt()
	_ = l.host.Close()
	_ = l.store.Close()
	return &life{t: l.t, sim: l.sim.Crash(disksim.Kill), node: l.node, members: l.members, net: l.net}
}

// onJournal has each write to the journal wait for something. Nobody who waits for a lock waits for that: virtual time goes on.
func (l *life) onJournal(wait func()) {
	l.sim.SetHook(func(op disksim.Op) error {
		if !op.Pebble && op.Kind == disksim.OpWrite && strings.HasPrefix(op.Name, "/data/journal/") {
			wait()
		}
		return nil
	})
}

// hang has each write to the journal hang until it is released.
func (l *life) hang() (release func()) {
	released := make(chan struct{})
	l.onJournal(func() { <-released })
	return func() { close(released) }
}

// end stops the node.
func (l *life) end() {
	if l.net != nil {
		l.net.Detach(l.node)
	}
	require.NoError(l.t, l.host.Close())
	require.NoError(l.t, l.store.Close())
}

func (l *life) until(what string, condition func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); {
		require.True(l.t, time.Now().Before(deadline), "waiting for %s", what)
		timer := time.NewTimer(time.Millisecond)
		<-timer.C
	}
}

func (l *life) propose(p *raftgroup.Proposal) raftgroup.Result {
	done := make(chan raftgroup.Result, 1)
	p.Acks, p.Wait, p.Done = raftgroup.AcksAll, raftgroup.WaitApplied, func(p *raftgroup.Proposal) { done <- p.Result }
	l.p.Group().Propose(p)
	return <-done
}

func (l *life) produce(producer id.Producer, sequence id.Sequence) raftgroup.Result {
	var b batch.Builder
	b.Append(batch.Record{Value: []byte("v")})
	made, err := b.Finish(nil, batch.Trailer{Producer: producer, BaseSequence: sequence})
	require.NoError(l.t, err)
	return l.propose(&raftgroup.Proposal{Batch: made})
}

// fill has a producer write so many records.
func (l *life) fill(records int) {
	for n := range records {
		require.NoError(l.t, l.produce(1, id.Sequence(n)).Err)
	}
}

// checkpoint waits until one that began now is complete.
func (l *life) checkpoint() {
	done := l.store.Metrics().Checkpoints
	l.until("a checkpoint", func() bool { return l.store.Metrics().Checkpoints > done })
}

// TestOldViewAndTheLogSince: many producers and little traffic, so that the stored view is older than the log that is let go of, with
// commands in between; then the power fails, twice. The view that is derived again is the same, and no retry is written twice.
func TestOldViewAndTheLogSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const producers = 2000
		sim := disksim.New(disksim.Options{})
		l := begin(t, sim)
		sequence := make(map[id.Producer]id.Sequence)
		offset := make(map[id.Producer]id.Offset)
		write := func(p id.Producer) {
			r := l.produce(p, sequence[p])
			require.NoError(t, r.Err)
			sequence[p]++
			offset[p] = r.Offset
		}
		for p := range id.Producer(producers) {
			write(p)
		}
		l.checkpoint()
		for life := range 3 {
			stored := l.log.State().Applied
			for range 10 {
				write(id.Producer(100 + life))
				l.checkpoint()
			}
			forgotten := id.Index(50 + 10*life)
			require.NoError(t, l.propose(&raftgroup.Proposal{Command: partition.Forget(forgotten)}).Err)
			write(id.Producer(200 + life))
			l.checkpoint()
			require.Zero(t, l.store.Metrics().UncutBytes, "the journal is let go of")
			require.Equal(t, stored, l.log.State().Applied, "the view is not written for so little")
			applied := l.p.Group().Applied()
			require.Greater(t, applied, stored)

			sim.Halt()
			_ = l.host.Close()
			_ = l.store.Close()
			want := l.p.View()
			sim = sim.Crash(disksim.PowerLoss)
			l = begin(t, sim)
			require.Equal(t, stored, l.log.State().Applied)
			l.until("everything to be applied", func() bool { return l.p.Group().Applied() >= applied })
			for p := range id.Producer(producers) {
				if sequence[p] > 1 || p > 1990 {
					require.Equal(t, offset[p], l.produce(p, sequence[p]-1).Offset, "producer %d", p)
				}
			}
			require.NoError(t, l.host.Close())
			require.Equal(t, want, l.p.View())
			sim.Halt()
			_ = l.store.Close()
			sim = sim.Crash(disksim.PowerLoss)
			l = begin(t, sim)
		}
		require.NoError(t, l.host.Close())
		require.NoError(t, l.store.Close())
	})
}
