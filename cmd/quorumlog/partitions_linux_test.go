package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
)

// partitionsVariable turns TestPartitions on: it is the length of each scenario's fault, or 1 for the shortest.
const partitionsVariable = "QUORUMLOG_PARTITIONS"

const (
	partitionsLength = 15 * time.Second
	// electionGoal is how long a partition may go without acknowledgements when its leader is cut off without a word: nobody campaigns
	// before an election timeout, which takes up to twice 3 s, and clients have 2 s more to find the new leader.
	electionGoal = 8 * time.Second
	// killGoal is for a leader whose death its peers are told of, by their kernel.
	killGoal = 2 * time.Second
)

// partitionScenario is something that goes wrong between nodes, or with whole nodes. In all of them nothing that was acknowledged may be
// lost, doubled or reordered, and every partition must go on and every node be ready afterwards.
type partitionScenario struct {
	name       string
	nodes      int                       // 0: three
	controller bool                      // the victim is the leader of the metadata; else it leads partitions, as every node does
	contact    bool                      // clients know no node but the victim at first
	goal       time.Duration             // longest time that a partition may go without acknowledgements during the fault; 0: any
	unready    func(*partitionRun) []int // nodes that must not be ready at the end of the fault; nil: none
	fault      func(*partitionRun)       // returns when it is over, but for the network
}

func victimOnly(r *partitionRun) []int { return []int{r.victim} }

// lost is a fault in which packets are lost for its whole length.
func lost(links func(*partitionRun) []link) func(*partitionRun) {
	return func(r *partitionRun) {
		r.net.lose(links(r)...)
		r.hold(r.length)
	}
}

func isolation(r *partitionRun) []link { return both(r.victim, r.others(r.victim)...) }

func partitionScenarios() []partitionScenario {
	apart := func(r *partitionRun) []link { return both(clients, r.others(r.victim)...) }
	return []partitionScenario{
		{name: "none", goal: time.Second, fault: func(r *partitionRun) { r.hold(r.length) }},

		// The network.
		{name: "isolated", contact: true, goal: electionGoal, unready: victimOnly, fault: lost(isolation)},
		{name: "isolated-controller", controller: true, contact: true, goal: electionGoal, unready: victimOnly, fault: lost(isolation)},
		{name: "deaf", contact: true, goal: electionGoal, unready: victimOnly, fault: lost(func(r *partitionRun) (links []link) {
			for _, o := range r.others(r.victim) {
				links = append(links, link{o, r.victim})
			}
			return links
		})},
		{name: "mute", contact: true, goal: electionGoal, unready: victimOnly, fault: lost(func(r *partitionRun) (links []link) {
			for _, o := range r.others(r.victim) {
				links = append(links, link{r.victim, o})
			}
			return links
		})},
		{name: "one-way", goal: electionGoal, fault: lost(func(r *partitionRun) []link { return []link{{r.victim, r.others(r.victim)[0]}} })},
		{name: "pair", goal: electionGoal, fault: lost(func(r *partitionRun) []link { return both(r.victim, r.others(r.victim)[0]) })},
		// No two nodes hear each other, so nobody can lead: only the end of it is bounded.
		{name: "ring", fault: lost(func(r *partitionRun) []link { return []link{{1, 2}, {2, 3}, {3, 1}} })},
		{name: "half", nodes: 5, controller: true, goal: electionGoal, fault: lost(func(r *partitionRun) (links []link) {
			with := r.others(r.victim)[0] // the leader of the metadata and one more
			for _, n := range []int{r.victim, with} {
				links = append(links, both(n, r.others(r.victim, with)...)...)
			}
			return links
		})},
		{name: "clients-with-the-isolated", contact: true, unready: victimOnly,
			fault: lost(func(r *partitionRun) []link { return append(isolation(r), apart(r)...) })},
		{name: "clients-with-the-others", goal: electionGoal, unready: victimOnly,
			fault: lost(func(r *partitionRun) []link { return append(isolation(r), both(clients, r.victim)...) })},
		{name: "clients-cut-from-one", fault: lost(func(r *partitionRun) []link { return both(clients, r.victim) })},
		{name: "flapping", contact: true, goal: electionGoal, fault: func(r *partitionRun) {
			for end := time.Now().Add(r.length); time.Now().Before(end) && r.ctx.Err() == nil; {
				r.net.lose(isolation(r)...)
				r.hold(time.Second + rand.N(2*time.Second))
				r.net.healAll()
				r.hold(time.Second + rand.N(2*time.Second))
			}
		}},

		// Processes.
		{name: "frozen", contact: true, goal: electionGoal, fault: freeze},
		{name: "frozen-controller", controller: true, goal: electionGoal, fault: freeze},
		{name: "kills", goal: killGoal, fault: killOneByOne},
		{name: "kill-all", fault: killAll},
		{name: "rolling-kills", goal: electionGoal, fault: func(r *partitionRun) { roll(r, (*member).kill) }},
		{name: "rolling-stops", goal: electionGoal, fault: func(r *partitionRun) { roll(r, r.terminate) }},

		// Identities.
		{name: "wiped", goal: killGoal, fault: wipe},
		{name: "wiped-founder-first", fault: wipeFounder},
		{name: "copied", fault: copyDirectory},
		{name: "swapped-addresses", fault: swapAddresses},
	}
}

