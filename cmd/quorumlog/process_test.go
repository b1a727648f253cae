package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/rpctest"
)

// programVariable, when set, makes the test binary be the program: tests that need processes start themselves again, and need no
// compiler. It is set for all children of the tests.
const programVariable = "QUORUMLOG_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		main()
		os.Exit(0)
	}
	_ = os.Setenv(programVariable, "1")
	os.Exit(m.Run())
}

// buildBinary returns an executable that behaves as the program.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// patience bounds everything that a test waits for; the machine may be busy.
const patience = 60 * time.Second

// eventually polls a condition until it holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	if !inTime(patience, condition) {
		t.Fatalf("waited %v in vain for %s", patience, what)
	}
}

// inTime polls a condition and tells whether it came true in time.
func inTime(limit time.Duration, condition func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			return condition()
		case <-tick.C:
		}
	}
	return true
}

// daemon is a run of the program as a process.
type daemon struct {
	t           *testing.T
	command     *exec.Cmd
	out, errout lockedBuffer
	exited      chan struct{}
}

// lockedBuffer takes what a process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lines returns the lines that contain text.
func (l *lockedBuffer) lines(text string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}

// launch starts the program. It is killed when the test ends; what it printed is shown if the test failed.
func launch(t *testing.T, args ...string) *daemon {
	t.Helper()
	return start(t, exec.Command(buildBinary(t), args...))
}

func start(t *testing.T, command *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{t: t, command: command, exited: make(chan struct{})}
	d.command.Stdout, d.command.Stderr = &d.out, &d.errout
	if err := d.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.command.Wait() // the exit code is in ProcessState
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("%v\n%s%s", command.Args[1:], &d.out, &d.errout)
		}
	})
	return d
}

func (d *daemon) kill() {
	_ = d.command.Process.Kill() // fails when it is gone
	<-d.exited
}

// alive tells whether the process still runs.
func (d *daemon) alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// code waits for the end of the process and returns its exit code.
func (d *daemon) code() int {
	d.t.Helper()
	eventually(d.t, "the process to end", func() bool { return !d.alive() })
	return d.command.ProcessState.ExitCode()
}

// terminate ends the process as an operator does, and fails the test unless it exits with 0.
func (d *daemon) terminate() {
	d.t.Helper()
	if err := d.command.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if code := d.code(); code != 0 {
		d.t.Errorf("terminated, the process exits with %d; its last words: %s", code, d.lastWords())
	}
}

// lastWords returns the last line of the standard error.
func (d *daemon) lastWords() string {
	lines := d.errout.lines("")
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// serves waits until the process has printed a node's line of addresses n times.
func (d *daemon) serves(n int) {
	d.t.Helper()
	eventually(d.t, "the line of addresses", func() bool { return len(d.out.lines(" serves: ")) >= n || !d.alive() })
	if !d.alive() {
		d.t.Fatalf("it exits with %d: %s", d.code(), d.lastWords())
	}
}

var portPattern = regexp.MustCompile(`(rpc tcp|gossip tcp\+udp|metrics tcp) ([0-9.:]+)`)

// ports reads the line of addresses.
func (d *daemon) ports() (rpc, gossip, metrics string) {
	d.t.Helper()
	d.serves(1)
	for _, m := range portPattern.FindAllStringSubmatch(d.out.lines(" serves: ")[0], -1) {
		switch m[1] {
		case "rpc tcp":
			rpc = m[2]
		case "metrics tcp":
			metrics = m[2]
		default:
			gossip = m[2]
		}
	}
	return rpc, gossip, metrics
}

// nodeArgs is the command line of node n below dir, with ports of its own.
func nodeArgs(dir string, n int, more ...string) []string {
	args := []string{
		"node", "--node-id", fmt.Sprint(n), "--rpc-address", rpctest.FreeAddress(), "--gossip-address", rpctest.FreeAddress(),
		"--cluster-name", "test-" + filepath.Base(dir),
	}
	if !slices.Contains(more, "--data-dir") { // which a second one would not replace
		args = append(args, "--data-dir", filepath.Join(dir, fmt.Sprint("node-", n)))
	}
	return append(args, more...)
}

// founderArgs is nodeArgs for the founder of a cluster that begins with one node: its directory is formatted.
func founderArgs(t *testing.T, dir string, n int, more ...string) []string {
	t.Helper()
	args := nodeArgs(dir, n, more...)
	format := launch(t, append([]string{"format"}, nodeArgs(dir, n)[1:]...)...)
	if code := format.code(); code != 0 {
		t.Fatalf("format exits with %d: %s", code, format.lastWords())
	}
	return args
}

// testContext ends with the test or its patience.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// isTimeout tells whether an error of a connection is its deadline.
func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// drain reads until the other side closes, or a deadline passes.
func drain(c net.Conn) error {
	_, err := io.Copy(io.Discard, c)
	return err
}
