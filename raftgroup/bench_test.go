package raftgroup_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// direct hands copies of messages over on the sender's goroutine.
type direct struct {
	from  id.Node
	hosts map[id.Node]*raftgroup.Host
}

func (d *direct) Flush() {}
func (d *direct) Send(to id.Node, g id.Group, m *raftpb.Message, _ raftgroup.Loan) {
	d.hosts[to].Step(d.from, g, raftgrouptest.CopyMessage(m), nil)
}

// ringStore is a store that copies what is submitted into a ring of the last entries and completes it on a goroutine of its
// own: the cheapest store that keeps the rules.
type ringStore struct {
	mu     sync.Mutex
	room   sync.Cond // on mu
	queued int       // entries
	queue  []*wal.Append
	wake   chan struct{}
	ended  chan struct{}
	done   func(wal.Pace)
	closed bool
}

const ringEntries = 1024

type ringLog struct {
	group   id.Group
	replica id.Replica
	ring    []wal.Entry
	offsets []id.Offset
	last    id.Index
	next    id.Offset
}

func newRingLog(g id.Group, r id.Replica, entries int) *ringLog {
	return &ringLog{group: g, replica: r, last: 10, ring: make([]wal.Entry, entries), offsets: make([]id.Offset, entries)}
}

func newRingStore() *ringStore {
	s := &ringStore{wake: make(chan struct{}, 1), ended: make(chan struct{})}
	s.room.L = &s.mu
	go func() {
		defer close(s.ended)
		var done []*wal.Append
		for range s.wake {
			s.mu.Lock()
			done, s.queue = s.queue, done[:0]
			s.queued = 0
			s.room.Broadcast()
			closed := s.closed
			s.mu.Unlock()
			for _, a := range done {
				a.Done(a)
			}
			if len(done) > 0 {
				s.done(wal.PaceBusy) // not to be blocked by a Submit of its own
			}
			if closed {
				return
			}
		}
	}()
	return s
}

func (s *ringStore) SetCutTaker(func(*wal.Log))       {}
func (s *ringStore) SetRoundDone(done func(wal.Pace)) { s.done = done }
func (s *ringStore) Pressure() wal.Pressure           { return wal.PressureNone }
func (s *ringStore) Stalled() time.Duration           { return 0 }
func (s *ringStore) Submit(appends []*wal.Append) {
	for _, a := range appends {
		l := raftgroup.TargetOf(a).(*ringLog)
		for i, e := range a.Entries {
			at := e.Index % id.Index(len(l.ring))
			l.ring[at] = wal.Entry{Index: e.Index, Term: e.Term, Kind: e.Kind, Data: append(l.ring[at].Data[:0], e.Data...)}
			a.Entries[i].Data = l.ring[at].Data // which outlives what Raft needs of it
			l.offsets[at] = l.next
			if e.Kind == wal.KindBatch {
				l.next = batch.Batch(e.Data).NextOffset()
			}
			l.last = e.Index
		}
	}
	s.mu.Lock()
	for s.queued > ringEntries/4 { // or the ring would run over what is not applied
		s.room.Wait()
	}
	for _, a := range appends {
		s.queued += len(a.Entries)
	}
	s.queue = append(s.queue, appends...)
	s.mu.Unlock()
	s.signal()
}

func (s *ringStore) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *ringStore) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.ended
	return nil
}

