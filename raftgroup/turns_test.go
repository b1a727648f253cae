package raftgroup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
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

// lone is a host whose peers are the test: what it sends is kept, and nothing comes but what the test brings.
type lone struct {
	o       raftgroup.Options
	groups  int
	voters  []id.Node // a host that is the only voter leads
	machine func() raftgroup.Machine
	doctor  func(raftgroup.Log) raftgroup.Log // nil: logs are opened as they are

	t     *testing.T
	disk  *raftgrouptest.MemDisk
	store *recorder
	host  *raftgroup.Host

	mu   sync.Mutex
	sent []*raftpb.Message
}

const (
	never = time.Hour // a TickInterval at which nothing is ever saved by a tick
	self  = id.Node(1)
)

// run starts a host on node 1 with a replica of each group, and returns when all is quiet.
func (n *lone) run(t *testing.T) *lone {
	t.Helper()
	n.t, n.disk = t, raftgrouptest.NewMemDisk(1)
	n.start()
	for g := id.Group(1); int(g) <= max(n.groups, 1); g++ {
		var replicas []id.Replica
		for _, m := range n.members(g) {
			replicas = append(replicas, m.Replica)
		}
		begin := wal.Start{Index: 10, Term: 1}
		_, err := n.store.Create(context.Background(), wal.Spec{
			Group: g, Replica: raftgrouptest.ReplicaOf(g, self), Name: fmt.Sprint(g), Topic: id.Topic{byte(g)}, Start: begin,
			HardState: wal.HardState{Term: begin.Term, Commit: begin.Index},
			State:     wal.State{Applied: begin.Index, ConfState: raftgroup.EncodeConfState(replicas, nil)},
		})
		require.NoError(t, err)
	}
	n.openAll()
	t.Cleanup(n.stop)
	return n
}

func (n *lone) start() {
	n.t.Helper()
	store, err := n.disk.Open()
	require.NoError(n.t, err)
	n.store = &recorder{Store: store}
	o := n.o
	o.Node, o.Store, o.Transport = self, n.store, n
	n.host, err = raftgroup.New(o)
	require.NoError(n.t, err)
}

// openAll opens what the store has, and returns when all is quiet.
func (n *lone) openAll() {
	n.t.Helper()
	for _, l := range n.store.Logs() {
		if n.doctor != nil {
			l = n.doctor(l)
		}
		spec := raftgroup.Spec{Group: l.Group(), Replica: l.Replica(), Members: n.members(l.Group()), Log: l, Machine: quiet{}}
		if n.machine != nil {
			spec.Machine = n.machine()
		}
		if len(n.voters) == 1 {
			spec.Campaign = raftgroup.CampaignPreferred
		}
		_, err := n.host.Open(spec)
		require.NoError(n.t, err)
	}
	synctest.Wait()
}

func (n *lone) stop() {
	if n.host != nil {
		require.NoError(n.t, n.host.Close())
		require.NoError(n.t, n.store.Close())
		n.host = nil
	}
}

// restart ends the host in good order and starts it again.
func (n *lone) restart() {
	n.t.Helper()
	n.stop()
	n.start()
	n.openAll()
}

func (n *lone) members(g id.Group) []raftgroup.Member {
	var members []raftgroup.Member
	for _, v := range n.voters {
		members = append(members, raftgroup.Member{Replica: raftgrouptest.ReplicaOf(g, v), Node: v})
	}
	return members
}

func (n *lone) group(g id.Group) *raftgroup.Group { return n.host.Group(g) }

// Send implements raftgroup.Transport.
func (n *lone) Send(_ id.Node, _ id.Group, m *raftpb.Message, _ raftgroup.Loan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent = append(n.sent, raftgrouptest.CopyMessage(m))
}

// Flush implements raftgroup.Transport.
func (n *lone) Flush() {}

func (n *lone) sends() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.sent)
}

// message is one to the group's replica from that on another node.
func message(kind raftpb.MessageType, g id.Group, from id.Node, term uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: kind.Enum(), From: new(uint64(raftgrouptest.ReplicaOf(g, from))), To: new(uint64(raftgrouptest.ReplicaOf(g, self))), Term: new(term),
	}
}

// entries is a MsgApp of node 2, the leader of the term, with batches that follow the entry at index.
func entries(g id.Group, term, index, logTerm uint64, batches ...batch.Batch) *raftpb.Message {
	m := message(raftpb.MsgApp, g, 2, term)
	m.Index, m.LogTerm = new(index), new(logTerm)
	for i, b := range batches {
		m.Entries = append(m.Entries, &raftpb.Entry{Index: new(index + 1 + uint64(i)), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: b})
	}
	return m
}

