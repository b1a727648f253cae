package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// shell runs command lines against a cluster in memory.
type shell struct {
	t       *testing.T
	cluster *clienttest.Cluster
}

func newShell(t *testing.T, nodes int) *shell {
	t.Helper()
	s := &shell{t: t, cluster: clienttest.New(t, nodes)}
	t.Setenv(serversVariable, strings.Join(s.cluster.Servers(), ", "))
	return s
}

// run executes one command line, in words, and returns its exit code and what it wrote.
func (s *shell) run(in string, words ...string) (code int, out, errs string) {
	return s.runContext(context.Background(), strings.NewReader(in), words...)
}

func (s *shell) runContext(ctx context.Context, in io.Reader, words ...string) (code int, out, errs string) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var o, e bytes.Buffer
	code = run(ctx, words, in, &o, &e)
	return code, o.String(), e.String()
}

// ok runs a command that must succeed without a word on stderr.
func (s *shell) ok(in string, words ...string) string {
	s.t.Helper()
	code, out, errs := s.run(in, words...)
	if code != 0 || errs != "" {
		s.t.Fatalf("quorumlog %s: exit code %d, stderr %q", strings.Join(words, " "), code, errs)
	}
	return out
}

// TestGolden compares whole sessions with testdata/*.golden: each command line, its exit code unless 0, and its output.
func TestGolden(t *testing.T) {
	sessions := map[string][]string{
		"topics": {
			"topic create test --partitions 2 --replication-factor 2 --config max.message.bytes=1000 --config retention.ms=5",
			"topic create test",
			"topic create test --if-not-exists",
			"topic create wide --replication-factor 4",
			"topic create",
			"topic create bad --partitions 0",
			"topic create bad --config novalue",
			"topic create orders -o json",
			"topic list",
			"topic list -o json",
			"topic describe",
			"topic describe test -o json",
			"topic describe tset",
			"topic describe nothing-like-it",
			"topic config test",
			"topic config test retention.ms=7 --remove max.message.bytes",
			"topic config test -o json",
			"topic config test max.message.bytes=x",
			"topic config tets",
			"topic offsets test",
			"topic offsets test -o json",
			"topic offsets test2",
			"topic delete-records test --partition 1 --offset -1",
			"topic delete-records test --partition 1 --offset 5",
			"topic delete-records test --partition 2 --offset 0 -o json",
			"topic delete-records test",
			"topic delete-records test --partition 1 --offset -2",
			"topic delete-records --offset-json-file testdata/nowhere.json",
			"topic delete orders",
			"topic delete orders",
			"topic delete test -o json",
		},
		"usage": {
			"topc list",
			"frobnicate",
			"topic crate x",
			"topic create x --partition 3",
			"topic create x --frobnicate",
			"topic create x --partitions many",
			"produce",
			"produce test --acks 2",
			"produce test --rate -1",
			"produce test --compression zip",
			"produce test --delivery-timeout 0s",
			"consume test --offset 3",
			"consume test --partition 1 --offset x",
			"consume test --partition 1 --offset 3 --from-beginning",
			"topic list -o xml",
			"topic list --servers nowhere",
			"topic list --servers 127.0.0.1:1 --timeout 100ms",
		},
		"cluster": {
			"topic create test --partitions 4",
			"cluster status",
			"cluster status -o json",
			"cluster stauts",
			"cluster upgrade --level 0",
			"cluster upgrade --level 3",
			"cluster upgrade",
			"cluster upgrade -o json",
			"cluster upgrade",
		},
	}
	for name, lines := range sessions {
		t.Run(name, func(t *testing.T) {
			s := newShell(t, 3)
			var got strings.Builder
			for _, line := range lines {
				code, out, errs := s.run("", strings.Fields(line)...)
				fmt.Fprintf(&got, "$ quorumlog %s\n%s%s", line, out, errs)
				if code != 0 {
					fmt.Fprintf(&got, "[exit %d]\n", code)
				}
			}
			compare(t, name, s.withoutPorts(got.String()))
		})
	}
}

// anyAnswers is who answered a status: a client asks any node.
var anyAnswers = regexp.MustCompile(`"answered_by": \d`)

// withoutPorts names the nodes' addresses by their ids, and forgets which of them answered.
func (s *shell) withoutPorts(text string) string {
	text = anyAnswers.ReplaceAllString(text, `"answered_by": 1`)
	for i, addr := range s.cluster.Servers() {
		text = strings.ReplaceAll(text, addr, fmt.Sprintf("host%d:9192     ", i+1)[:len(addr)])
	}
	return text
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Fatalf("%s:%d differs (go test -run TestGolden -rewrite accepts it)\n got %q\nwant %q", path, i+1, g, w)
		}
	}
}

