package limit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/bench"
)

// Target is the bound as something to be measured.
type Target struct {
	Layout  Layout
	Command []string // arguments that make this program's binary run [RunNode]; see Flags
}

// Flags are what a node's command line must understand, beside Command.
const (
	FlagDir        = "dir"
	FlagLayout     = "layout"
	FlagPartitions = "partitions"
	FlagFollowers  = "followers"
)

// ReadyPrefix begins the line that a node prints when it serves; its address follows.
const ReadyPrefix = "limit serves: "

// Name implements bench.Target.
func (t Target) Name() string {
	if t.Layout == Log {
		return "limit-log"
	}
	return "limit"
}

// Check implements bench.Checker.
func (t Target) Check(setup bench.Setup) error {
	w := setup.Workload
	switch {
	case len(setup.Servers) > 0:
		return errors.New("a bound runs on this machine only: --servers makes no sense for it")
	case w.Producers != 1:
		return errors.New("the bounds take one producer")
	case w.Mode != bench.ModeMaximum && w.Mode != bench.ModeRate || w.Fault != bench.FaultNone:
		return fmt.Errorf("%s is for maximum and fixed rates, not for workload %s; limit-push and limit-pread are the bounds of reading", t.Name(), w.Name)
	}
	return nil
}

// Start implements bench.Target. The processes start with the topics, when it is known how many files they need.
func (t Target) Start(_ context.Context, setup bench.Setup) (bench.System, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &system{target: t, setup: setup, path: path}, nil
}

// system is three processes.
type system struct {
	target     Target
	setup      bench.Setup
	path       string
	children   []*bench.Child
	leader     string // address
	partitions int
	produced   atomic.Bool
	acked      []atomic.Int64 // records, by partition
}

// Create implements bench.System.
func (s *system) Create(ctx context.Context, l bench.Layout) error {
	s.partitions = l.Total()
	s.acked = make([]atomic.Int64, s.partitions)
	var followers []string
	for i := range 3 { // the leader last: it dials the others
		args := append(append([]string{}, s.target.Command...),
			"--"+FlagDir, s.dir(i), "--"+FlagLayout, string(s.target.Layout), "--"+FlagPartitions, strconv.Itoa(s.partitions))
		if i == 2 {
			args = append(args, "--"+FlagFollowers, strings.Join(followers, ","))
		}
		address := ""
		child, err := bench.StartChild(ctx, bench.ChildOptions{
			Name: fmt.Sprintf("%s process %d", s.target.Name(), i), Path: s.path, Args: args, Log: s.dir(i) + ".txt", Share: s.setup.Workload.Share(3),
			Ready: func(line string) (ok bool) {
				address, ok = strings.CutPrefix(line, ReadyPrefix)
				return ok
			},
		})
		if err != nil {
			return err
		}
		s.children = append(s.children, child)
		followers = append(followers, address)
		s.leader = address
	}
	return nil
}

func (s *system) dir(i int) string { return filepath.Join(s.setup.Dir, "node-"+strconv.Itoa(i)) }

// keeps tells whether everything will still be there at the end.
func (s *system) keeps() bool {
	w := s.setup.Workload
	total := (w.WarmUp + w.Duration).Seconds() * w.Rate * float64(w.RecordBytes+headerBytes+recordBytes)
	return s.target.Layout == Log || w.Mode == bench.ModeRate && total < 0.9*journalBytes
}

// Describe implements bench.System.
func (s *system) Describe() bench.Description {
	d := bench.Description{
		Version: "bare program", Replication: 3, Quorum: 2, Acks: "2 of 3", Nodes: 3, Own: true, KeepsData: s.keeps(),
		Fsync: "before the acknowledgement, on two of three",
		Bound: "no Raft, no parsing, no recovery; frames of 64 KiB",
	}
	if s.target.Layout == Log {
		d.Settings = map[string]string{"layout": fmt.Sprintf("%d growing O_DIRECT files, allocated %d MiB ahead, each synced", s.partitions, aheadBytes>>20)}
	} else {
		d.Settings = map[string]string{"layout": fmt.Sprintf("one recycled file of %d MiB", journalBytes>>20)}
	}
	if share := s.setup.Workload.Share(3); share > 0 {
		d.Settings["processors"] = bench.ProcessorsSetting(share)
	}
	return d
}

// NewProducer implements bench.System.
func (s *system) NewProducer(_ context.Context, l bench.Layout, ended func(bench.Outcome)) (bench.Producer, error) {
	s.produced.Store(true)
	return newProducer(s.leader, s.setup.Workload, s.target.Layout, l.Total(), func(o bench.Outcome) {
		if o.Err == nil {
			s.acked[o.Partition].Add(int64(o.Count))
		}
		ended(o)
	})
}

// NewConsumer implements bench.System. Before the first producer it is one that reads along, afterwards one of files.
func (s *system) NewConsumer(_ context.Context, l bench.Layout) (bench.Consumer, error) {
	if !s.produced.Load() {
		return subscribe(s.leader, l.Total())
	}
	return &fileConsumer{
		layout: s.target.Layout, dir: s.dir(2), files: s.target.Layout.filesOf(l.Total()), offsets: make([]int64, l.Total()),
		frame: make([]byte, frameBytes),
	}, nil
}

// Ends implements bench.System: what was acknowledged, since nobody else writes.
func (s *system) Ends(context.Context, bench.Layout) ([]int64, error) { return endsOf(s.acked), nil }

// endsOf are the ends of partitions that nobody else writes.
func endsOf(acked []atomic.Int64) []int64 {
	ends := make([]int64, len(acked))
	for i := range ends {
		ends[i] = acked[i].Load()
	}
	return ends
}

// Processes implements bench.System.
func (s *system) Processes() (pids []int) {
	for _, c := range s.children {
		pids = append(pids, c.PID())
	}
	return pids
}

// Close implements bench.System.
func (s *system) Close() error {
	var errs []error
	for _, c := range s.children {
		errs = append(errs, c.Kill())
	}
	return errors.Join(errs...)
}
