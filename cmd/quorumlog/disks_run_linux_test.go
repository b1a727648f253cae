package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	disksPartitions = 6
	disksNodes      = 3

	// disksRound is how long a fault lasts before the middle of it comes, and after it: the middle is a kill, or worse.
	disksRound = 12 * time.Second
	// disksGoal is how long a partition may go without acknowledgements when one disk is bad.
	disksGoal = 2 * time.Second
)

// pauses notes for each partition the longest time without an acknowledgement within a window.
type pauses struct {
	mu          sync.Mutex
	last, worst [disksPartitions]time.Time // worst: when the longest pause began
	longest     [disksPartitions]time.Duration
	failed      error // of a record, the last one
}

func (p *pauses) heard(a client.Ack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.Err != nil {
		p.failed = a.Err
		return
	}
	p.noteLocked(a.Partition, time.Now())
}

func (p *pauses) noteLocked(n id.Partition, now time.Time) {
	if pause := now.Sub(p.last[n]); pause > p.longest[n] {
		p.longest[n], p.worst[n] = pause, p.last[n]
	}
	p.last[n] = now
}

// window ends a window and begins the next one. A pause counts from the beginning of its window.
func (p *pauses) window() (longest [disksPartitions]time.Duration, began [disksPartitions]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for n := range p.last {
		p.noteLocked(id.Partition(n), now)
	}
	longest, began = p.longest, p.worst
	p.longest = [disksPartitions]time.Duration{}
	return longest, began
}

// silentSince lists the partitions that nothing was heard of after t.
func (p *pauses) silentSince(t time.Time) (silent []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n, last := range p.last {
		if !last.After(t) {
			silent = append(silent, n)
		}
	}
	return silent
}

// diskRun is one scenario on one kind of disk.
type diskRun struct {
	*chaosRun
	scenario diskScenario
	kind     diskKind
	ctx      context.Context
	length   time.Duration
	random   *rand.Rand
	dir      string
	binary   string
	disks    []*testDisk
	metrics  []string // addresses, by node
	pauses   *pauses
	victims  []int // whose disks are bad, counted from 0

	injected time.Time
	busy     [disksNodes]atomic.Bool // it is being killed and started
	ended    [disksNodes]atomic.Bool // it was seen to have ended by itself
	restarts sync.WaitGroup
	probes   sync.WaitGroup

	mu       sync.Mutex
	problems []string // goals that were missed
	row      diskRow
}

// diskRow is a line of the table at the end.
type diskRow struct {
	name     string
	victims  string
	report   bench.Report
	complete bool          // everything was read back
	steady   time.Duration // longest pause before the first middle
	kills    time.Duration // and after it
	recovery time.Duration // until all partitions went on after the fault
	upDuring string
	upAfter  string
	memory   int64 // the most that a process had
	problems []string
}

// binaryUnderTest is QUORUMLOG_BINARY, or the program as it stands here.
func binaryUnderTest(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("QUORUMLOG_BINARY"); path != "" {
		return path
	}
	return buildBinary(t)
}

// say logs, with the time since the fault.
func (r *diskRun) say(format string, args ...any) {
	at := "     "
	if !r.injected.IsZero() {
		at = fmt.Sprintf("%+5.1fs", time.Since(r.injected).Seconds())
	}
	r.t.Logf("%s %s", at, fmt.Sprintf(format, args...))
}

// miss notes a goal that was missed. The scenario goes on.
func (r *diskRun) miss(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.problems = append(r.problems, text)
	r.mu.Unlock()
	r.say("MISSED: %s", text)
	r.t.Fail()
}

