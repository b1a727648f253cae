package push

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/bench"
)

// Target is the bound as something to be measured: what it costs to move a backlog from the memory of three processes into the
// harness's consumer, over the transport that quorumlog uses.
//
// To be a fair bound of quorumlog's consumer it has what is given: the same bytes (Kafka's RecordBatch v2, made by the package
// that quorumlog's client makes them with), as many processes and connections (three nodes lead a third of the partitions each,
// and a consumer has one stream to each), drpc with the same options and messages of the same size, and the same walk over the
// records by one goroutine that compares every byte. It has nothing of what quorumlog decides: no subscriptions and credit (TCP
// holds a server back), no look-up of what to send (messages are kept as they are sent, and handed to drpc without a copy), no
// checksums (the harness compares anyway), no copy out of the receive buffer, no offsets to resume at.
type Target struct {
	Command []string // arguments that make this program's binary run [RunServer]
}

// ReadyPrefix begins the line that a server prints when it serves; its address follows.
const ReadyPrefix = "push serves: "

// servers is how many processes there are: as many as quorumlog has nodes.
const servers = 3

// Name implements bench.Target.
func (Target) Name() string { return "limit-push" }

// Check implements bench.Checker.
func (Target) Check(setup bench.Setup) error {
	w := setup.Workload
	switch {
	case len(setup.Servers) > 0:
		return errors.New("a bound runs on this machine only: --servers makes no sense for it")
	case w.Mode != bench.ModeCatchUp:
		return fmt.Errorf("limit-push is a bound of reading, for workloads such as catchup-12-partitions-1kb, and not for %s", w.Name)
	case w.Cache == bench.CacheCold:
		return fmt.Errorf("limit-push reads from memory only: workload %s reads from the disk, whose bound is limit-pread", w.Name)
	}
	return nil
}

// Start implements bench.Target.
func (t Target) Start(ctx context.Context, setup bench.Setup) (bench.System, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &system{setup: setup}
	for i := range servers {
		if err := s.start(ctx, path, t.Command, i); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// system is the processes.
type system struct {
	setup     bench.Setup
	children  []*bench.Child
	addresses []string
	kept      []atomic.Int64 // records, by partition
}

func (s *system) start(ctx context.Context, path string, command []string, i int) error {
	address := ""
	child, err := bench.StartChild(ctx, bench.ChildOptions{
		Name: fmt.Sprintf("limit-push process %d", i), Path: path, Args: command, Log: filepath.Join(s.setup.Dir, fmt.Sprintf("node-%d.txt", i)),
		Ready: func(line string) (ok bool) {
			address, ok = strings.CutPrefix(line, ReadyPrefix)
			return ok
		},
	})
	if err != nil {
		return err
	}
	s.children, s.addresses = append(s.children, child), append(s.addresses, address)
	return nil
}

// Create implements bench.System.
func (s *system) Create(_ context.Context, l bench.Layout) error {
	s.kept = make([]atomic.Int64, l.Total())
	return nil
}

// Describe implements bench.System.
func (s *system) Describe() bench.Description {
	return bench.Description{
		Version: "bare program", Replication: 1, Quorum: 1, Acks: "in memory", Nodes: servers, Own: true, KeepsData: true,
		Fsync: "never: nothing is written",
		Bound: "the same batches from memory, raw over one drpc stream from each of as many processes as quorumlog has nodes, visited in drpc's buffer: " +
			"no subscriptions, no credit, no checksums, no copies but drpc's",
		Settings: map[string]string{"messages": fmt.Sprintf("one batch of up to %d KiB", messageBytes>>10)},
	}
}

// NewProducer implements bench.System.
func (s *system) NewProducer(ctx context.Context, l bench.Layout, ended func(bench.Outcome)) (bench.Producer, error) {
	return newProducer(ctx, s.addresses, s.setup.Workload, l.Total(), func(o bench.Outcome) {
		s.kept[o.Partition].Add(int64(o.Count))
		ended(o)
	})
}

// NewConsumer implements bench.System.
func (s *system) NewConsumer(ctx context.Context, l bench.Layout) (bench.Consumer, error) {
	return newConsumer(ctx, s.addresses, l.Total())
}

// Ends implements bench.System: what the servers have answered for, since nobody else writes.
func (s *system) Ends(context.Context, bench.Layout) ([]int64, error) {
	ends := make([]int64, len(s.kept))
	for i := range ends {
		ends[i] = s.kept[i].Load()
	}
	return ends, nil
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
