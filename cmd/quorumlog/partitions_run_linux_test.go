package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	rpcPort, gossipPort, metricsPort = 9192, 7946, 9300
	// settle is for how long a window goes on after all partitions go on.
	settle = 3 * time.Second
)

// member is a node. It dies with this process.
type member struct {
	number int
	dir    string
	log    string
	host   atomic.Int32 // whose address it has

	mu    sync.Mutex
	child *bench.Child

	readiness atomic.Pointer[readiness]
}

// readiness is what /readyz said, from when on.
type readiness struct {
	code  int
	text  string
	since time.Time
}

func (m *member) at() int { return int(m.host.Load()) }

func (m *member) running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.child != nil && m.child.Running()
}

// end ends the process, whatever it is doing.
func (m *member) end(how func(*bench.Child) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.child == nil {
		return nil
	}
	err := how(m.child)
	if !m.child.Running() {
		m.child = nil
	}
	return err
}

func (m *member) kill() { _ = m.end((*bench.Child).Kill) }

func (m *member) signal(s os.Signal) error {
	return m.end(func(c *bench.Child) error { return c.Signal(s) })
}

func (m *member) words() string { return lastWords(m.log) }

// readLag measures how long after its acknowledgement a record is read by who follows the end of the log.
type readLag struct {
	mu      sync.Mutex
	pending [faultPartitions][]ackedAt
	next    [faultPartitions]id.Offset // read up to here
	begun   time.Time                  // of the window
	worst   time.Duration
}

type ackedAt struct {
	offset id.Offset
	at     time.Time
}

func (l *readLag) acked(a client.Ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.Err == nil && a.Offset >= l.next[a.Partition] {
		l.pending[a.Partition] = append(l.pending[a.Partition], ackedAt{a.Offset, time.Now()})
	}
}

func (l *readLag) read(p id.Partition, next id.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next[p] = max(l.next[p], next)
	now := time.Now()
	l.pending[p] = slices.DeleteFunc(l.pending[p], func(a ackedAt) bool {
		if a.offset < l.next[p] {
			l.note(now, a)
		}
		return a.offset < l.next[p]
	})
}

func (l *readLag) note(now time.Time, a ackedAt) {
	from := a.at
	if from.Before(l.begun) {
		from = l.begun
	}
	l.worst = max(l.worst, now.Sub(from))
}

// window ends a window and begins the next one.
func (l *readLag) window() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, pending := range l.pending {
		for _, a := range pending {
			l.note(now, a)
		}
	}
	worst := l.worst
	l.begun, l.worst = now, 0
	return worst
}

// partitionRun is a run of one scenario.
type partitionRun struct {
	*faultRun
	scenario partitionScenario
	net      *testNet
	members  []*member
	lag      *readLag
	prober   *http.Client
	victim   int // the node that the fault is about

	background sync.WaitGroup
	stop       context.CancelFunc // of the background
	row        partitionRow
}

// partitionRow is a line of the table at the end.
type partitionRow struct {
	faultOutcome
	victim        int
	during, after time.Duration // the longest pauses of a partition
	lag           time.Duration
	up, ready     int
	note          string
}

// play runs the scenario and fills its line of the table.
func (r *partitionRun) play() {
	r.setUp()
	producing, endProducing := r.startProducing(1000)
	r.background.Go(func() { r.follow(producing) })
	r.hold(2 * time.Second)

	r.beginWindow()
	r.injected = time.Now()
	r.scenario.fault(r)
	r.endWindow("during the fault")
	if v := r.scenario.unready; v != nil {
		for _, number := range v(r) {
			m := r.members[number-1]
			if said := m.readiness.Load(); said.code == http.StatusOK {
				r.miss("node %d, which hears of no leaders, says that it is ready", number)
			} else {
				r.say("node %d is not ready since %+.1f s: %d %s", number, said.since.Sub(r.injected).Seconds(), said.code, said.text)
			}
		}
	}
	r.heal()

	endProducing()
	r.compare(patience)
}

// beginWindow begins a window: pauses count from now on.
func (r *partitionRun) beginWindow() {
	r.pauses.window()
	r.lag.window()
}