// play runs the scenario and fills its line of the table.
func (r *diskRun) play() {
	r.setUp()
	stop, produced := make(chan struct{}), make(chan error, 1)
	producing, giveUp := context.WithCancel(r.ctx)
	defer giveUp()
	go func() { produced <- r.produce(producing, stop) }()
	before := int64(1000)
	if r.scenario.bulk {
		before = 8000
	}
	if !r.awaitAcks(r.ctx, before) {
		r.t.Fatalf("too few acknowledgements before the fault, the last failure: %v; does %s speak the protocol of this client?", r.pauses.failed, r.binary)
	}
	r.chooseVictims()

	r.pauses.window()
	r.injected = time.Now()
	r.scenario.inject(r)
	for round := range max(1, int(r.length/(2*disksRound))) {
		r.probes.Go(func() { r.probe(2 * round) })
		r.hold(disksRound)
		if r.scenario.middle != nil {
			r.endWindow(&r.row.steady, round == 0, "without kills")
			r.scenario.middle(r, round)
		}
		r.probes.Go(func() { r.probe(2*round + 1) })
		r.hold(disksRound)
		if r.scenario.middle != nil {
			r.endWindow(&r.row.kills, true, "with kills")
		}
	}
	if r.scenario.middle == nil {
		r.endWindow(&r.row.steady, true, "all the time")
	}
	r.row.upDuring = r.states()
	if r.scenario.stays && (r.ended[0].Load() || r.ended[1].Load() || r.ended[2].Load()) {
		r.miss("a process ended by itself; at the end of the fault: %s", r.row.upDuring)
	}
	r.probes.Wait()
	r.heal()

	close(stop)
	late := time.AfterFunc(patience/2, giveUp)
	if err := <-produced; err != nil {
		r.miss("producing: %v", err)
	}
	late.Stop()
	r.compare()
}

// compare reads everything back. If that does not come to an end, the bad nodes are killed: then it shows whether the others have it.
func (r *diskRun) compare() {
	ctx, cancel := context.WithTimeout(r.ctx, 2*patience)
	defer cancel()
	begin := time.Now()
	help := time.AfterFunc(patience/2, func() {
		r.miss("what was acknowledged could not be read within %v; the bad nodes are killed", patience/2)
		for _, v := range r.victims {
			_ = r.node(v).Kill()
		}
	})
	report, err := r.readBack(ctx)
	help.Stop()
	r.row.report = report
	if r.row.complete = err == nil; !r.row.complete { // what was not read counts as lost
		r.miss("reading what was acknowledged: %v", err)
	}
	if !report.OK() || report.Acked == 0 {
		r.miss("%+v", report)
	}
	r.say("acknowledged %d, read %d, lost %d, doubled %d, reordered %d, in %.1f s", report.Acked, report.Read, report.Lost, report.Duplicated,
		report.Reordered, time.Since(begin).Seconds())
}

// heal ends the fault, starts what is down, and waits until all partitions go on.
func (r *diskRun) heal() {
	healed := time.Now()
	r.say("the fault ends")
	r.scenario.heal(r)
	r.restarts.Wait()
	r.startAll("after the fault")
	if !inTime(patience, func() bool { return len(r.pauses.silentSince(healed)) == 0 }) {
		r.miss("partitions %v do not go on after the fault; the last failure of a record: %v", r.pauses.silentSince(healed), r.pauses.failed)
	}
	r.row.recovery = time.Since(healed)
	before := r.states()
	r.hold(time.Second)
	if after := r.states(); after != before {
		r.miss("a process ended when the fault did: %s", after)
		r.startAll("having ended after the fault")
	}
	r.row.upAfter = r.states()
	allReady := func() bool {
		for i := range disksNodes {
			if r.state(i) == "up" && !strings.HasPrefix(r.readyz(i), "200 ") {
				return false
			}
		}
		return true
	}
	if !inTime(patience/2, allReady) {
		answers := fmt.Sprintf("%s; %s; %s", r.readyz(0), r.readyz(1), r.readyz(2))
		if r.scenario.refuses {
			r.say("not all nodes are ready after the fault: %s", answers)
		} else {
			r.miss("not all nodes are ready after the fault: %s", answers)
		}
	}
	for i := range disksNodes {
		switch {
		case r.state(i) == "up":
		case r.scenario.refuses && slices.Contains(r.victims, i):
			r.say("node %d refuses its disk, as it may; judge whether this names a remedy: %s", i+1, r.words(i))
		default:
			r.miss("node %d does not run after the fault: %s", i+1, r.words(i))
		}
	}
	r.say("all partitions went on %.1f s after the fault; nodes: %s", r.row.recovery.Seconds(), r.row.upAfter)
}