// TestPartitions lets nodes stand in network name spaces of their own, produces to all partitions, loses packets between nodes, or ends or
// freezes or confuses them, and reads everything back. It needs root, and minutes:
//
//	QUORUMLOG_PARTITIONS=1 go test ./cmd/quorumlog -run TestPartitions -v -timeout 0
//
// QUORUMLOG_PARTITIONS=1m makes each fault that long; -run TestPartitions/ring takes one scenario. QUORUMLOG_BINARY names another build of
// the program, which must speak the protocol of this one's client; QUORUMLOG_LOAD=2 keeps two processors busy meanwhile;
// QUORUMLOG_KILLS=100 kills so many times in the scenarios that kill; QUORUMLOG_PARTITIONS_LOGS is a directory for what the nodes print;
// QUORUMLOG_SEED repeats the choices.
func TestPartitions(t *testing.T) {
	if os.Getenv(partitionsVariable) == "" {
		t.Skipf("needs root and minutes: set %s to 1, or to the length of each fault", partitionsVariable)
	}
	if err := networks(); err != nil {
		t.Skipf("this machine cannot have networks of its own: %v", err)
	}
	length := faultLength(t, partitionsVariable, partitionsLength)
	sweepNets()
	seed := chaosSeed(t)
	var rows []partitionRow
	for _, s := range partitionScenarios() {
		t.Run(s.name, func(t *testing.T) { playPartition(t, s, length, seed, &rows) })
	}
	t.Logf("\n%s", partitionTable(rows...))
	for _, row := range rows {
		row.logProblems(t)
	}
}

// playPartition runs one scenario. The line is complete as far as it came.
func playPartition(t *testing.T, s partitionScenario, length time.Duration, seed uint64, rows *[]partitionRow) {
	limit := length + 5*time.Minute + time.Duration(killCount())*20*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r := &partitionRun{faultRun: newFaultRun(ctx, t, s.name, length, limit, seed), scenario: s, lag: new(readLag)}
	r.heard = func(a client.Ack) { r.pauses.heard(a); r.lag.acked(a) }
	defer func() {
		r.row.faultOutcome = r.finished()
		*rows = append(*rows, r.row)
		t.Logf("\n%s", partitionTable(r.row))
	}()
	r.play()
}

// partitionTable shows what came out.
func partitionTable(rows ...partitionRow) string {
	header := "SCENARIO\tVICTIM\t" + faultColumns + "\tPAUSE\tREAD LAG\tGOES ON AFTER\tPAUSE AFTER\tUP\tREADY\tGOALS\t"
	return faultTable(header, func(r partitionRow) string {
		return fmt.Sprintf("%s\t%d\t%s\t%.2f s\t%.2f s\t%.2f s\t%.2f s\t%d\t%d\t%s\t%s", r.name, r.victim, r.columns(),
			r.during.Seconds(), r.lag.Seconds(), r.recovery.Seconds(), r.after.Seconds(), r.up, r.ready, r.goals(), r.note)
	}, rows...)
}

// freeze stops a process for ten seconds: its peers hear nothing of it, and its kernel goes on to take what they send.
func freeze(r *partitionRun) {
	m := r.member(r.victim)
	must(r.t, m.signal(syscall.SIGSTOP))
	r.hold(10 * time.Second)
	must(r.t, m.signal(syscall.SIGCONT))
	r.hold(settle)
}

// killCount is how often the scenarios kill that kill again and again.
func killCount() int {
	if n, err := strconv.Atoi(os.Getenv("QUORUMLOG_KILLS")); err == nil && n > 0 {
		return n
	}
	return 10
}

// killOneByOne kills nodes, one at a time, each when all lead again, and tells how long partitions were without acknowledgements.
func killOneByOne(r *partitionRun) {
	var worst, each []time.Duration
	for n := range killCount() {
		r.choose(false)
		r.beginWindow()
		killed := time.Now()
		r.member(r.victim).kill()
		if !r.await(killed.Add(100 * time.Millisecond)) {
			r.miss("kill %d, of node %d: partitions %v have no acknowledgements", n, r.victim, r.pauses.silentSince(killed))
			return
		}
		r.hold(settle)
		w := r.endWindow(fmt.Sprintf("kill %d, of node %d", n, r.victim))
		worst = append(worst, w.longest[w.most()])
		for _, d := range w.longest {
			if d > 300*time.Millisecond { // others had the same leader as ever
				each = append(each, d)
			}
		}
		r.start(r.member(r.victim))
		r.beginWindow() // what a start costs is not what a kill costs
	}
	r.row.note = fmt.Sprintf("worst partition of each kill: %s; of %d partitions that paused: %s", distribution(worst), len(each), distribution(each))
	r.say("%s", r.row.note)
}

