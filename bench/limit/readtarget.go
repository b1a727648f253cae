package limit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/bench"
)

// ReadTarget is the bound of reading from the disk: a file for each partition, laid out as those of [Log], read from beginning to
// end with O_DIRECT preads of 1 MiB, preadReaders files at a time. There is no server and no network: it says what the disk gives,
// and its MB/s are MB of values like everybody's.
type ReadTarget struct{}

// Name implements bench.Target.
func (ReadTarget) Name() string { return "limit-pread" }

// Check implements bench.Checker.
func (ReadTarget) Check(setup bench.Setup) error {
	w := setup.Workload
	switch {
	case len(setup.Servers) > 0:
		return errors.New("a bound runs on this machine only: --servers makes no sense for it")
	case w.Mode != bench.ModeCatchUp:
		return fmt.Errorf("limit-pread is a bound of reading, for workloads such as catchup-cold-12-partitions-1kb, and not for %s", w.Name)
	case w.Cache != bench.CacheCold:
		return fmt.Errorf("limit-pread reads from the disk only: workload %s reads from memory, whose bound is limit-push", w.Name)
	}
	return nil
}

// Start implements bench.Target.
func (ReadTarget) Start(_ context.Context, setup bench.Setup) (bench.System, error) {
	return &readSystem{dir: setup.Dir}, nil
}

// readSystem is a directory.
type readSystem struct {
	dir     string
	written []atomic.Int64 // records, by partition
}

// Create implements bench.System.
func (s *readSystem) Create(_ context.Context, l bench.Layout) error {
	s.written = make([]atomic.Int64, l.Total())
	return nil
}

// Describe implements bench.System.
func (s *readSystem) Describe() bench.Description {
	return bench.Description{
		Version: "bare program", Replication: 1, Quorum: 1, Acks: "on the disk", Nodes: 0, Own: true, KeepsData: true,
		Fsync: "before the acknowledgement",
		Bound: "what the disk gives: no server, no network, one copy",
		Settings: map[string]string{
			"layout":  fmt.Sprintf("%d O_DIRECT files, allocated %d MiB ahead", len(s.written), aheadBytes>>20),
			"reading": fmt.Sprintf("%d files at a time, O_DIRECT preads of %d KiB", preadReaders, chunkBytes>>10),
		},
	}
}

// NewProducer implements bench.System.
func (s *readSystem) NewProducer(_ context.Context, l bench.Layout, ended func(bench.Outcome)) (bench.Producer, error) {
	return newPackProducer(s.dir, l.Total(), func(o bench.Outcome) {
		s.written[o.Partition].Add(int64(o.Count))
		ended(o)
	})
}

// NewConsumer implements bench.System.
func (s *readSystem) NewConsumer(_ context.Context, l bench.Layout) (bench.Consumer, error) {
	return newChunkConsumer(s.dir, l.Total(), preadReaders), nil
}

// Ends implements bench.System.
func (s *readSystem) Ends(context.Context, bench.Layout) ([]int64, error) {
	return endsOf(s.written), nil
}

// Processes implements bench.System: everything happens in the harness's own.
func (s *readSystem) Processes() []int { return nil }

// Close implements bench.System.
func (s *readSystem) Close() error { return nil }