// startAll starts the nodes that are down.
func (r *diskRun) startAll(why string) {
	for i := range disksNodes {
		if r.state(i) == "down" {
			r.restart(i, why, nil)
		}
	}
	r.restarts.Wait()
}

func (r *diskRun) setUp() {
	r.t.Helper()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", disksDirectory, os.Getpid()))
	must(r.t, err)
	r.dir = dir
	r.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	size := r.scenario.size
	if size == 0 {
		size = 1<<30 + int64(r.length.Seconds())*(2<<20)
	}
	for i := range disksNodes {
		r.disks = append(r.disks, newDisk(r.t, r.kind, dir, i+1, size))
	}
	prefix := r.freePorts()
	args := append([]string{"--data-dir", filepath.Join(dir, "disk-{node}", "data"), "--metrics", "127.0.0.1:" + prefix + "{node}"}, r.scenario.args...)
	for i := range disksNodes {
		r.metrics = append(r.metrics, fmt.Sprintf("127.0.0.1:%s%d", prefix, i+1))
	}
	r.binary = binaryUnderTest(r.t)
	node := r.binary
	if r.scenario.wrapper != "" {
		node = filepath.Join(dir, "wrapper")
		must(r.t, os.WriteFile(node, []byte("#!/bin/sh\n"+r.scenario.wrapper+"\nexec "+r.binary+" \"$@\"\n"), 0o755))
	}
	cluster, err := bench.StartCluster(r.ctx, bench.ClusterOptions{Binary: node, Dir: dir, Nodes: disksNodes, Args: args})
	if err != nil {
		r.t.Fatal(err)
	}
	r.cluster = cluster
	r.t.Cleanup(func() {
		_ = cluster.Close()
		r.restarts.Wait()
		_ = cluster.Close() // what a restart under way has started
		r.probes.Wait()
		r.keepLogs()
	})
	r.client = newClient(r.t, cluster.Servers()...)
	r.createTopic(r.ctx)
	for i := range r.victimTopics() {
		must(r.t, r.client.Admin().CreateTopic(r.ctx, client.TopicSpec{Name: fmt.Sprint("victim-", i), Partitions: 3, ReplicationFactor: 3}))
	}
}

// victimTopics is the number of topics that are there to be deleted, one in each probe.
func (r *diskRun) victimTopics() int { return 2 * max(1, int(r.length/(2*disksRound))) }

// freePorts returns the first four digits of ports, one for each node.
func (r *diskRun) freePorts() string {
	for {
		prefix := strconv.Itoa(1100 + rand.IntN(2000))
		free := true
		for i := range disksNodes {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%s%d", prefix, i+1))
			if free = free && err == nil; err == nil {
				l.Close()
			}
		}
		if free {
			return prefix
		}
	}
}

// chooseVictims takes nodes at random, and says what they lead.
func (r *diskRun) chooseVictims() {
	m, err := r.client.Admin().Metadata(r.ctx, chaosTopic)
	must(r.t, err)
	switch {
	case r.scenario.controller:
		r.victims = []int{int(m.Controller) - 1}
	case r.scenario.victims != nil:
		r.victims = r.scenario.victims
	default:
		r.victims = r.random.Perm(disksNodes)[:r.scenario.bad]
	}
	leads := make(map[id.Node][]id.Partition)
	for _, p := range m.Topics[0].Partitions {
		leads[p.Leader] = append(leads[p.Leader], p.Partition)
	}
	var names []string
	for _, v := range r.victims {
		names = append(names, strconv.Itoa(v+1))
	}
	r.row.victims = strings.Join(names, ",")
	r.say("bad: nodes [%s]; partitions by leader: %v; controller: node %d", r.row.victims, leads, m.Controller)
}

func (r *diskRun) node(i int) *bench.Process { return r.cluster.Nodes()[i] }

