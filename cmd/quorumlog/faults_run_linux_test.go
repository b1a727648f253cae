package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// What TestDisks and TestPartitions have in common: records are produced to all partitions, something goes wrong for a while, the pauses of
// each partition are measured, and everything is read back.

const (
	faultNodes      = 3
	faultPartitions = 6
)

// faultLength is what a variable that turns such a test on says: the length of each fault, or 1 for the shortest.
func faultLength(t *testing.T, variable string, shortest time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "1" {
		return shortest
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return length
}

// binaryUnderTest is QUORUMLOG_BINARY, or the program as it stands here.
func binaryUnderTest(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("QUORUMLOG_BINARY"); path != "" {
		return path
	}
	return buildBinary(t)
}

// pauses notes for each partition the longest time without an acknowledgement within a window.
type pauses struct {
	mu          sync.Mutex
	last, worst [faultPartitions]time.Time // worst: when the longest pause began
	longest     [faultPartitions]time.Duration
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
func (p *pauses) window() windowPauses {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for n := range p.last {
		p.noteLocked(id.Partition(n), now)
	}
	w := windowPauses{longest: p.longest, began: p.worst}
	p.longest = [faultPartitions]time.Duration{}
	return w
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

func (p *pauses) lastFailure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// windowPauses are the longest pauses of a window, by partition.
type windowPauses struct {
	longest [faultPartitions]time.Duration
	began   [faultPartitions]time.Time
}

// most is the partition with the longest one.
func (w *windowPauses) most() int { return slices.Index(w.longest[:], slices.Max(w.longest[:])) }

func (w *windowPauses) String() string {
	var texts []string
	for _, d := range w.longest {
		texts = append(texts, fmt.Sprintf("%.2f", d.Seconds()))
	}
	return strings.Join(texts, " ")
}

// faultRun is the part of a run that knows nothing of its nodes.
type faultRun struct {
	*chaosRun
	ctx      context.Context
	length   time.Duration
	random   *rand.Rand
	dir      string
	binary   string
	pauses   *pauses
	injected time.Time

	mu      sync.Mutex
	outcome faultOutcome
}

// faultOutcome is what the lines of both tables begin with.
type faultOutcome struct {
	name     string
	report   bench.Report
	complete bool          // everything was read back
	recovery time.Duration // until all partitions went on after the fault
	problems []string      // goals that were missed
}

// newFaultRun returns a run of the scenario of that name, which takes no longer than the limit.
func newFaultRun(ctx context.Context, t *testing.T, name string, length, limit time.Duration, seed uint64) *faultRun {
	p := new(pauses)
	return &faultRun{
		ctx: ctx, length: length, random: rand.New(rand.NewPCG(seed, xxhash.Sum64String(name))), pauses: p,
		chaosRun: &chaosRun{
			t: t, ledger: bench.NewLedger(600 * int(limit.Seconds())), partitions: faultPartitions, pace: 10 * time.Millisecond, heard: p.heard,
			options: client.ProducerOptions{BufferBytes: 256 << 20, DeliveryTimeout: limit - time.Minute},
		},
		outcome: faultOutcome{name: name},
	}
}

// finished returns the outcome, as far as the run came.
func (r *faultRun) finished() faultOutcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.outcome.report.Acked == 0 {
		r.outcome.problems = append(r.outcome.problems, "it did not come to its end")
	}
	return r.outcome
}

// say logs, with the time since the fault.
func (r *faultRun) say(format string, args ...any) {
	at := "     "
	if !r.injected.IsZero() {
		at = fmt.Sprintf("%+5.1fs", time.Since(r.injected).Seconds())
	}
	r.t.Logf("%s %s", at, fmt.Sprintf(format, args...))
}

// miss notes a goal that was missed. The scenario goes on.
func (r *faultRun) miss(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.outcome.problems = append(r.outcome.problems, text)
	r.mu.Unlock()
	r.say("MISSED: %s", text)
	r.t.Fail()
}

// startProducing produces, and returns once so many records are acknowledged. end stops it and waits for what is under way; the
// context ends with the test.
func (r *faultRun) startProducing(before int64) (producing context.Context, end func()) {
	r.t.Helper()
	producing, giveUp := context.WithCancel(r.ctx)
	r.t.Cleanup(giveUp)
	stop, produced := make(chan struct{}), make(chan error, 1)
	go func() { produced <- r.produce(producing, stop) }()
	if !r.awaitAcks(r.ctx, before) {
		r.t.Fatalf("too few acknowledgements before the fault, the last failure: %v; does %s speak the protocol of this client?",
			r.pauses.lastFailure(), r.binary)
	}
	return producing, func() {
		close(stop)
		late := time.AfterFunc(patience/2, giveUp)
		defer late.Stop()
		if err := <-produced; err != nil {
			r.miss("producing: %v; the last failure: %v", err, r.pauses.lastFailure())
		}
	}
}

// awaitRecovery waits until all partitions go on after the fault.
func (r *faultRun) awaitRecovery(healed time.Time) {
	if !r.await(healed) {
		r.miss("partitions %v do not go on after the fault; the last failure of a record: %v",
			r.pauses.silentSince(healed), r.pauses.lastFailure())
	}
	r.outcome.recovery = time.Since(healed)
}

// await waits until every partition has been heard of since t.
func (r *faultRun) await(t time.Time) bool {
	return inTime(patience, func() bool { return len(r.pauses.silentSince(t)) == 0 })
}

// compare reads everything back.
func (r *faultRun) compare(limit time.Duration) {
	ctx, cancel := context.WithTimeout(r.ctx, limit)
	defer cancel()
	begin := time.Now()
	report, err := r.readBack(ctx)
	r.outcome.report = report
	if r.outcome.complete = err == nil; !r.outcome.complete { // what was not read counts as lost
		r.miss("reading what was acknowledged: %v", err)
	}
	if !report.OK() || report.Acked == 0 {
		r.miss("%+v", report)
	}
	r.say("acknowledged %d, read %d, lost %d, doubled %d, reordered %d, in %.1f s", report.Acked, report.Read, report.Lost, report.Duplicated,
		report.Reordered, time.Since(begin).Seconds())
}

// keepLogs copies what the nodes printed to the directory that a variable names, if it is set.
func (r *faultRun) keepLogs(variable string) {
	to := os.Getenv(variable)
	if to == "" {
		return
	}
	to = filepath.Join(to, strings.ReplaceAll(r.t.Name(), "/", "-"))
	_ = os.MkdirAll(to, 0o755)
	logs, _ := filepath.Glob(filepath.Join(r.dir, "*.log"))
	for _, name := range logs {
		if data, err := os.ReadFile(name); err == nil {
			_ = os.WriteFile(filepath.Join(to, filepath.Base(name)), data, 0o644)
		}
	}
}

var telling = regexp.MustCompile(`^panic: |^fatal|^Error|^error|level=ERROR|stopped: |cannot `)

// lastWords returns the last telling line that a node has printed to a file.
func lastWords(file string) string {
	data, err := os.ReadFile(file)
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

// readyz asks a node whether it is ready. The code is 0 when it does not answer.
func readyz(ctx context.Context, c *http.Client, address string) (code int, text string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return 0, err.Error()
	}
	response, err := c.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 500))
	return response.StatusCode, strings.TrimSpace(string(body))
}

const faultColumns = "ACKED\tLOST\tDOUBLED\tREORDERED"

func (o faultOutcome) columns() string {
	lost := fmt.Sprint(o.report.Lost)
	if !o.complete {
		lost += " unread"
	}
	return fmt.Sprintf("%d\t%s\t%d\t%d", o.report.Acked, lost, o.report.Duplicated, o.report.Reordered)
}

func (o faultOutcome) goals() string {
	if len(o.problems) > 0 {
		return fmt.Sprintf("%d missed", len(o.problems))
	}
	return "met"
}

func (o faultOutcome) logProblems(t *testing.T) {
	for _, p := range o.problems {
		t.Logf("%s: %s", o.name, p)
	}
}

// faultTable aligns the lines of a table.
func faultTable[R any](header string, line func(R) string, rows ...R) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	for _, r := range rows {
		fmt.Fprintln(w, line(r))
	}
	_ = w.Flush()
	return b.String()
}