func (l *ringLog) Group() id.Group                      { return l.group }
func (l *ringLog) Replica() id.Replica                  { return l.replica }
func (l *ringLog) FirstIndex() id.Index                 { return 11 }
func (l *ringLog) LastIndex() id.Index                  { return l.last }
func (l *ringLog) NextOffset() id.Offset                { return l.next }
func (l *ringLog) Start() wal.Start                     { return wal.Start{Index: 10, Term: 1} }
func (l *ringLog) HardState() wal.HardState             { return wal.HardState{Term: 1, Commit: 10} }
func (l *ringLog) State() wal.State                     { return wal.State{Applied: 10} }
func (l *ringLog) SetCommit(id.Index)                   {}
func (l *ringLog) TakeCut(wal.State)                    {}
func (l *ringLog) DeclineCut()                          {}
func (l *ringLog) Trim(id.Offset)                       {}
func (l *ringLog) TrimBefore(id.Index)                  {}
func (l *ringLog) Roll()                                {}
func (l *ringLog) Condemned() wal.Condemnation          { return 0 }
func (l *ringLog) Refuse(context.Context, string) error { return nil }
func (l *ringLog) Release()                             {}
func (l *ringLog) Term(i id.Index) (id.Term, bool) {
	if i <= 10 || i > l.last {
		return 1, i == 10
	}
	return l.ring[i%id.Index(len(l.ring))].Term, true
}
func (l *ringLog) OffsetAt(i id.Index) id.Offset {
	if i > l.last {
		return l.next
	}
	return l.offsets[i%id.Index(len(l.ring))]
}
func (l *ringLog) Entries(dst []wal.Entry, lo, hi id.Index, maxBytes int) ([]wal.Entry, bool) {
	bytes := 0
	for i := lo; i < hi; i++ {
		e := l.ring[i%id.Index(len(l.ring))]
		if bytes += len(e.Data); i > lo && bytes > maxBytes {
			break
		}
		dst = append(dst, e)
	}
	return dst, true
}
func (l *ringLog) ReadEntries(lo, hi id.Index, maxBytes int) ([]wal.Entry, error) {
	dst, _ := l.Entries(nil, lo, hi, maxBytes)
	return dst, nil
}

// benchStore is what a benchmark's three nodes keep their logs in.
type benchStore interface {
	raftgroup.LogStore
	open(group id.Group, replica id.Replica) (raftgroup.Log, error)
	close() error
}

func (s *ringStore) open(g id.Group, r id.Replica) (raftgroup.Log, error) {
	return newRingLog(g, r, ringEntries), nil
}

// realStore is a wal on a real disk.
type realStore struct{ *wal.Store }

func (s realStore) close() error { return s.Close() }
func (s realStore) open(g id.Group, r id.Replica) (raftgroup.Log, error) {
	return s.Create(context.Background(), wal.Spec{
		Group: g, Replica: r, Name: fmt.Sprintf("bench-%d", g), Topic: id.NewTopic(), Start: wal.Start{Index: 10, Term: 1},
		HardState: wal.HardState{Term: 1, Commit: 10}, State: wal.State{Applied: 10},
	})
}

// BenchmarkPropose keeps 64 batches outstanding on a group (or spread over several) of three replicas whose hosts share one
// process, and reports the processor time of all three per entry. Checking, stamping and copying are in it; network and disk
// are memory. BenchmarkProposeOnWal has three real wals on the disk of the temporary directory.
func BenchmarkPropose(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, groups := range []int{1, 12} {
			for _, outstanding := range []int{1, 64} {
				b.Run(fmt.Sprintf("%dKB/groups=%d/outstanding=%d", size>>10, groups, outstanding), func(b *testing.B) {
					benchmarkPropose(b, size, groups, outstanding, func() (benchStore, error) { return newRingStore(), nil })
				})
			}
		}
	}
}

func BenchmarkProposeOnWal(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, groups := range []int{1, 12} {
			b.Run(fmt.Sprintf("%dKB/groups=%d/outstanding=64", size>>10, groups), func(b *testing.B) {
				benchmarkPropose(b, size, groups, 64, func() (benchStore, error) {
					s, err := wal.Open(context.Background(), wal.Options{Dir: b.TempDir()})
					return realStore{s}, err
				})
			})
		}
	}
}