// state says whether a node runs.
func (r *diskRun) state(i int) string {
	if r.busy[i].Load() {
		return "starting" // its lock is held
	}
	if pid := r.node(i).PID(); pid != 0 && unix.Kill(pid, 0) == nil {
		return "up"
	}
	return "down"
}

func (r *diskRun) states() string {
	return strings.Join([]string{r.state(0), r.state(1), r.state(2)}, " ")
}

// hold lets time pass, and notes which nodes end by themselves.
func (r *diskRun) hold(d time.Duration) {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for i := range disksNodes {
			if !r.ended[i].Load() && r.state(i) == "down" {
				r.ended[i].Store(true)
				r.say("node %d has ENDED by itself: %s", i+1, r.words(i))
			}
		}
		select {
		case <-tick.C:
		case <-end.C:
			r.noteMemory()
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// noteMemory looks at how much memory the processes have.
func (r *diskRun) noteMemory() {
	var texts []string
	for i := range disksNodes {
		if r.state(i) != "up" {
			continue
		}
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.node(i).PID())); err == nil {
			if fields := strings.Fields(string(data)); len(fields) > 1 {
				pages, _ := strconv.ParseInt(fields[1], 10, 64)
				r.row.memory = max(r.row.memory, pages*int64(os.Getpagesize()))
				texts = append(texts, fmt.Sprintf("node %d %d MB", i+1, pages*int64(os.Getpagesize())>>20))
			}
		}
	}
	r.say("memory: %s", strings.Join(texts, ", "))
}

// restart kills a node with SIGKILL, does what there is to do between, and starts it. It does not wait: on a hung disk it takes as long
// as that hangs.
func (r *diskRun) restart(i int, why string, between func()) {
	r.busy[i].Store(true)
	r.restarts.Go(func() {
		defer r.busy[i].Store(false)
		begin := time.Now()
		if err := r.node(i).Kill(); err != nil {
			r.miss("killing node %d: %v", i+1, err)
			return
		}
		if between != nil {
			between()
		}
		gone := time.Since(begin)
		ctx, cancel := context.WithTimeout(r.ctx, patience)
		defer cancel()
		if err := r.node(i).Start(ctx); err != nil {
			r.say("node %d, kill -9 and start, %s: FAILED after %.1f s: %s", i+1, why, time.Since(begin).Seconds(), r.words(i))
			r.ended[i].Store(true)
			return
		}
		r.say("node %d, kill -9 and start, %s: gone after %.1f s, serves after %.1f s", i+1, why, gone.Seconds(), time.Since(begin).Seconds())
	})
}

var telling = regexp.MustCompile(`^panic: |^fatal|^Error|^error|level=ERROR|stopped: |cannot `)

// words returns the last telling line that a node has printed.
func (r *diskRun) words(i int) string {
	data, err := os.ReadFile(r.logFile(i))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range slices.Backward(lines) {
		if telling.MatchString(line) {
			return strings.ToValidUTF8(line, "?")
		}
	}
	return strings.ToValidUTF8(lines[len(lines)-1], "?")
}

func (r *diskRun) logFile(i int) string { return filepath.Join(r.dir, fmt.Sprintf("node-%d.log", i+1)) }

// keepLogs copies what the nodes printed to QUORUMLOG_DISKS_LOGS, if that is set.
func (r *diskRun) keepLogs() {
	to := os.Getenv("QUORUMLOG_DISKS_LOGS")
	if to == "" {
		return
	}
	to = filepath.Join(to, strings.ReplaceAll(r.t.Name(), "/", "-"))
	_ = os.MkdirAll(to, 0o755)
	for i := range disksNodes {
		if data, err := os.ReadFile(r.logFile(i)); err == nil {
			_ = os.WriteFile(filepath.Join(to, filepath.Base(r.logFile(i))), data, 0o644)
		}
	}
}