func TestProduceAndConsume(t *testing.T) {
	s := newShell(t, 3)
	s.ok("", "topic", "create", "test", "--partitions", "3")
	out := s.ok("k1:one\nk2:two\n\nk3:three:3\n", "produce", "test", "--partition", "0", "-o", "json")
	if out == "" {
		t.Fatal("no batch was reported")
	}
	if got := s.cluster.Values(id.TopicPartition{Topic: "test"}); strings.Join(got, "|") != "k1:one|k2:two||k3:three:3" {
		t.Errorf("the log holds %q", got)
	}
	if out := s.ok("k1:one\nk2:two\nk3:three:3", "produce", "test", "--key-separator", ":", "--partition", "1"); out != "Produced 3 records to topic test.\n" {
		t.Errorf("produce said %q", out)
	}
	for _, c := range []struct{ args, want string }{
		{"--from-beginning --partition 1", "one\ntwo\nthree:3\n"},
		{"--from-beginning --partition 1 --print-key --print-offset", "Offset:0\tk1\tone\nOffset:1\tk2\ttwo\nOffset:2\tk3\tthree:3\n"},
		{"--partition 1 --offset 2 --print-key --key-separator =", "k3=three:3\n"},
		{"--partition 1 --offset beginning --max-messages 1 --print-partition --print-headers", "Partition:1\tNO_HEADERS\tone\n"},
		{"--partition 0 --offset 0 --max-messages 1 --print-key", "null\tk1:one\n"},
		{"--partition 2 --from-beginning", ""},
		{"--partition 1 --offset 3", ""},
	} {
		if got := s.ok("", append([]string{"consume", "test"}, strings.Fields(c.args)...)...); got != c.want {
			t.Errorf("consume %s: got %q, want %q", c.args, got, c.want)
		}
	}
	for since, want := range map[string]int{"1h": 7, "0s": 0, "2020-01-01T00:00:00Z": 7, "2100-01-01T00:00:00+01:00": 0} {
		if got := s.ok("", "consume", "test", "--since", since); strings.Count(got, "\n") != want {
			t.Errorf("since %s: %q", since, got)
		}
	}
	if got := s.ok("", "consume", "test", "--since", "1h", "--partition", "1"); strings.Count(got, "\n") != 3 {
		t.Errorf("one partition since an hour ago: %q", got)
	}
	for _, bad := range []string{"yesterday", "-1h", "12:00"} {
		if code, _, errs := s.run("", "consume", "test", "--since="+bad); code != 2 && code != 1 || !strings.Contains(errs, "--since") {
			t.Errorf("since %s: exit code %d, %q", bad, code, errs)
		}
	}
	if got := s.ok("", "consume", "test", "--from-beginning"); strings.Count(got, "\n") != 7 {
		t.Errorf("all partitions: %q", got)
	}
	code, _, errs := s.run("", "consume", "test", "--partition", "1", "--offset", "9")
	if code != 1 || !strings.Contains(errs, "offset 9 of test-1 is out of range") {
		t.Errorf("an offset beyond the end: exit code %d, %q", code, errs)
	}
}

func TestConsumeJSON(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	s.ok("key:value\nk:\xff\n", "produce", "test", "--key-separator", ":")
	var got []map[string]any
	d := json.NewDecoder(strings.NewReader(s.ok("", "consume", "test", "--from-beginning", "-o", "json")))
	for d.More() {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	if len(got) != 2 || got[0]["value"] != "value" || got[0]["key"] != "key" || got[1]["offset"] != 1.0 || got[1]["value"] != nil || got[1]["value_base64"] != "/w==" {
		t.Errorf("got %v", got)
	}
}

// Every record must be in some reported batch, and each batch where it was said to be.
func TestProduceReportsBatches(t *testing.T) {
	s := newShell(t, 3)
	s.ok("", "topic", "create", "test", "--partitions", "3")
	var in strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	d := json.NewDecoder(strings.NewReader(s.ok(in.String(), "produce", "test", "-o", "json", "--linger", "0s")))
	next := make(map[id.Partition]id.Offset)
	total := 0
	for d.More() {
		var b batchLine
		if err := d.Decode(&b); err != nil {
			t.Fatal(err)
		}
		if b.BaseOffset != next[b.Partition] {
			t.Errorf("batch %+v, offset %d is next", b, next[b.Partition])
		}
		next[b.Partition] += id.Offset(b.Count)
		total += b.Count
	}
	if total != 5000 {
		t.Errorf("%d records were reported", total)
	}
}

func TestProduceRate(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	begin := time.Now()
	s.ok(strings.Repeat("x\n", 41), "produce", "test", "--rate", "200")
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("41 records at 200 a second took %v", took)
	}
}