func benchmarkPropose(b *testing.B, size, groups, outstanding int, open func() (benchStore, error)) {
	hosts := make(map[id.Node]*raftgroup.Host)
	stores := make(map[id.Node]benchStore)
	for n := id.Node(1); n <= 3; n++ {
		s, err := open()
		require.NoError(b, err)
		stores[n] = s
		h, err := raftgroup.New(raftgroup.Options{Node: n, Store: s, Transport: &direct{n, hosts}, Workers: 1})
		require.NoError(b, err)
		hosts[n] = h
	}
	defer func() {
		for _, h := range hosts {
			require.NoError(b, h.Close())
		}
		for _, s := range stores {
			require.NoError(b, s.close())
		}
	}()
	var leaders []*raftgroup.Group
	for g := id.Group(1); int(g) <= groups; g++ {
		var members []raftgroup.Member
		for n := id.Node(1); n <= 3; n++ {
			members = append(members, raftgroup.Member{Replica: raftgrouptest.ReplicaOf(g, n), Node: n})
		}
		for _, n := range []id.Node{2, 3, 1} {
			hint := raftgroup.CampaignInTurn
			if n == 1 {
				hint = raftgroup.CampaignPreferred
			}
			l, err := stores[n].open(g, raftgrouptest.ReplicaOf(g, n))
			require.NoError(b, err)
			r, err := hosts[n].Open(raftgroup.Spec{Group: g, Replica: l.Replica(), Members: members, Machine: quiet{}, Log: l, Campaign: hint})
			require.NoError(b, err)
			if n == 1 {
				leaders = append(leaders, r)
			}
		}
	}
	for _, l := range leaders {
		require.True(b, raftgrouptest.Until(10*time.Second, l.IsLeader))
	}
	made := raftgrouptest.Batch(make([]byte, size))
	free := make(chan *raftgroup.Proposal, outstanding)
	failed := make(chan error, outstanding)
	for range outstanding {
		free <- &raftgroup.Proposal{Batch: slices.Clone(made), Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) {
			if p.Result.Err != nil {
				select {
				case failed <- p.Result.Err:
				default:
				}
			}
			free <- p
		}}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	cpu := cpuTime()
	b.ResetTimer()
	for i := range b.N {
		leaders[i%len(leaders)].Propose(<-free)
	}
	for range outstanding {
		<-free
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N)/1e3, "cpu-µs/op")
	m := hosts[1].Metrics()
	b.ReportMetric(float64(m.Proposals)/float64(m.ProposalSteps), "batches/step")
	if len(failed) > 0 {
		b.Fatal(<-failed)
	}
}

// What groups without traffic cost: heartbeats and ticks.
func TestIdleGroups(t *testing.T) {
	const groups, seconds = 300, 20
	hints := map[id.Node]raftgroup.CampaignHint{1: raftgroup.CampaignPreferred}
	synctest.Test(t, func(t *testing.T) {
		hosts := make(map[id.Node]*raftgroup.Host)
		var stores []*ringStore
		for n := id.Node(1); n <= 3; n++ {
			s := newRingStore()
			h, err := raftgroup.New(raftgroup.Options{Node: n, Store: s, Transport: &direct{n, hosts}, Workers: 1})
			require.NoError(t, err)
			stores, hosts[n] = append(stores, s), h
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var leaders []*raftgroup.Group
		for g := id.Group(1); int(g) <= groups; g++ {
			var members []raftgroup.Member
			for n := id.Node(1); n <= 3; n++ {
				members = append(members, raftgroup.Member{Replica: raftgrouptest.ReplicaOf(g, n), Node: n})
			}
			for n := id.Node(3); n >= 1; n-- {
				l := newRingLog(g, raftgrouptest.ReplicaOf(g, n), 8)
				r, err := hosts[n].Open(raftgroup.Spec{Group: g, Replica: l.Replica(), Members: members, Machine: quiet{}, Log: l,
					Campaign: hints[n]})
				require.NoError(t, err)
				if n == 1 {
					leaders = append(leaders, r)
				}
			}
		}
		for _, l := range leaders {
			require.True(t, raftgrouptest.Until(time.Second, l.IsLeader))
		}
		pause(5 * time.Second)
		runtime.GC()
		runtime.ReadMemStats(&after)
		term := map[*raftgroup.Group]id.Term{}
		for _, l := range leaders {
			_, _, term[l] = l.Leader()
		}
		cpu := cpuTime()
		pause(seconds * time.Second)
		cpu = cpuTime() - cpu
		t.Logf("%d idle replicas: %.2f %% of a core for 10,000, %d bytes each", 3*groups,
			cpu.Seconds()/seconds/(3*groups)*10_000*100, int64(after.HeapAlloc-before.HeapAlloc)/(3*groups))
		for _, l := range leaders {
			_, _, now := l.Leader()
			require.True(t, l.IsLeader() && now == term[l], "leadership does not move")
		}
		for n, h := range hosts {
			require.NoError(t, h.Close())
			require.NoError(t, stores[n-1].close())
		}
	})
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