// endWindow reports the pauses of the window that ends.
func (r *diskRun) endWindow(worst *time.Duration, counts bool, name string) {
	longest, began := r.pauses.window()
	var texts []string
	most := 0
	for n, d := range longest {
		texts = append(texts, fmt.Sprintf("%.2f", d.Seconds()))
		if d > longest[most] {
			most = n
		}
	}
	if !counts {
		worst = &r.row.kills // kills of earlier rounds may still be felt
	}
	*worst = max(*worst, longest[most])
	r.say("longest pauses in seconds, %s: %s; the longest, of partition %d, began %+.1f s after the fault; nodes: %s",
		name, strings.Join(texts, " "), most, began[most].Sub(r.injected).Seconds(), r.states())
	if r.scenario.goes && longest[most] > disksGoal {
		r.miss("partition %d went %.1f s without acknowledgements, %s", most, longest[most].Seconds(), name)
	}
}

// probe asks what an operator would, reads from the beginning, and deletes a topic.
func (r *diskRun) probe(n int) {
	half := time.NewTimer(disksRound / 3)
	defer half.Stop()
	select {
	case <-half.C:
	case <-r.ctx.Done():
		return
	}
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() { r.say("status: %s", r.status()) })
	asked.Go(func() {
		var answers []string
		for i := range disksNodes {
			answers = append(answers, fmt.Sprintf("node %d: %s", i+1, r.readyz(i)))
		}
		r.say("/readyz: %s", strings.Join(answers, "; "))
	})
	asked.Go(func() {
		r.measure("deleting a topic", func(ctx context.Context) error { return r.client.Admin().DeleteTopic(ctx, fmt.Sprint("victim-", n)) })
	})
	asked.Go(func() { r.measure("reading from the beginning", r.readSome) })
}

// measure does what must work in some scenarios, and notes how it went.
func (r *diskRun) measure(what string, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.ctx, disksRound/2) // before a kill can help
	defer cancel()
	begin := time.Now()
	err := do(ctx)
	took := time.Since(begin).Seconds()
	switch {
	case err == nil:
		r.say("%s: done in %.2f s", what, took)
	case r.scenario.serves:
		r.miss("%s: failed after %.2f s: %v", what, took, err)
	default:
		r.say("%s: failed after %.2f s: %v", what, took, err)
	}
}

// readSome reads the first records of every partition.
func (r *diskRun) readSome(ctx context.Context) error {
	consumer, err := r.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	defer consumer.Close()
	open := make(map[id.Partition]int)
	for n := range id.Partition(disksPartitions) {
		open[n] = 0
		if err := consumer.Assign(id.TopicPartition{Topic: chaosTopic, Partition: n}, client.Beginning); err != nil {
			return err
		}
	}
	for len(open) > 0 {
		fetch, err := consumer.Poll(ctx)
		if err != nil {
			return fmt.Errorf("partitions %v: %w", slices.Sorted(maps.Keys(open)), err)
		}
		if _, ok := open[fetch.Partition]; !ok {
			continue
		}
		for _, err := range fetch.Records() {
			if err != nil {
				return err
			}
			open[fetch.Partition]++
		}
		if fetch.CaughtUp || open[fetch.Partition] > 1000 {
			delete(open, fetch.Partition)
		}
	}
	return nil
}

// status is what cluster status -o json says, in a line.
func (r *diskRun) status() string {
	ctx, cancel := context.WithTimeout(r.ctx, disksRound)
	defer cancel()
	c := exec.CommandContext(ctx, r.binary, "cluster", "status", "-o", "json", "--timeout", "6s", "--servers", strings.Join(r.cluster.Servers(), ","))
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, strings.TrimSpace(errs.String()))
	}
	var s struct {
		client.ClusterStatus
		Nodes []map[string]any `json:"nodes"`
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("under-replicated %d, leaderless %d, metadata leader %d", s.UnderReplicated, s.Leaderless, s.Metadata.Leader)
	for _, n := range s.Nodes {
		for _, dull := range []string{"address", "gossip_address", "version", "protocol", "fsync_class", "metrics_address", "replicas"} {
			delete(n, dull)
		}
		line, _ := json.Marshal(n)
		text += "\n\t\t" + string(line)
	}
	return text
}

func (r *diskRun) readyz(i int) string {
	ctx, cancel := context.WithTimeout(r.ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.metrics[i]+"/readyz", nil)
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
	return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(text)))
}