// heartbeat is one of node 2, the leader of the term.
func heartbeat(g id.Group, term, commit uint64) *raftpb.Message {
	m := message(raftpb.MsgHeartbeat, g, 2, term)
	m.Commit = new(commit)
	return m
}

// stale is a message that is answered, as all of a term that is over, when its answer's append is done.
func stale(g id.Group) *raftpb.Message { return heartbeat(g, 1, 0) }

// batchOf makes a batch of so many bytes in all.
func batchOf(t *testing.T, bytes int) batch.Batch {
	t.Helper()
	for n := bytes; n >= 0; n-- {
		if b := raftgrouptest.Batch(make([]byte, n)); len(b) == bytes {
			return b
		}
	}
	t.Fatalf("there is no batch of %d bytes", bytes)
	return nil
}

// goroutine is the number of the calling goroutine.
func goroutine() string {
	var b [64]byte
	return strings.Fields(string(b[:runtime.Stack(b[:], false)]))[1]
}

// recorder is a store that remembers what was submitted, and may be held up between the completions of a round and its end.
type recorder struct {
	raftgrouptest.Store
	completed func()

	mu        sync.Mutex
	submitted []submitted
}

type submitted struct {
	entries int
	vote    *wal.HardState
}

// Submit implements raftgroup.LogStore.
func (r *recorder) Submit(appends []*wal.Append) {
	r.mu.Lock()
	for _, a := range appends {
		s := submitted{entries: len(a.Entries)}
		if a.HardState != nil {
			s.vote = new(*a.HardState)
		}
		r.submitted = append(r.submitted, s)
	}
	r.mu.Unlock()
	r.Store.Submit(appends)
}

// SetRoundDone implements raftgroup.LogStore.
func (r *recorder) SetRoundDone(done func(wal.Pace)) {
	r.Store.SetRoundDone(func(pace wal.Pace) {
		if r.completed != nil {
			r.completed()
		}
		done(pace)
	})
}

// take returns what was submitted since the last call.
func (r *recorder) take() []submitted {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.submitted
	r.submitted = nil
	return s
}

// exclusive is a machine that tells when two goroutines work on its group.
type exclusive struct {
	quiet
	t    *testing.T
	busy *atomic.Bool
}

func (e exclusive) Admit(id.Index, id.Term, batch.Batch) raftgroup.Admission {
	e.alone()
	return raftgroup.Accept()
}

func (e exclusive) Apply(id.Index, id.Term, wal.EntryKind, []byte) (any, error) {
	e.alone()
	return nil, nil
}

func (e exclusive) alone() {
	if e.busy.Swap(true) {
		e.t.Error("two work on one group")
	}
	runtime.Gosched()
	e.busy.Store(false)
}

// TestNothingIsLeftWaiting has goroutines bring messages and proposals in all ways, at the very instants at which the workers tick and
// while the store completes what came before. At each instant, when all have ended, everything must be done: no later tick counts.
func TestNothingIsLeftWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups, visitors, rounds = 4, 8, 60
		n := &lone{groups: groups, voters: []id.Node{self}, o: raftgroup.Options{Workers: 2, TickInterval: time.Millisecond}}
		n.machine = func() raftgroup.Machine { return exclusive{t: t, busy: new(atomic.Bool)} }
		n.run(t)
		var stepped, proposed, answered atomic.Int64
		bring := func(rng *rand.Rand) {
			g := id.Group(1 + rng.IntN(groups))
			v := n.host.Visit()
			visits := rng.IntN(3) > 0
			for range rng.IntN(4) {
				if rng.IntN(2) == 0 {
					stepped.Add(1)
					if visits {
						v.Step(2, g, stale(g), nil)
					} else {
						n.host.Step(2, g, stale(g), nil)
					}
					continue
				}
				size := rng.IntN(500)
				if rng.IntN(20) == 0 {
					size += raftgroup.LightBytes
				}
				proposed.Add(1)
				p := &raftgroup.Proposal{Batch: raftgrouptest.Batch(make([]byte, size)), Acks: raftgroup.Acks(rng.IntN(3) - 1)}
				p.Done = func(*raftgroup.Proposal) { answered.Add(1) }
				if visits {
					v.Propose(n.group(g), p)
				} else {
					n.group(g).Propose(p)
				}
			}
			v.End()
		}
		var all sync.WaitGroup
		for v := range visitors {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(5, uint64(v)))
				for range rounds {
					time.Sleep(n.o.TickInterval) // all at the same instant: nothing else takes any time
					for range 4 {
						bring(rng)
					}
				}
			})
		}
		for range rounds {
			time.Sleep(n.o.TickInterval)
			synctest.Wait()
			require.Empty(t, raftgroup.Unfinished(n.host))
			require.Equal(t, proposed.Load(), answered.Load())
			require.EqualValues(t, stepped.Load(), n.sends())
		}
		all.Wait()
		require.NotZero(t, stepped.Load()*proposed.Load())
	})
}

