package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorumlog/quorumlog/bench"
)

// Fsync says when JetStream syncs.
type Fsync string

const (
	// FsyncDefault is JetStream's default: every two minutes.
	FsyncDefault Fsync = ""
	// FsyncAlways syncs before each acknowledgement (sync_interval: always).
	FsyncAlways Fsync = "always"
)

// Target is JetStream as something to be measured.
type Target struct{ Fsync Fsync }

// Name implements bench.Target.
func (t Target) Name() string {
	if t.Fsync == FsyncAlways {
		return "nats-fsync"
	}
	return "nats"
}

// Start implements bench.Target.
func (t Target) Start(ctx context.Context, setup bench.Setup) (bench.System, error) {
	s := &system{target: t, setup: setup, servers: setup.Servers}
	if len(s.servers) == 0 {
		var err error
		if s.cluster, err = startCluster(ctx, setup, t.Fsync); err != nil {
			return nil, err
		}
		s.servers = s.cluster.servers
	}
	if err := s.connect(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

type system struct {
	target  Target
	setup   bench.Setup
	servers []string
	cluster *cluster     // nil: somebody else's
	conns   []*nats.Conn // one to each server
	leaders []*nats.Conn // by partition: to the server that leads its stream
}

// startTimeout bounds what has to happen before a measurement.
const startTimeout = time.Minute

// tryTimeout bounds one request: a server that does not know its leader yet drops it.
const tryTimeout = 2 * time.Second

// connect waits until every server answers and JetStream has a leader.
func (s *system) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for len(s.conns) < len(s.servers) {
		conn, err := nats.Connect(s.servers[len(s.conns)], nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.DontRandomize())
		if err == nil {
			s.conns = append(s.conns, conn)
		} else if pause(ctx) != nil {
			return fmt.Errorf("the server at %s does not answer: %w", s.servers[len(s.conns)], err)
		}
	}
	for {
		js, err := s.jetStream()
		if err == nil {
			_, err = js.AccountInfo(nats.MaxWait(tryTimeout))
		}
		if err == nil {
			return nil
		}
		if pause(ctx) != nil {
			return fmt.Errorf("JetStream does not answer at %v: %w", s.servers, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func (s *system) jetStream() (nats.JetStreamContext, error) {
	return s.conns[0].JetStream(nats.MaxWait(startTimeout))
}

// streamOf names the stream of a partition, and its only subject.
func streamOf(l bench.Layout, partition int) (stream, subject string) {
	topic, n := l.At(partition)
	return fmt.Sprintf("%s-%d", topic, n), fmt.Sprintf("%s.%d", topic, n)
}

func (s *system) replicas() int { return min(3, len(s.servers)) }

// Create implements bench.System.
func (s *system) Create(ctx context.Context, l bench.Layout) error {
	js, err := s.jetStream()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.leaders = nil
	for i := range l.Total() {
		stream, subject := streamOf(l, i)
		config := &nats.StreamConfig{Name: stream, Subjects: []string{subject}, Replicas: s.replicas(), Storage: nats.FileStorage}
		// A cluster that has just started may not know all its servers yet.
		info, err := js.AddStream(config, nats.MaxWait(tryTimeout))
		for err != nil && pause(ctx) == nil {
			info, err = js.AddStream(config, nats.MaxWait(tryTimeout))
		}
		if err != nil {
			return fmt.Errorf("cannot create the stream %s: %w", stream, err)
		}
		s.leaders = append(s.leaders, s.leaderConn(info))
	}
	return nil
}

// leaderConn is the connection to the server that leads a stream: a message that goes anywhere else is passed on first.
func (s *system) leaderConn(info *nats.StreamInfo) *nats.Conn {
	for _, c := range s.conns {
		if info.Cluster != nil && c.ConnectedServerName() == info.Cluster.Leader {
			return c
		}
	}
	return s.conns[0]
}

// Remove implements bench.Remover.
func (s *system) Remove(ctx context.Context, l bench.Layout) error {
	js, err := s.jetStream()
	if err != nil {
		return err
	}
	for i := range l.Total() {
		stream, _ := streamOf(l, i)
		if err := js.DeleteStream(stream, nats.Context(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// Describe implements bench.System.
func (s *system) Describe() bench.Description {
	d := bench.Description{
		Version: "nats-server " + s.conns[0].ConnectedServerVersion(), Replication: s.replicas(), Quorum: s.replicas()/2 + 1, Acks: "all",
		Nodes: len(s.servers), Own: s.cluster != nil, KeepsData: true,
		Fsync: "NOT before the acknowledgement: in memory or the page cache of a majority (sync_interval 2m)",
		Settings: map[string]string{
			"client": fmt.Sprintf("nats.go %s, asynchronous publish to the leaders of the streams, %d messages in flight, nothing is sent again", nats.Version, s.window()),
		},
	}
	if share := s.setup.Workload.Share(d.Nodes); d.Own && share > 0 {
		d.Settings["processors"] = bench.ProcessorsSetting(share)
	}
	if s.target.Fsync == FsyncAlways {
		d.Fsync = "before the acknowledgement, on a majority (sync_interval: always)"
	}
	return d
}

// window is how many messages may be in flight: more than this makes JetStream slower.
func (s *system) window() int {
	w := s.setup.Workload
	most := 8192
	if s.target.Fsync == FsyncAlways {
		most = 16384
	}
	return min(most, int(w.InFlight)/w.RecordBytes)
}

// Processes implements bench.System.
func (s *system) Processes() []int {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.pids()
}

// Ends implements bench.System. Streams count from 1.
func (s *system) Ends(ctx context.Context, l bench.Layout) ([]int64, error) {
	js, err := s.jetStream()
	if err != nil {
		return nil, err
	}
	ends := make([]int64, l.Total())
	for i := range ends {
		stream, _ := streamOf(l, i)
		info, err := js.StreamInfo(stream, nats.Context(ctx))
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", stream, err)
		}
		ends[i] = int64(info.State.LastSeq)
	}
	return ends, nil
}

// LeaderOf implements bench.Faults.
func (s *system) LeaderOf(ctx context.Context, l bench.Layout, partition int) (int, error) {
	js, err := s.jetStream()
	if err != nil {
		return 0, err
	}
	stream, _ := streamOf(l, partition)
	info, err := js.StreamInfo(stream, nats.Context(ctx))
	if err != nil {
		return 0, err
	}
	for i := range s.cluster.nodes {
		if info.Cluster != nil && nodeName(i) == info.Cluster.Leader {
			return i, nil
		}
	}
	return 0, fmt.Errorf("stream %s has no leader", stream)
}

// Kill implements bench.Faults.
func (s *system) Kill(node int) error { return s.cluster.end(node, (*bench.Child).Kill) }

// Stop implements bench.Faults.
func (s *system) Stop(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := s.cluster.end(node, func(c *bench.Child) error { return c.Terminate(ctx) })
	if ctx.Err() == nil {
		return nil // nats-server ends a stop by signal with 1
	}
	return err
}

// Restart implements bench.Faults.
func (s *system) Restart(ctx context.Context, node int) error { return s.cluster.start(ctx, node) }

// Close implements bench.System.
func (s *system) Close() error {
	for _, c := range s.conns {
		c.Close()
	}
	if s.cluster == nil {
		return nil
	}
	return s.cluster.close()
}