// endWindow reports the pauses of the window that ends, as those during the fault.
func (r *partitionRun) endWindow(name string) windowPauses {
	w := r.pauses.window()
	lag := r.lag.window()
	r.row.lag = max(r.row.lag, lag)
	most := w.most()
	r.row.during = max(r.row.during, w.longest[most])
	r.say("%s: longest pauses %s, the longest, of partition %d, began %+.1f s after the fault; a record was read %.2f s late",
		name, &w, most, w.began[most].Sub(r.injected).Seconds(), lag.Seconds())
	if goal := r.scenario.goal; goal > 0 && w.longest[most] > goal {
		r.miss("partition %d went %.1f s without acknowledgements, %s", most, w.longest[most].Seconds(), name)
	}
	return w
}

// heal ends the fault, starts what is down, and waits until everything is as it was.
func (r *partitionRun) heal() {
	healed := time.Now()
	r.say("the fault ends")
	r.net.healAll()
	for _, m := range r.members {
		if !m.running() {
			r.start(m)
		}
	}
	r.awaitRecovery(healed)
	r.hold(settle)
	w := r.pauses.window()
	r.row.after = w.longest[w.most()]
	r.lag.window()
	ready := func() (n int) {
		for _, m := range r.members {
			if said := m.readiness.Load(); said != nil && said.code == http.StatusOK {
				n++
			}
		}
		return n
	}
	if !inTime(patience/2, func() bool { return ready() == len(r.members) }) {
		for _, m := range r.members {
			if said := m.readiness.Load(); said.code != http.StatusOK {
				r.miss("node %d is not ready after the fault: %d %s; its last words: %s", m.number, said.code, said.text, m.words())
			}
		}
	}
	r.row.ready = ready()
	for _, m := range r.members {
		if m.running() {
			r.row.up++
		} else {
			r.miss("node %d does not run after the fault: %s", m.number, m.words())
		}
	}
	r.say("all partitions went on %.2f s after the fault; longest pauses from then on %s", r.outcome.recovery.Seconds(), &w)
}

func (r *partitionRun) setUp() {
	r.t.Helper()
	r.dir = r.t.TempDir()
	r.binary = binaryUnderTest(r.t)
	nodes := max(r.scenario.nodes, faultNodes)
	r.net = newNet(r.t, nodes+1) // one host more, for a node too many
	from := &net.TCPAddr{IP: net.ParseIP(r.net.address(prober))}
	r.prober = &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: from}).DialContext,
	}}
	for n := 1; n <= nodes; n++ {
		r.members = append(r.members, r.newMember(n, n, filepath.Join(r.dir, fmt.Sprint("node-", n))))
	}
	background, stop := context.WithCancel(r.ctx)
	r.stop = stop
	r.t.Cleanup(func() {
		stop()
		for _, m := range r.members {
			m.kill()
		}
		r.background.Wait()
		r.keepLogs("QUORUMLOG_PARTITIONS_LOGS")
	})
	r.load()
	var starting sync.WaitGroup
	for _, m := range r.members {
		r.background.Go(func() { r.watch(background, m) })
		starting.Go(func() {
			if m.number == 1 {
				r.start(m, "--bootstrap")
			} else {
				r.start(m)
			}
		})
	}
	starting.Wait()
	if r.t.Failed() {
		r.t.FailNow()
	}
	r.client = newClient(r.t, r.servers()...)
	r.createTopic(r.ctx)
	r.choose(true)
	if r.scenario.contact {
		r.client = newClient(r.t, fmt.Sprintf("%s:%d", r.net.address(r.victim), rpcPort))
	}
}

// servers are the addresses for clients.
func (r *partitionRun) servers() (all []string) {
	for _, m := range r.members {
		all = append(all, fmt.Sprintf("%s:%d", r.net.address(m.at()), rpcPort))
	}
	return all
}

func (r *partitionRun) newMember(number, host int, dir string) *member {
	m := &member{number: number, dir: dir, log: dir + ".log"}
	m.host.Store(int32(host))
	return m
}

// load keeps processors busy, as many as QUORUMLOG_LOAD says.
func (r *partitionRun) load() {
	n, _ := strconv.Atoi(os.Getenv("QUORUMLOG_LOAD"))
	for range n {
		c := exec.Command("sh", "-c", "while :; do :; done")
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		start(r.t, c)
	}
}

