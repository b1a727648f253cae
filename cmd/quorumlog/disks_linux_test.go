package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// disksVariable turns TestDisks on: it is the length of each scenario's fault, or 1 for the shortest.
const disksVariable = "QUORUMLOG_DISKS"

// diskScenario is a way in which disks are bad, and what is expected of a cluster then. In all of them nothing that was acknowledged may
// be lost, doubled or reordered, every node must be up afterwards, and every partition must go on.
type diskScenario struct {
	name       string
	kinds      []diskKind
	bad        int           // number of nodes with a bad disk, chosen at random
	victims    []int         // or these, counted from 0
	controller bool          // or the leader of the metadata
	size       int64         // of each disk; 0: enough
	length     time.Duration // of the fault, at least
	bulk       bool          // more is produced, before the fault too: much is on the disk then, and not in memory
	args       []string
	wrapper    string // lines of shell before each node is started

	goes    bool // no partition may be without acknowledgements for longer than disksGoal
	stays   bool // no process may end by itself
	serves  bool // reads and deletions of topics go on
	refuses bool // a node may refuse its disk for good, or a part of it, with a message

	inject func(*diskRun)
	middle func(*diskRun, int) // comes every other disksRound; nil: nothing
	heal   func(*diskRun)
}

var (
	bothKinds = []diskKind{tmpfs, ext4}
	onExt4    = []diskKind{ext4}
	onFuse    = []diskKind{fuse}
	// smallCache lets what is read come from the disk.
	smallCache = []string{"--cache-mb", "8", "--checkpoint-mb", "4"}
)

func diskScenarios() []diskScenario {
	full := func(n int, name string, middle func(*diskRun, int)) diskScenario {
		return diskScenario{
			name: name, kinds: bothKinds, bad: n, goes: n == 1, stays: true, serves: true,
			inject: onVictims((*testDisk).fill), middle: middle, heal: onVictims((*testDisk).free),
		}
	}
	powerless := func(s diskScenario) diskScenario {
		s.kinds, s.middle = onExt4, cutPower
		return s
	}
	controlled := func(s diskScenario) diskScenario {
		s.kinds, s.bad, s.controller = onExt4, 0, true
		return s
	}
	still := func(s diskScenario) diskScenario { // no kills, and longer than the time between two checkpoints
		s.kinds, s.length, s.bulk, s.args = onExt4, 100*time.Second, true, smallCache
		return s
	}
	told := func(name string, goes, stays bool, lines ...string) diskScenario {
		return diskScenario{
			name: name, kinds: onFuse, bad: 1, bulk: true, args: smallCache, goes: goes, stays: stays, serves: true,
			inject: onVictims(func(d *testDisk) { d.tell(lines...) }), middle: killVictims,
			heal: onVictims(func(d *testDisk) { d.tell("clear") }),
		}
	}
	fullOwn := func(name string, heal func(*diskRun)) diskScenario {
		return diskScenario{
			name: name, kinds: bothKinds, bad: 3, size: 800 << 20, stays: true, serves: true,
			inject: fillWithRecords, middle: killEach, heal: heal,
		}
	}
	scenarios := []diskScenario{
		{
			name: "good", kinds: bothKinds, bad: 1, goes: true, stays: true, serves: true,
			inject: nothing, middle: killVictims, heal: nothing,
		},
		powerless(diskScenario{name: "good-power", bad: 1, goes: true, stays: true, serves: true, inject: nothing, heal: nothing}),
		powerless(diskScenario{name: "good-power-three", bad: 3, stays: true, serves: true, inject: nothing, heal: nothing}),

		full(1, "full-one", killVictims),
		controlled(full(1, "full-controller", killVictims)),
		full(2, "full-two", killVictims),
		full(3, "full-three", killEach),
		powerless(full(1, "full-one-power", nil)),
		powerless(full(3, "full-three-power", nil)),
		still(full(1, "full-one-still", nil)),
		still(full(3, "full-three-still", nil)),
		fullOwn("full-own", deleteFiller),
		fullOwn("full-own-delete-records", deleteFillerRecords),
		fullOwn("full-own-retention", retainLessOfFiller),

		{
			name: "read-only-one", kinds: onExt4, bad: 1, goes: true, serves: true,
			inject: onVictims((*testDisk).failReadOnly), middle: killVictims, heal: remountVictims,
		},
		{
			name: "hung-one", kinds: onExt4, bad: 1, goes: true, stays: true, serves: true,
			inject: onVictims((*testDisk).freeze), heal: thawVictims,
		},
		{
			name: "hung-controller", kinds: onExt4, controller: true, goes: true, stays: true, serves: true,
			inject: onVictims((*testDisk).freeze), heal: thawVictims,
		},
		{
			name: "hung-one-small-cache", kinds: onExt4, bad: 1, bulk: true, args: smallCache, goes: true, stays: true, serves: true,
			inject: onVictims((*testDisk).freeze), heal: thawVictims,
		},
		{
			name: "hung-one-kill", kinds: onExt4, bad: 1, goes: true, serves: true,
			inject: onVictims((*testDisk).freeze), middle: killVictims, heal: thawVictims,
		},
		{
			name: "slow-one", kinds: onExt4, bad: 1, args: smallCache, goes: true, stays: true, serves: true,
			inject: onVictims(func(d *testDisk) { must(d.t, d.throttle(5)) }),
			middle: killVictims, heal: onVictims(func(d *testDisk) { must(d.t, d.throttle(0)) }),
		},
		{
			name: "rotten-running", kinds: onExt4, bad: 1, bulk: true, args: smallCache, goes: true, stays: true, serves: true,
			inject: rotWhileRunning, middle: func(r *diskRun, _ int) { rotWhileRunning(r) }, heal: nothing,
		},
		{
			name: "descriptors", kinds: onExt4, size: 2 << 30, victims: []int{1}, goes: true, stays: true, serves: true, wrapper: fewDescriptors,
			inject: manyPartitions, middle: killVictims, heal: nothing,
		},
		{name: "names", kinds: onExt4, bad: 3, goes: true, stays: true, serves: true, inject: longNames, heal: nothing},

		told("eio-write", true, false, "rule write,allocate,truncate eio"),
		told("eio-sync", true, false, "rule sync eio"),
		told("eio-read", true, false, "rule read eio"),
		told("eio-read-log", true, true, "rule read eio data/logs/*/*.log"),
		told("rot-read-log", true, true, "rule read rot data/logs/*/*.log"),
		told("hang-all", true, false, "rule all hang"),
		told("hang-sync", true, false, "rule sync hang"),
		told("delay-200ms", true, true, "rule read,write,sync delay=200ms"),
		told("delay-1s", true, true, "rule read,write,sync delay=1s"),
	}
	// Rot is found at a start only by what a start reads.
	for _, rot := range []struct{ name, pattern string }{
		{"log", "logs/*/*.log"}, {"index", "logs/*/*.index"}, {"journal", "journal/*"}, {"properties", "meta.properties"},
		{"pebble-table", "meta/*.sst"}, {"pebble-log", "meta/*.log"}, {"pebble-manifest", "meta/MANIFEST-*"}, {"pebble-options", "meta/OPTIONS-*"},
	} {
		scenarios = append(scenarios, diskScenario{
			name: "rotten-stopped-" + rot.name, kinds: onExt4, bad: 1, bulk: true, args: smallCache, goes: true, serves: true,
			refuses: true, stays: strings.Contains(rot.pattern, "*/*") || rot.name == "journal",
			inject: func(r *diskRun) { rotWhileStopped(r, rot.pattern) }, heal: nothing,
		})
	}
	return scenarios
}