// distribution is what a list of pauses comes to.
func distribution(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	slices.Sort(list)
	at := func(part float64) float64 { return list[min(int(part*float64(len(list))), len(list)-1)].Seconds() }
	return fmt.Sprintf("median %.2f s, p99 %.2f s, most %.2f s", at(0.5), at(0.99), at(1))
}

// killAll kills all nodes at once, starts two, and measures from when the second one serves.
func killAll(r *partitionRun) {
	var took []time.Duration
	for range max(1, killCount()/5) {
		r.choose(false)
		for _, m := range r.members {
			must(r.t, m.signal(syscall.SIGKILL))
		}
		for _, m := range r.members {
			m.kill()
		}
		order := r.random.Perm(len(r.members))
		r.start(r.members[order[0]])
		r.start(r.members[order[1]])
		begin := time.Now()
		if !r.await(begin) {
			r.miss("with two of three nodes, partitions %v do not go on", r.pauses.silentSince(begin))
		}
		took = append(took, time.Since(begin))
		if took[len(took)-1] > 3*time.Second {
			r.miss("with two of three nodes, all partitions go on after %.2f s only", time.Since(begin).Seconds())
		}
		r.start(r.members[order[2]])
	}
	r.row.note = fmt.Sprintf("after the second start: %s", distribution(took))
}

// terminate stops a node as an operator does.
func (r *partitionRun) terminate(m *member) {
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	if err := m.end(func(c *bench.Child) error { return c.Terminate(ctx) }); err != nil {
		r.miss("node %d does not stop in order: %v", m.number, err)
	}
}

// roll restarts the nodes in turn, every four seconds, ready or not.
func roll(r *partitionRun, end func(*member)) {
	for n, until := 0, time.Now().Add(2*r.length); time.Now().Before(until) && r.ctx.Err() == nil; n++ {
		m := r.members[n%len(r.members)]
		end(m)
		r.start(m)
		r.hold(4 * time.Second)
	}
}

// startsInVain starts a node that must not come to serve anything, and gives it some time. It returns whether it was ready meanwhile.
func (r *partitionRun) startsInVain(m *member, what string, more ...string) (ready bool) {
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	if err := r.tryStart(ctx, m, more...); err != nil {
		r.say("%s does not start: %v; its last telling words: %s", what, err, m.words())
		return false
	}
	for ctx.Err() == nil && m.running() && !ready {
		code, _ := r.readyz(ctx, m)
		ready = code == 200
		r.hold(100 * time.Millisecond)
	}
	if m.running() {
		r.say("%s runs, ready: %v; its last telling words: %s", what, ready, m.words())
		m.kill()
	} else {
		r.say("%s has ended: %s", what, m.words())
	}
	return ready
}

// wipe has a node lose its directory and come back under its number.
func wipe(r *partitionRun) {
	m := r.member(r.victim)
	m.kill()
	away := m.dir + ".away"
	must(r.t, os.Rename(m.dir, away))
	if r.startsInVain(m, "a node with an empty directory and an old number") {
		r.miss("a node with an empty directory and the number of another becomes ready")
	}
	must(r.t, os.RemoveAll(m.dir))
	must(r.t, os.Rename(away, m.dir))
}

// wipeFounder has all nodes end, and the founder begin, alone, with an empty directory and the word that it is to found a cluster.
func wipeFounder(r *partitionRun) {
	for _, m := range r.members {
		m.kill()
	}
	m := r.member(1)
	away := m.dir + ".away"
	must(r.t, os.Rename(m.dir, away))
	if r.startsInVain(m, "the founder with an empty directory", "--bootstrap") {
		r.miss("a founder with an empty directory founds a second cluster")
	}
	must(r.t, os.RemoveAll(m.dir))
	must(r.t, os.Rename(away, m.dir))
}

// copyDirectory has a copy of a node's directory started beside the original.
func copyDirectory(r *partitionRun) {
	m := r.member(r.victim)
	r.terminate(m)
	twin := r.newMember(m.number, len(r.members)+1, m.dir+".copy")
	must(r.t, command("cp", "-a", m.dir, filepath.Clean(twin.dir)))
	r.start(m)
	if !inTime(patience, func() bool { said := m.readiness.Load(); return said.code == 200 }) {
		r.miss("the original is not ready: %s", m.readiness.Load().text)
	}
	if r.startsInVain(twin, "a copy beside the original") {
		r.miss("a copy of a node becomes ready beside the original")
	}
	if !m.running() {
		r.miss("the original has ended because of its copy: %s", m.words())
	}
}

// swapAddresses has two nodes come back with each other's addresses.
func swapAddresses(r *partitionRun) {
	a, b := r.member(r.victim), r.member(r.others(r.victim)[0])
	a.kill()
	b.kill()
	at := a.host.Load()
	a.host.Store(b.host.Load())
	b.host.Store(at)
	r.start(a)
	r.start(b)
	begin := time.Now()
	if !r.await(begin) {
		r.miss("with addresses swapped, partitions %v do not go on", r.pauses.silentSince(begin))
	}
	r.row.note = fmt.Sprintf("all went on %.2f s after both served", time.Since(begin).Seconds())
	r.hold(r.length / 2)
}
