package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// disksRound is how long a fault lasts before the middle of it comes, and after it: the middle is a kill, or worse.
	disksRound = 12 * time.Second
	// disksGoal is how long a partition may go without acknowledgements when one disk is bad.
	disksGoal = 2 * time.Second
)

// diskRun is one scenario on one kind of disk.
type diskRun struct {
	*faultRun
	scenario diskScenario
	kind     diskKind
	disks    []*testDisk
	metrics  []string // addresses, by node
	victims  []int    // whose disks are bad, counted from 0

	busy     [faultNodes]atomic.Bool // it is being killed and started
	ended    [faultNodes]atomic.Bool // it was seen to have ended by itself
	restarts sync.WaitGroup
	probes   sync.WaitGroup
	row      diskRow
}

// diskRow is a line of the table at the end.
type diskRow struct {
	faultOutcome
	victims  string
	steady   time.Duration // longest pause before the first middle
	kills    time.Duration // and after it
	upDuring string
	upAfter  string
	memory   int64 // the most that a process had
}

// play runs the scenario and fills its line of the table.
func (r *diskRun) play() {
	r.setUp()
	before := int64(1000)
	if r.scenario.bulk {
		before = 8000
	}
	_, endProducing := r.startProducing(before)
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

	endProducing()
	r.compareOrKill()
}

// compareOrKill reads everything back. If that does not come to an end, the bad nodes are killed: then it shows whether the others have it.
func (r *diskRun) compareOrKill() {
	help := time.AfterFunc(patience/2, func() {
		r.miss("what was acknowledged could not be read within %v; the bad nodes are killed", patience/2)
		for _, v := range r.victims {
			_ = r.node(v).Kill()
		}
	})
	defer help.Stop()
	r.compare(2 * patience)
}

// heal ends the fault, starts what is down, and waits until all partitions go on.
func (r *diskRun) heal() {
	healed := time.Now()
	r.say("the fault ends")
	r.scenario.heal(r)
	r.restarts.Wait()
	r.startAll("after the fault")
	r.awaitRecovery(healed)
	before := r.states()
	r.hold(time.Second)
	if after := r.states(); after != before {
		r.miss("a process ended when the fault did: %s", after)
		r.startAll("having ended after the fault")
	}
	r.row.upAfter = r.states()
	allReady := func() bool {
		for i := range faultNodes {
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
	for i := range faultNodes {
		switch {
		case r.state(i) == "up":
		case r.scenario.refuses && slices.Contains(r.victims, i):
			r.say("node %d refuses its disk, as it may; judge whether this names a remedy: %s", i+1, r.words(i))
		default:
			r.miss("node %d does not run after the fault: %s", i+1, r.words(i))
		}
	}
	r.say("all partitions went on %.1f s after the fault; nodes: %s", r.outcome.recovery.Seconds(), r.row.upAfter)
}

// startAll starts the nodes that are down.
func (r *diskRun) startAll(why string) {
	for i := range faultNodes {
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
	for i := range faultNodes {
		r.disks = append(r.disks, newDisk(r.t, r.kind, dir, i+1, size))
	}
	prefix := r.freePorts()
	args := append([]string{"--data-dir", filepath.Join(dir, "disk-{node}", "data"), "--metrics", "127.0.0.1:" + prefix + "{node}"}, r.scenario.args...)
	for i := range faultNodes {
		r.metrics = append(r.metrics, fmt.Sprintf("127.0.0.1:%s%d", prefix, i+1))
	}
	r.binary = binaryUnderTest(r.t)
	node := r.binary
	if r.scenario.wrapper != "" {
		node = filepath.Join(dir, "wrapper")
		must(r.t, os.WriteFile(node, []byte("#!/bin/sh\n"+r.scenario.wrapper+"\nexec "+r.binary+" \"$@\"\n"), 0o755))
	}
	cluster, err := bench.StartCluster(r.ctx, bench.ClusterOptions{Binary: node, Dir: dir, Nodes: faultNodes, Args: args})
	if err != nil {
		r.t.Fatal(err)
	}
	r.cluster = cluster
	r.t.Cleanup(func() {
		_ = cluster.Close()
		r.restarts.Wait()
		_ = cluster.Close() // what a restart under way has started
		r.probes.Wait()
		r.keepLogs("QUORUMLOG_DISKS_LOGS")
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
		for i := range faultNodes {
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
		r.victims = r.random.Perm(faultNodes)[:r.scenario.bad]
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
		for i := range faultNodes {
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
	for i := range faultNodes {
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

// words returns the last telling line that a node has printed.
func (r *diskRun) words(i int) string {
	return lastWords(filepath.Join(r.dir, fmt.Sprintf("node-%d.log", i+1)))
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

// endWindow reports the pauses of the window that ends.
func (r *diskRun) endWindow(worst *time.Duration, counts bool, name string) {
	w := r.pauses.window()
	most := w.most()
	if !counts {
		worst = &r.row.kills // kills of earlier rounds may still be felt
	}
	*worst = max(*worst, w.longest[most])
	r.say("longest pauses in seconds, %s: %s; the longest, of partition %d, began %+.1f s after the fault; nodes: %s",
		name, &w, most, w.began[most].Sub(r.injected).Seconds(), r.states())
	if r.scenario.goes && w.longest[most] > disksGoal {
		r.miss("partition %d went %.1f s without acknowledgements, %s", most, w.longest[most].Seconds(), name)
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
		for i := range faultNodes {
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
	for n := range id.Partition(faultPartitions) {
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
	code, text := readyz(ctx, http.DefaultClient, r.metrics[i])
	return fmt.Sprintf("%d %s", code, text)
}