// TestDisks lets three processes stand on file systems of their own, produces to all partitions, makes one, two or three of the disks bad
// for a while, kills nodes meanwhile, and reads everything back. It needs root, and minutes:
//
//	QUORUMLOG_DISKS=1 go test ./cmd/quorumlog -run TestDisks -v -timeout 0
//
// QUORUMLOG_DISKS=5m makes each fault that long; -run TestDisks/full-one/ext4 takes one scenario on one kind of disk. QUORUMLOG_BINARY
// names another build of the program, which must speak the protocol of this one's client, QUORUMLOG_FAULTFS the program for disks that
// fail as told (those scenarios are left out otherwise),
// QUORUMLOG_DISKS_LOGS a directory for what the nodes print, QUORUMLOG_SEED repeats the choices.
func TestDisks(t *testing.T) {
	if os.Getenv(disksVariable) == "" {
		t.Skipf("needs root and minutes: set %s to 1, or to the length of each fault", disksVariable)
	}
	if os.Geteuid() != 0 {
		t.Fatalf("%s is set: mounting file systems needs root", disksVariable)
	}
	length := faultLength(t, disksVariable, 2*disksRound)
	sweep()
	seed := chaosSeed(t)
	var rows []diskRow
	for _, s := range diskScenarios() {
		t.Run(s.name, func(t *testing.T) {
			for _, kind := range s.kinds {
				t.Run(string(kind), func(t *testing.T) {
					if kind == fuse && os.Getenv(faultfsVariable) == "" {
						t.Skipf("%s names no program", faultfsVariable)
					}
					playDisks(t, s, kind, length, seed, &rows)
				})
			}
		})
	}
	t.Logf("\n%s", diskTable(rows...))
	for _, row := range rows {
		row.logProblems(t)
	}
}