func TestProduceTooLarge(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test", "--config", "max.message.bytes=1000")
	code, _, errs := s.run("ok\n"+strings.Repeat("x", 2000)+"\nok\n"+strings.Repeat("y", 6<<20)+"\n", "produce", "test")
	if code != 1 || !strings.Contains(errs, "2 of 4 records") || !strings.Contains(errs, "line 2: record of 2070 bytes") || !strings.Contains(errs, "1000") || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if got := s.ok("", "consume", "test", "--from-beginning"); got != "ok\nok\n" {
		t.Errorf("consumed %q", got)
	}
}

func TestProduceWithoutSeparator(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	code, _, errs := s.run("a=b\nab\n", "produce", "test", "--key-separator", "=")
	if code != 1 || !strings.Contains(errs, "line 2") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

func TestProduceTimesOut(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	s.cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Swallow })
	code, out, errs := s.run("a\nb\n", "produce", "test", "--delivery-timeout", "200ms", "-o", "json")
	if code != 1 || out != "" || !strings.Contains(errs, "2 of 2 records were not acknowledged") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

// Who may not write is told so at once, also if the input never ends.
func TestProduceNotAuthorized(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	s.cluster.DenyProducers()
	in, lines := io.Pipe()
	defer lines.Close()
	go func() { fmt.Fprintln(lines, "one") }()
	code, _, errs := s.runContext(context.Background(), in, "produce", "test", "--delivery-timeout", "5m")
	in.Close()
	if code != 1 || !strings.Contains(errs, "1 of 1 records were not acknowledged, and no more was read, the first because: test-0: User:test may write to no topic") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// A signal ends the reading, not the producing.
func TestInterruptedProduce(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	in, lines := io.Pipe()
	defer in.Close()
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		fmt.Fprintln(lines, "one")
		fmt.Fprintln(lines, "two") // the pipe takes it when line one has been read
		interrupt()
	}()
	code, _, errs := s.runContext(ctx, in, "produce", "test")
	<-seen
	if code != 0 || errs != "" {
		t.Errorf("exit code %d, %q", code, errs)
	}
	if got := s.cluster.Values(id.TopicPartition{Topic: "test"}); len(got) == 0 || got[0] != "one" {
		t.Errorf("the log holds %q", got)
	}
}

func TestInterruptedFollow(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	s.ok("one\ntwo\n", "produce", "test")
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	out, w := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"consume", "test", "--follow", "--from-beginning"}, strings.NewReader(""), w, io.Discard)
		w.Close()
	}()
	read := make([]byte, 100)
	if n, err := io.ReadFull(out, read[:8]); err != nil || string(read[:n]) != "one\ntwo\n" {
		t.Fatalf("read %q, %v", read[:n], err)
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestConsumeDamagedBatch: what can be read is printed, and what cannot is said.
func TestConsumeDamagedBatch(t *testing.T) {
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	for _, line := range []string{"one\n", "two\n", "three\n"} { // a batch each
		s.ok(line, "produce", "test")
	}
	s.cluster.CorruptBatch(id.TopicPartition{Topic: "test"}, 1)
	code, out, errs := s.run("", "consume", "test", "--from-beginning")
	if code != 1 || out != "one\nthree\n" || !strings.Contains(errs, "from offset 1 to 1 cannot be read") || !strings.Contains(errs, "1 batches could not be read") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

// TestFollowOverAnOutage: --follow goes on when the cluster comes back.
func TestFollowOverAnOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until nobody is said to be there")
	}
	s := newShell(t, 1)
	s.ok("", "topic", "create", "test")
	s.ok("one\n", "produce", "test")
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	out, w := io.Pipe()
	said, e := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"consume", "test", "--follow", "--from-beginning"}, strings.NewReader(""), w, e)
		w.Close()
		e.Close()
	}()
	printed := bufio.NewReader(out)
	if line, err := printed.ReadString('\n'); line != "one\n" {
		t.Fatal(line, err)
	}
	s.cluster.Kill(1)
	if line, err := bufio.NewReader(said).ReadString('\n'); !strings.Contains(line, "no node") {
		t.Fatal(line, err)
	}
	go func() { _, _ = io.Copy(io.Discard, said) }()
	s.cluster.Restart(1)
	s.ok("two\n", "produce", "test")
	if line, err := printed.ReadString('\n'); line != "two\n" {
		t.Error(line, err)
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestNothingToConsume(t *testing.T) {
	s := newShell(t, 1)
	code, out, errs := s.run("", "consume", "test")
	if code != 0 || out != "" || !strings.Contains(errs, "--from-beginning") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

func TestVersion(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"version", "-o", "json"}, nil, &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	var v versionReport
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Protocol < 1 || v.Version == "" {
		t.Errorf("%q: %v", out.String(), err)
	}
}
