package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/bench"
)

// Fsync says when Kafka's brokers sync.
type Fsync string

const (
	// FsyncDefault is Kafka's default: the kernel writes when it likes, after the acknowledgement.
	FsyncDefault Fsync = ""
	// FsyncAlways syncs each append before its acknowledgement (flush.messages=1).
	FsyncAlways Fsync = "always"
)

// Target is Kafka as something to be measured.
type Target struct {
	Fsync Fsync
	Heat  time.Duration // how long an own cluster is loaded before anything counts
}

// Name implements bench.Target.
func (t Target) Name() string {
	if t.Fsync == FsyncAlways {
		return "kafka-fsync"
	}
	return "kafka"
}

// Start implements bench.Target.
func (t Target) Start(ctx context.Context, setup bench.Setup) (bench.System, error) {
	s := &system{target: t, setup: setup, brokers: setup.Servers}
	if len(s.brokers) == 0 {
		begin := time.Now()
		var err error
		if s.cluster, err = startCluster(ctx, setup.Dir, setup.Log); err != nil {
			return nil, err
		}
		s.brokers = s.cluster.brokers
		setup.Log("three nodes serve after %v", time.Since(begin).Round(100*time.Millisecond))
	}
	var err error
	s.clients = clients{[]kgo.Opt{kgo.SeedBrokers(s.brokers...)}, setup.Workload}
	if s.admin, err = kgo.NewClient(s.options...); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.nodes, err = s.awaitBrokers(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

type system struct {
	clients
	target  Target
	setup   bench.Setup
	brokers []string
	cluster *cluster // nil: somebody else's
	admin   *kgo.Client
	nodes   int
}

// clientName says in reports whose clients have made the figures.
const clientName = "franz-go, idempotent, no compression"

// startTimeout bounds what has to happen before a measurement.
const startTimeout = time.Minute

// awaitBrokers waits until all brokers of an own cluster are registered and returns how many there are.
func (s *system) awaitBrokers(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		m, err := s.metadata(ctx)
		if err == nil && (s.cluster == nil || len(m.Brokers) == len(s.cluster.nodes)) {
			return len(m.Brokers), nil
		}
		if pause(ctx) != nil {
			return 0, fmt.Errorf("the brokers at %v do not answer: %w", s.brokers, errors.Join(err, ctx.Err()))
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

func (s *system) metadata(ctx context.Context, topics ...string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	return req.RequestWith(ctx, s.admin)
}

func (s *system) replicas() int { return min(3, s.nodes) }

// Create implements bench.System.
func (s *system) Create(ctx context.Context, l bench.Layout) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(startTimeout.Milliseconds())
	configs := map[string]string{"min.insync.replicas": fmt.Sprint(s.replicas()/2 + 1)}
	if s.target.Fsync == FsyncAlways {
		configs["flush.messages"] = "1"
	}
	for _, name := range l.Topics {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(l.Partitions), int16(s.replicas())
		for key, value := range configs {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = key, kmsg.StringPtr(value)
			t.Configs = append(t.Configs, c)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, s.admin)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", t.Topic, err)
		}
	}
	for {
		if led, err := s.led(ctx, l); led {
			return nil
		} else if pause(ctx) != nil {
			return fmt.Errorf("not all partitions have a leader: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// led tells whether every partition has a leader.
func (s *system) led(ctx context.Context, l bench.Layout) (bool, error) {
	m, err := s.metadata(ctx, l.Topics...)
	if err != nil {
		return false, err
	}
	led := 0
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
	}
	return led == l.Total(), nil
}

// Remove implements bench.Remover.
func (s *system) Remove(ctx context.Context, l bench.Layout) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(startTimeout.Milliseconds())
	req.TopicNames = l.Topics
	for _, name := range l.Topics {
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, s.admin)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

// HeatFor implements bench.Heater.
func (s *system) HeatFor() time.Duration { return s.target.Heat }

// Describe implements bench.System.
func (s *system) Describe() bench.Description {
	d := bench.Description{
		Version: "Kafka protocol", Replication: s.replicas(), Quorum: s.replicas()/2 + 1, Acks: "all", Nodes: s.nodes, Own: s.cluster != nil, KeepsData: true,
		Fsync:    "NOT before the acknowledgement: in the page cache of the in-sync replicas",
		Settings: map[string]string{"min.insync.replicas": fmt.Sprint(s.replicas()/2 + 1), "client": clientName},
	}
	if s.cluster != nil {
		d.Version = "Apache Kafka " + Version
		d.Settings["heap"] = "1 GiB, G1, warmed up for " + s.target.Heat.String()
	}
	if s.target.Fsync == FsyncAlways {
		d.Fsync = "before the acknowledgement, on all in-sync replicas (flush.messages=1)"
	}
	return d
}

// Processes implements bench.System.
func (s *system) Processes() []int {
	if s.cluster == nil {
		return nil
	}
	return s.cluster.pids()
}

// Ends implements bench.System.
func (s *system) Ends(ctx context.Context, l bench.Layout) ([]int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, name := range l.Topics {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = name
		for i := range l.Partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = int32(i), -1
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	ends := make([]int64, l.Total())
	found := 0
	for _, shard := range s.admin.RequestSharded(ctx, req) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, t := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return nil, fmt.Errorf("%s-%d: %w", t.Topic, p.Partition, err)
				}
				ends[l.Index(t.Topic, p.Partition)] = p.Offset
				found++
			}
		}
	}
	if found != l.Total() {
		return nil, fmt.Errorf("the brokers told the ends of %d partitions of %d", found, l.Total())
	}
	return ends, nil
}

// LeaderOf implements bench.Faults.
func (s *system) LeaderOf(ctx context.Context, l bench.Layout, partition int) (int, error) {
	topic, n := l.At(partition)
	m, err := s.metadata(ctx, topic)
	if err != nil {
		return 0, err
	}
	for _, p := range m.Topics[0].Partitions {
		if p.Partition == n && p.Leader > 0 {
			return int(p.Leader) - 1, nil
		}
	}
	return 0, fmt.Errorf("partition %d has no leader", n)
}

// Kill implements bench.Faults.
func (s *system) Kill(node int) error { return s.cluster.end(node, (*bench.Child).Kill) }

// Stop implements bench.Faults.
func (s *system) Stop(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := s.cluster.end(node, func(c *bench.Child) error { return c.Terminate(ctx) })
	if ctx.Err() == nil {
		return nil // a JVM that is stopped by a signal ends with 143
	}
	return err
}

// Restart implements bench.Faults.
func (s *system) Restart(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.cluster.start(ctx, node)
}

// Close implements bench.System.
func (s *system) Close() error {
	if s.admin != nil {
		s.admin.Close()
	}
	if s.cluster == nil {
		return nil
	}
	return s.cluster.close()
}