// playDisks runs one scenario on one kind of disk. The line is complete as far as it came.
func playDisks(t *testing.T, s diskScenario, kind diskKind, length time.Duration, seed uint64, rows *[]diskRow) {
	length = max(length, s.length)
	limit := length + 5*time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	r := &diskRun{faultRun: newFaultRun(ctx, t, s.name+"/"+string(kind), length, limit, seed), scenario: s, kind: kind}
	if s.bulk {
		r.bulk = 20
	}
	defer func() {
		r.probes.Wait()
		r.row.faultOutcome = r.finished()
		*rows = append(*rows, r.row)
		t.Logf("\n%s", diskTable(r.row))
	}()
	r.play()
}

// diskTable shows what came out.
func diskTable(rows ...diskRow) string {
	header := "SCENARIO\tBAD\t" + faultColumns + "\tPAUSE\tWITH KILLS\tGOES ON AFTER\tUP DURING\tUP AFTER\tMOST RSS\tGOALS"
	return faultTable(header, func(r diskRow) string {
		return fmt.Sprintf("%s\t%s\t%s\t%.2f s\t%.2f s\t%.1f s\t%s\t%s\t%d MB\t%s", r.name, r.victims, r.columns(),
			r.steady.Seconds(), r.kills.Seconds(), r.recovery.Seconds(), r.upDuring, r.upAfter, r.memory>>20, r.goals())
	}, rows...)
}

func nothing(*diskRun) {}

// onVictims does something to each bad disk.
func onVictims(do func(*testDisk)) func(*diskRun) {
	return func(r *diskRun) {
		for _, v := range r.victims {
			do(r.disks[v])
		}
	}
}

// killVictims kills the nodes with the bad disks and starts them again.
func killVictims(r *diskRun, _ int) {
	for _, v := range r.victims {
		r.restart(v, "during the fault", nil)
	}
}

// killEach kills and starts all nodes, one after the other, twice, and once all of them together.
func killEach(r *diskRun, _ int) {
	for range 2 {
		for v := range faultNodes {
			r.restart(v, "one by one", nil)
			r.restarts.Wait()
		}
	}
	for v := range faultNodes {
		r.restart(v, "all together", nil)
	}
}

// cutPower takes the power from the bad nodes at once.
func cutPower(r *diskRun, _ int) {
	for _, v := range r.victims {
		r.disks[v].cutPower()
	}
	for _, v := range r.victims {
		r.restart(v, "after a power loss", r.disks[v].remount)
	}
}

// remountVictims gives the bad nodes their disks back as they were.
func remountVictims(r *diskRun) {
	r.restarts.Wait()
	for _, v := range r.victims {
		r.restart(v, "with the disk mounted again", r.disks[v].remount)
	}
}

func thawVictims(r *diskRun) { onVictims(func(d *testDisk) { d.thaw() })(r) }

// rotWhileRunning flips bits in what the bad nodes have written, and empties their caches of it.
func rotWhileRunning(r *diskRun) {
	for _, v := range r.victims {
		for _, pattern := range []string{"logs/" + chaosTopic + "-*/*.log", "logs/" + chaosTopic + "-*/*.index"} {
			r.rotFiles(v, pattern, 6, 2)
		}
	}
	must(r.t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0))
}

// rotFiles flips bits in the largest files that match.
func (r *diskRun) rotFiles(v int, pattern string, files, bits int) {
	names := r.disks[v].files(pattern)
	var done []string
	for _, name := range names[:min(files, len(names))] {
		short, _ := filepath.Rel(r.disks[v].data(), name)
		if err := r.disks[v].rot(r.random, name, bits); err != nil {
			r.say("no rot in %s: %v", short, err)
			continue
		}
		done = append(done, short)
	}
	r.say("node %d: %d bits are flipped in each of %v", v+1, bits, done)
}

// rotWhileStopped flips bits of the bad nodes between a kill and a start.
func rotWhileStopped(r *diskRun, pattern string) {
	for _, v := range r.victims {
		if len(r.disks[v].files(pattern)) == 0 {
			r.restart(v, "so that it writes its first "+pattern, nil)
			r.restarts.Wait()
		}
		r.restart(v, "with rotten "+pattern, func() { r.rotFiles(v, pattern, 3, 2) })
	}
}

