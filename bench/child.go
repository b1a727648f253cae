package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// ChildOptions says how a server process is started.
type ChildOptions struct {
	Name  string // for messages, such as "node 1"
	Path  string // executable
	Args  []string
	Dir   string                      // working directory; empty: this process's
	Log   string                      // file to which its output and errors are appended
	Share int                         // how many such processes share the machine: see Processors; 0: it has all to itself
	Ready func(line string) (ok bool) // whether a line of its output says that it serves; nil: the caller finds out
}

// Child is a process that this one started. It dies with it.
type Child struct {
	options ChildOptions
	command *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	err     error         // how it ended, readable then
}

// StartChild starts a process and returns when it is ready.
func StartChild(ctx context.Context, o ChildOptions) (*Child, error) {
	log, err := os.OpenFile(o.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log of %s: %w", o.Name, err)
	}
	command := exec.Command(o.Path, o.Args...)
	command.Dir, command.Stderr = o.Dir, log
	if o.Share > 0 {
		command.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", Processors(o.Share)))
	}
	command.SysProcAttr = childAttributes()
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start %s: %w", o.Name, err), log.Close())
	}
	c := &Child{options: o, command: command, exited: make(chan struct{})}
	serving := make(chan struct{})
	if o.Ready == nil {
		close(serving)
	}
	go c.collect(stdout, log, serving)
	select {
	case <-serving:
		return c, nil
	case <-c.exited:
		return nil, fmt.Errorf("%s ended before it served: %w; its last words: %s", o.Name, c.err, lastLine(o.Log))
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("%s did not serve in time: %w; its last words: %s", o.Name, ctx.Err(), lastLine(o.Log)), c.Kill())
	}
}

// Processors is what a Go program may use that shares the machine with others of its kind, n in all: a part each, rounded up. Programs
// that each count on all processors keep more threads awake than there are processors, and every message waits for one of them: on two
// processors it made three nodes twice as slow. GOMAXPROCS, if it is set, is taken instead.
func Processors(n int) int {
	if set, err := strconv.Atoi(os.Getenv("GOMAXPROCS")); err == nil && set > 0 {
		return set
	}
	return (runtime.NumCPU() + n - 1) / n
}

// ProcessorsSetting is what a report says of it.
func ProcessorsSetting(n int) string {
	return fmt.Sprintf("GOMAXPROCS %d for each of %d nodes on %d cores", Processors(n), n, runtime.NumCPU())
}

// collect owns the process: it reads its output to the end and waits for it.
func (c *Child) collect(stdout io.Reader, log *os.File, serving chan struct{}) {
	said := c.options.Ready == nil
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if !said && c.options.Ready(lines.Text()) {
			said = true
			close(serving)
		}
		fmt.Fprintln(log, lines.Text())
	}
	c.err = c.command.Wait()
	log.Close()
	close(c.exited)
}

// PID returns the process's id.
func (c *Child) PID() int { return c.command.Process.Pid }

// Running tells whether the process has not ended.
func (c *Child) Running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (c *Child) Kill() error { return c.signal(context.Background(), syscall.SIGKILL) }

// Terminate asks the process to stop, with SIGTERM, and waits until it is gone.
func (c *Child) Terminate(ctx context.Context) error { return c.signal(ctx, syscall.SIGTERM) }

// Signal sends a signal.
func (c *Child) Signal(s os.Signal) error {
	if err := c.command.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot signal %s: %w", c.options.Name, err)
	}
	return nil
}

func (c *Child) signal(ctx context.Context, s syscall.Signal) error {
	if err := c.Signal(s); err != nil {
		return err
	}
	select {
	case <-c.exited:
	case <-ctx.Done():
		return fmt.Errorf("%s did not stop: %w", c.options.Name, ctx.Err())
	}
	if s != syscall.SIGKILL && c.err != nil {
		return fmt.Errorf("%s ended with %w; its last words: %s", c.options.Name, c.err, lastLine(c.options.Log))
	}
	return nil
}

// lastLine returns the last line of a log file, for error messages.
func lastLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(data))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