// TestClosingHostAnswersAll closes a host under the feet of visitors: each proposal is answered, once, and nobody waits for ever.
func TestClosingHostAnswersAll(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := (&lone{voters: []id.Node{self}, o: raftgroup.Options{Workers: 1, TickInterval: never}}).run(t)
			g := n.group(1)
			var proposed, answered atomic.Int64
			var all sync.WaitGroup
			for v := range 4 {
				all.Go(func() {
					for i := range 100 {
						p := &raftgroup.Proposal{Batch: raftgrouptest.Batch(nil), Acks: raftgroup.AcksAll}
						p.Done = func(*raftgroup.Proposal) { answered.Add(1) }
						proposed.Add(1)
						if (i+v)%3 == 0 {
							g.Propose(p)
							continue
						}
						visit := n.host.Visit()
						visit.Propose(g, p)
						visit.Step(2, 1, stale(1), nil)
						visit.End()
					}
				})
			}
			for proposed.Load() < 50 {
				runtime.Gosched()
			}
			require.NoError(t, n.host.Close())
			all.Wait()
			require.Equal(t, proposed.Load(), answered.Load())
		})
	}
}

// TestCloseWaitsForAVisitor: a host that is closed while a visitor works waits for that turn, and gets the claim after it.
func TestCloseWaitsForAVisitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Pointer[chan struct{}]
		n := (&lone{voters: []id.Node{self}, o: raftgroup.Options{Workers: 1, TickInterval: never, TurnDone: func() {
			if c := held.Swap(nil); c != nil {
				<-*c
			}
		}}}).run(t)
		release := make(chan struct{})
		held.Store(&release)
		go func() {
			v := n.host.Visit()
			v.Step(2, 1, stale(1), nil)
			v.End()
		}()
		synctest.Wait()
		answer := make(chan error, 1)
		n.group(1).Propose(&raftgroup.Proposal{Batch: raftgrouptest.Batch(nil), Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) {
			answer <- p.Result.Err
		}})
		closed := make(chan error, 1)
		go func() { closed <- n.host.Close() }()
		synctest.Wait()
		require.Empty(t, closed, "closed in the middle of a turn")
		require.Empty(t, answer, "two work at once")
		close(release)
		require.NoError(t, <-closed)
		require.ErrorIs(t, <-answer, raftgroup.ErrClosed)
	})
}

// TestVisitorsDoNotWaitForEachOther: one that finds another at work leaves him what it brought.
func TestVisitorsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Pointer[chan struct{}]
		n := (&lone{voters: []id.Node{self}, o: raftgroup.Options{Workers: 1, TickInterval: never, TurnDone: func() {
			if c := held.Swap(nil); c != nil {
				<-*c
			}
		}}}).run(t)
		visit := func() {
			v := n.host.Visit()
			v.Step(2, 1, stale(1), nil)
			v.End()
		}
		release := make(chan struct{})
		held.Store(&release)
		go visit()
		synctest.Wait()
		turns, sent := n.host.Metrics().Turns, n.sends()
		visit()
		n.host.Step(2, 1, stale(1), nil)
		synctest.Wait()
		require.Equal(t, turns, n.host.Metrics().Turns, "two work at once")
		close(release)
		synctest.Wait()
		require.Equal(t, sent+2, n.sends())
		require.Empty(t, raftgroup.Unfinished(n.host))
	})
}