// fillWithRecords produces until the disks are full of the cluster's own data.
func fillWithRecords(r *diskRun) {
	makeTopic(r.t, r.client, client.TopicSpec{Name: "filler", Partitions: 3, ReplicationFactor: 3, Configs: map[string]string{"segment.bytes": "16777216"}})
	p, err := r.client.NewProducer(client.ProducerOptions{BufferBytes: 4 << 20, DeliveryTimeout: 4 * time.Second})
	must(r.t, err)
	var failed atomic.Pointer[error]
	value := make([]byte, 200_000)
	sent, begin := int64(0), time.Now()
	for n := 0; failed.Load() == nil && sent < 2*r.scenario.size; n++ {
		record := client.Record{Topic: "filler", Partition: client.At(id.Partition(n % 3)), Value: value}
		if err := p.Produce(r.ctx, record, func(a client.Ack) {
			if a.Err != nil {
				failed.Store(&a.Err)
			}
		}); err != nil {
			r.t.Fatal(err)
		}
		sent += int64(len(value))
	}
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	_ = p.Close(ctx)
	if failed.Load() == nil {
		r.miss("%d MB of records do not fill disks of %d MB", sent>>20, r.scenario.size>>20)
		return
	}
	r.say("after %d MB in %.1f s the disks are full: %v", sent>>20, time.Since(begin).Seconds(), *failed.Load())
	r.pauses.window()
	r.injected = time.Now()
}

// deleteFiller gives the space back as an operator can.
func deleteFiller(r *diskRun) {
	r.giveBack("deleting the topic that fills the disks", func(ctx context.Context, a *client.Admin) error {
		return a.DeleteTopic(ctx, "filler")
	})
}

// deleteFillerRecords keeps the topic.
func deleteFillerRecords(r *diskRun) {
	r.giveBack("deleting the records that fill the disks", func(ctx context.Context, a *client.Admin) error {
		all := make(map[id.TopicPartition]id.Offset)
		for p := range id.Partition(3) {
			all[id.TopicPartition{Topic: "filler", Partition: p}] = client.End
		}
		deleted, err := a.DeleteRecords(ctx, all)
		r.say("records are deleted: %v", deleted)
		return err
	})
}

// retainLessOfFiller has the cluster do it.
func retainLessOfFiller(r *diskRun) {
	r.giveBack("letting the topic that fills the disks keep less", func(ctx context.Context, a *client.Admin) error {
		_, err := a.AlterConfig(ctx, "filler", map[string]string{"retention.bytes": "16777216"}, nil)
		return err
	})
}

func (r *diskRun) giveBack(what string, do func(context.Context, *client.Admin) error) {
	r.restarts.Wait()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	if err := do(ctx, r.client.Admin()); err != nil {
		r.miss("%s: %v", what, err)
	}
}

// fewDescriptors lets node 2 open few files.
const fewDescriptors = `if [ "$3" = 2 ]; then ulimit -n 256; fi`

// manyPartitions creates more partitions than node 2 can open files for, and writes to each.
func manyPartitions(r *diskRun) {
	p, err := r.client.NewProducer(client.ProducerOptions{})
	must(r.t, err)
	var acked, failed atomic.Int64
	for n := range 8 {
		topic := fmt.Sprint("many-", n)
		ctx, cancel := context.WithTimeout(r.ctx, patience)
		err := r.client.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: 50, ReplicationFactor: 3})
		cancel()
		if err != nil {
			r.miss("creating %s: %v", topic, err)
			break
		}
		for i := range id.Partition(50) {
			must(r.t, p.Produce(r.ctx, client.Record{Topic: topic, Partition: client.At(i), Value: make([]byte, 60_000)}, func(a client.Ack) {
				if a.Err != nil {
					failed.Add(1)
				} else {
					acked.Add(1)
				}
			}))
		}
		r.hold(200 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	err = errors.Join(p.Flush(ctx), p.Close(ctx))
	r.say("400 partitions: %d records acknowledged, %d failed, %v; nodes: %s", acked.Load(), failed.Load(), err, r.states())
}

// longNames creates and deletes topics with the longest name that there may be, until more replicas have had it than there are numbers of
// three digits, and starts all nodes in between.
func longNames(r *diskRun) {
	name := strings.Repeat("x", 249)
	for n := range 7 {
		ctx, cancel := context.WithTimeout(r.ctx, patience)
		err := r.client.Admin().CreateTopic(ctx, client.TopicSpec{Name: name, Partitions: 60, ReplicationFactor: 3})
		if err == nil {
			err = r.client.Admin().DeleteTopic(ctx, name)
		}
		cancel()
		if err != nil {
			r.miss("creating and deleting a topic with a long name, the %d. time: %v", n+1, err)
			break
		}
		r.hold(50 * time.Millisecond)
	}
	left := func() (n int) {
		for _, d := range r.disks {
			n += len(d.files("logs/xxx*"))
		}
		return n
	}
	if !inTime(patience, func() bool { return left() == 0 }) {
		r.miss("%d directories of deleted replicas are left", left())
	}
	r.say("long names are through; nodes: %s", r.states())
	for v := range faultNodes {
		r.restart(v, "one by one", nil)
		r.restarts.Wait()
	}
}