// tryStart starts a node, and tells why it does not serve.
func (r *partitionRun) tryStart(ctx context.Context, m *member, more ...string) error {
	address := func(port int) string { return fmt.Sprintf("%s:%d", r.net.address(m.at()), port) }
	args := []string{
		"netns", "exec", r.net.space(m.at()), r.binary, "node", "--node-id", strconv.Itoa(m.number), "--data-dir", m.dir,
		"--rpc-address", address(rpcPort), "--gossip-address", address(gossipPort), "--metrics", address(metricsPort),
		"--cluster-name", r.net.name, "--cache-mb", "64",
	}
	for h := 1; h <= len(r.members); h++ {
		if h != m.at() {
			args = append(args, "--join", fmt.Sprintf("%s:%d", r.net.address(h), gossipPort))
		}
	}
	child, err := bench.StartChild(ctx, bench.ChildOptions{
		Name: fmt.Sprint("node ", m.number), Path: "ip", Args: append(args, more...), Log: m.log,
		Ready: func(line string) bool { return strings.Contains(line, " serves: ") },
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.child = child
	return err
}

// start starts a node that has to start.
func (r *partitionRun) start(m *member, more ...string) {
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	begin := time.Now()
	if err := r.tryStart(ctx, m, more...); err != nil {
		r.miss("node %d does not start: %v", m.number, err)
		return
	}
	r.say("node %d serves after %.2f s", m.number, time.Since(begin).Seconds())
}

// choose takes the victim, once all nodes are ready and in sync: one that leads partitions, or the one that leads the metadata. all: when
// each node leads some.
func (r *partitionRun) choose(all bool) {
	var leads map[id.Node][]id.Partition
	var m client.Metadata
	eventually(r.t, "all nodes to be ready, and lead", func() bool {
		var err error
		if m, err = r.client.Admin().Metadata(r.ctx, chaosTopic); err != nil || len(m.Topics) == 0 {
			return false
		}
		leads = make(map[id.Node][]id.Partition)
		for _, p := range m.Topics[0].Partitions {
			leads[p.Leader] = append(leads[p.Leader], p.Partition)
		}
		for _, m := range r.members {
			if said := m.readiness.Load(); said == nil || said.code != http.StatusOK || all && len(leads[id.Node(m.number)]) == 0 {
				return false
			}
		}
		status, err := r.client.Admin().ClusterStatus(r.ctx)
		return err == nil && leads[id.NoNode] == nil && status.UnderReplicated == 0 && status.Leaderless == 0 && len(status.Metadata.Voters) >= 3
	})
	leaders := slices.Sorted(maps.Keys(leads))
	if r.victim = int(leaders[r.random.IntN(len(leaders))]); r.scenario.controller {
		r.victim = int(m.Controller)
	}
	r.row.victim = r.victim
	r.say("victim: node %d; partitions by leader: %v; controller: node %d", r.victim, leads, m.Controller)
}

// others are the nodes beside some.
func (r *partitionRun) others(but ...int) (others []int) {
	for _, m := range r.members {
		if !slices.Contains(but, m.number) {
			others = append(others, m.number)
		}
	}
	return others
}

func (r *partitionRun) member(number int) *member { return r.members[number-1] }

// hold lets time pass.
func (r *partitionRun) hold(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}

// watch asks a node for its readiness all the time, past all cuts.
func (r *partitionRun) watch(ctx context.Context, m *member) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		code, text := r.readyz(ctx, m)
		last := m.readiness.Load()
		if last == nil || last.code != code {
			m.readiness.Store(&readiness{code, text, time.Now()})
			if last != nil && ctx.Err() == nil {
				r.say("node %d: /readyz says %d %s", m.number, code, text)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *partitionRun) readyz(ctx context.Context, m *member) (code int, text string) {
	return readyz(ctx, r.prober, fmt.Sprintf("%s:%d", r.net.address(m.at()), metricsPort))
}

// follow reads what is appended, as soon as it is.
func (r *partitionRun) follow(ctx context.Context) {
	consumer, err := r.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		r.miss("no consumer: %v", err)
		return
	}
	defer consumer.Close()
	for p := range id.Partition(faultPartitions) {
		if err := consumer.Assign(id.TopicPartition{Topic: chaosTopic, Partition: p}, client.Beginning); err != nil {
			r.miss("a consumer cannot be assigned partition %d: %v", p, err)
		}
	}
	for ctx.Err() == nil {
		fetch, err := consumer.Poll(ctx)
		if errors.Is(err, client.ErrNoNodeReachable) {
			continue // all may be cut off
		}
		if err != nil {
			if ctx.Err() == nil {
				r.miss("the consumer has ended: %v", err)
			}
			return
		}
		next := id.Offset(0)
		for m, err := range fetch.Records() {
			if err != nil {
				r.miss("a consumer reads what is no batch: %v", err)
				return
			}
			next = m.Offset + 1
		}
		r.lag.read(fetch.Partition, next)
	}
}