// TestWhoWorks: what is little is done by the visitor, before End returns; what is much, or comes without a visit, by the worker.
func TestWhoWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var by []string // who worked, turn by turn
		n := &lone{voters: []id.Node{self}}
		n.o = raftgroup.Options{Workers: 1, TickInterval: never, TurnDone: func() {
			mu.Lock()
			defer mu.Unlock()
			by = append(by, goroutine())
		}}
		n.run(t)
		first := func() string { // of those since it was asked last
			mu.Lock()
			defer mu.Unlock()
			defer func() { by = nil }()
			if len(by) == 0 {
				return ""
			}
			return by[0]
		}
		me := goroutine()
		first()
		n.host.Step(2, 1, stale(1), nil)
		synctest.Wait()
		worker := first()
		require.NotContains(t, []string{"", me}, worker)

		propose := func(v raftgroup.Visit, bytes ...int) {
			for _, n1 := range bytes {
				v.Propose(n.group(1), &raftgroup.Proposal{Batch: batchOf(t, n1), Done: func(*raftgroup.Proposal) {}})
			}
		}
		const half = raftgroup.LightBytes / 2
		append := func(v raftgroup.Visit, bytes int) { // MsgApps that weigh so much
			for _, b := range []int{half, bytes - half} {
				v.Step(2, 1, entries(1, 1, 10, 1, batchOf(t, b-2*raftgroup.SmallMessageBytes)), nil)
			}
		}
		for _, tc := range []struct {
			name  string
			bring func(v raftgroup.Visit)
			by    string
		}{
			{"nothing", func(raftgroup.Visit) {}, ""},
			{"little of each", func(v raftgroup.Visit) {
				v.Step(2, 1, stale(1), nil)
				propose(v, 100)
				append(v, half+1000)
			}, me},
			{"proposals, just light", func(v raftgroup.Visit) { propose(v, half, half) }, me},
			{"proposals, just too heavy", func(v raftgroup.Visit) { propose(v, half, half+1) }, worker},
			{"MsgApps, just light", func(v raftgroup.Visit) { append(v, 2*half) }, me},
			{"MsgApps, just too heavy", func(v raftgroup.Visit) { append(v, 2*half+1) }, worker},
			{"heavy only together", func(v raftgroup.Visit) {
				append(v, half+1000)
				propose(v, half)
			}, worker},
			{"many messages", func(v raftgroup.Visit) {
				for range raftgroup.LightEvents {
					v.Step(2, 1, stale(1), nil)
				}
			}, me},
			{"too many messages", func(v raftgroup.Visit) {
				for range raftgroup.LightEvents + 1 {
					v.Step(2, 1, stale(1), nil)
				}
			}, worker},
		} {
			v := n.host.Visit()
			tc.bring(v)
			require.Empty(t, first(), "%s: done before the end of the visit", tc.name)
			v.End()
			if tc.by == me {
				require.Equal(t, me, first(), tc.name)
			}
			synctest.Wait()
			if tc.by != me {
				require.Equal(t, tc.by, first(), tc.name)
			}
			first()
			if tc.by == worker && tc.name != "too many messages" { // for a while nobody visits, however little he brings
				v := n.host.Visit()
				propose(v, 100)
				v.End()
				require.Empty(t, first(), "after %s", tc.name)
				synctest.Wait()
				require.Equal(t, worker, first(), "after %s", tc.name)
				time.Sleep(raftgroup.HeavyFor + 1)
			}
			require.Empty(t, raftgroup.Unfinished(n.host), tc.name)
		}
	})
}

// TestVisitorsAreLetGo: where there is always more to do a visitor works a few turns, and the worker goes on.
func TestVisitorsAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left atomic.Int64
		var n *lone
		turns := make(map[string]int)
		n = &lone{voters: []id.Node{self, 2, 3}, o: raftgroup.Options{Workers: 1, TickInterval: never, TurnDone: func() {
			if left.Load() > 0 && left.Add(-1) >= 0 {
				turns[goroutine()]++ // of whoever has the turn
				n.host.Step(2, 1, heartbeat(1, 2, 0), nil)
			}
		}}}
		n.run(t)
		n.host.Step(2, 1, heartbeat(1, 2, 0), nil)
		synctest.Wait()
		left.Store(20)
		v := n.host.Visit()
		v.Step(2, 1, heartbeat(1, 2, 0), nil)
		v.End()
		synctest.Wait()
		require.Equal(t, raftgroup.VisitTurns, turns[goroutine()])
		require.Len(t, turns, 2)
		require.Empty(t, raftgroup.Unfinished(n.host))
	})
}

// TestPanicOfAVisitorEndsTheProcess runs itself as a process of its own, in which a turn panics on the goroutine of a visitor who would
// recover, as the server's calls do.
func TestPanicOfAVisitorEndsTheProcess(t *testing.T) {
	const name, child = "TestPanicOfAVisitorEndsTheProcess", "RAFTGROUP_PANIC_IN_A_VISIT"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+name+"$", "-test.timeout=20s")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out)
		require.Equal(t, 2, exit.ExitCode(), "%s", out)
		require.Contains(t, string(out), "panic: the disk is on fire")
		require.Contains(t, string(out), "setOnFire", "it does not say where it happened")
		require.NotContains(t, string(out), "test timed out")
		require.NotContains(t, string(out), "survived")
		return
	}
	var n *lone
	var burning atomic.Bool
	n = &lone{voters: []id.Node{self}, o: raftgroup.Options{Workers: 1, TickInterval: never, TurnDone: func() {
		if burning.Load() {
			setOnFire()
		}
	}}}
	synctest.Test(t, func(t *testing.T) {
		n.run(t)
		burning.Store(true)
		func() {
			defer func() { fmt.Println("survived", recover()) }()
			v := n.host.Visit()
			v.Step(2, 1, stale(1), nil)
			v.End()
		}()
		burning.Store(false)
	})
}

func setOnFire() { panic("the disk is on fire") }
