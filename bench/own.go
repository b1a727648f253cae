package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quorumlog/quorumlog/client"
)

// Fsync says whether quorumlog's nodes sync.
type Fsync string

const (
	// FsyncDefault is quorumlog's default: before each acknowledgement.
	FsyncDefault Fsync = ""
	// FsyncNever drops all syncs (--unsafe-no-fsync), for comparisons with systems that do not sync before they acknowledge.
	FsyncNever Fsync = "never"
)

// The names of quorumlog itself among the targets.
const (
	nameOwn        = "quorumlog"
	nameOwnNoFsync = "quorumlog-no-fsync"
)

// Quorumlog is quorumlog itself as a target.
type Quorumlog struct {
	Binary  string   // executable of which nodes are started; empty: this process's own
	Nodes   int      // 0: three
	Args    []string // more flags for each node
	Fsync   Fsync
	Version string
	TLS     TLS
	// Protocol is what its clients speak; nil: quorumlog's own.
	Protocol Protocol
}

// Protocol is another protocol of quorumlog's nodes than their own.
type Protocol interface {
	// Name follows the target's name.
	Name() string
	// Describe says whose the clients are.
	Describe() string
	// Clients makes the clients of the nodes at these addresses.
	Clients(w Workload, servers []string, files client.TLSFiles) (Clients, error)
}

// TLS says how the nodes and their clients know each other.
type TLS struct {
	On    bool            // nodes that are started, and this client of them, have certificates that are made for the run
	Files client.TLSFiles // of this client, to a cluster that runs already
}

// Name implements Target.
func (q Quorumlog) Name() string {
	switch {
	case q.Fsync == FsyncNever:
		return nameOwnNoFsync
	case q.Protocol != nil:
		return nameOwn + "-" + q.Protocol.Name()
	}
	return nameOwn
}

// errOtherServers is why no cluster that runs already is measured by another protocol.
var errOtherServers = errors.New("--servers names addresses of quorumlog's own protocol: to measure such a cluster by Kafka's, give its Kafka addresses to the target kafka")

// Check implements Checker.
func (q Quorumlog) Check(setup Setup) error {
	if q.Protocol != nil && len(setup.Servers) > 0 {
		return errOtherServers
	}
	return nil
}

// Start implements Target.
func (q Quorumlog) Start(ctx context.Context, setup Setup) (System, error) {
	s := &ownSystem{setup: setup, servers: setup.Servers, fsync: q.Fsync, version: q.Version, tls: q.TLS.Files, protocol: q.Protocol}
	def(&q.Nodes, 3)
	if len(s.servers) == 0 {
		if q.Binary == "" {
			var err error
			if q.Binary, err = os.Executable(); err != nil {
				return nil, fmt.Errorf("cannot find this program's file, of which the nodes are started: %w", err)
			}
		}
		s.args = []string{"--metrics", "127.0.0.1:0"}
		if w := setup.Workload; w.Mode == ModeCatchUp && w.Cache == CacheHot {
			// The backlog is meant to be in memory: records have headers, and partitions are not equally long.
			s.args = append(s.args, "--cache-mb", strconv.FormatInt(int64(w.BacklogBytes)*5/4>>20, 10))
		}
		if q.Fsync == FsyncNever {
			s.args = append(s.args, "--unsafe-no-fsync")
		}
		s.args = append(s.args, q.Args...)
		if q.TLS.On {
			flags, err := s.makeCertificates(q.Nodes)
			if err != nil {
				return nil, err
			}
			s.args = append(s.args, flags...)
		}
		begin := time.Now()
		var err error
		if s.cluster, err = StartCluster(ctx, ClusterOptions{
			Binary: q.Binary, Dir: setup.Dir, Nodes: q.Nodes, Share: setup.Workload.Share(q.Nodes),
			Args: append(s.args[:len(s.args):len(s.args)], setup.Profile.flags()...),
		}); err != nil {
			return nil, err
		}
		s.servers = s.cluster.Servers()
		setup.Log("%d nodes serve after %v", q.Nodes, time.Since(begin).Round(time.Millisecond))
	}
	var err error
	if s.client, err = client.New(client.Options{Servers: s.servers, ClientID: "bench", TLSFiles: s.tls}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.awaitNodes(ctx, q.Nodes); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := checkFsync(q.Fsync, s.status.Nodes); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.Clients = ownClients{s.client, setup.Workload}
	if q.Protocol != nil {
		if s.Clients, err = q.Protocol.Clients(setup.Workload, s.cluster.KafkaServers(), s.tls); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// checkFsync refuses to measure nodes of one class under the name of the other, whoever started them.
func checkFsync(want Fsync, nodes []client.NodeStatus) error {
	for _, n := range nodes {
		switch {
		case n.FsyncClass == "": // it could not be asked
		case n.Unsafe() && want != FsyncNever:
			return fmt.Errorf("node %d runs with --unsafe-no-fsync: measure it as the target %s", n.ID, nameOwnNoFsync)
		case !n.Unsafe() && want == FsyncNever:
			return fmt.Errorf("node %d syncs before it acknowledges: measure it as the target %s", n.ID, nameOwn)
		}
	}
	return nil
}

// ownSystem is a cluster under measurement.
type ownSystem struct {
	Clients
	setup    Setup
	fsync    Fsync
	version  string
	args     []string
	servers  []string
	tls      client.TLSFiles
	protocol Protocol
	cluster  *Cluster // nil: somebody else's
	client   *client.Client
	status   client.ClusterStatus
}

// awaitNodes waits until a cluster that was just started has all its nodes.
func (s *ownSystem) awaitNodes(ctx context.Context, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		status, err := s.client.Admin().ClusterStatus(ctx)
		alive := 0
		for _, n := range status.Nodes {
			if n.Alive {
				alive++
			}
		}
		if err == nil && (s.cluster == nil || alive >= nodes) {
			s.status = status
			return nil
		}
		if sleepFor(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("the cluster at %v has %d nodes of %d: %w", s.servers, alive, nodes, errors.Join(err, ctx.Err()))
		}
	}
}

// Create implements System.
func (s *ownSystem) Create(ctx context.Context, l Layout) error {
	replicas := min(3, len(s.status.Nodes))
	for _, topic := range l.Topics {
		spec := client.TopicSpec{
			Name: topic, Partitions: l.Partitions, ReplicationFactor: replicas,
			Configs: map[string]string{"min.insync.replicas": strconv.Itoa(replicas/2 + 1)},
		}
		for {
			err := s.client.Admin().CreateTopic(ctx, spec)
			if err == nil {
				break
			}
			if !errors.Is(err, client.ErrInvalidReplicationFactor) || sleepFor(ctx, 50*time.Millisecond) != nil {
				return err
			}
		}
	}
	return nil
}

// Remove implements Remover.
func (s *ownSystem) Remove(ctx context.Context, l Layout) error {
	for _, topic := range l.Topics {
		if err := s.client.Admin().DeleteTopic(ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

// Describe implements System.
func (s *ownSystem) Describe() Description {
	replicas := min(3, len(s.status.Nodes))
	d := Description{
		Version: s.version, Replication: replicas, Quorum: replicas/2 + 1, Acks: "all", Nodes: len(s.status.Nodes),
		Own: s.cluster != nil, KeepsData: true,
		Fsync:    s.fsync.describe(),
		Settings: map[string]string{"min.insync.replicas": strconv.Itoa(replicas/2 + 1), "idempotent producer": "yes"},
	}
	if s.protocol != nil {
		d.Settings["client"] = s.protocol.Describe()
	}
	if s.tls != (client.TLSFiles{}) {
		d.Settings["TLS"] = "1.3, mutual"
	}
	for _, n := range s.status.Nodes {
		if n.FsyncClass != "" {
			d.Settings["fsync class"] = n.FsyncClass
		}
		if n.Version != "" {
			d.Version = n.Version
		}
	}
	if share := s.setup.Workload.Share(d.Nodes); d.Own && share > 0 {
		d.Settings["processors"] = ProcessorsSetting(share)
	}
	if len(s.args) > 0 {
		d.Settings["node flags"] = strings.Join(s.args, " ")
	}
	return d
}

// describe is what a report says.
func (f Fsync) describe() string {
	if f == FsyncNever {
		return "never: --unsafe-no-fsync, a power failure loses acknowledged records"
	}
	return "before the acknowledgement, on a majority"
}

// Processes implements System.
func (s *ownSystem) Processes() []int {
	if s.cluster == nil {
		return nil
	}
	var pids []int
	for _, p := range s.cluster.Nodes() {
		if pid := p.PID(); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Close implements System.
func (s *ownSystem) Close() error {
	var errs []error
	if s.client != nil {
		errs = append(errs, s.client.Close())
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Close())
	}
	return errors.Join(errs...)
}

// Ends implements System.
func (s *ownSystem) Ends(ctx context.Context, l Layout) ([]int64, error) {
	ends := make([]int64, l.Total())
	for _, topic := range l.Topics {
		offsets, err := s.client.Admin().Offsets(ctx, topic)
		if err != nil {
			return nil, err
		}
		for _, o := range offsets {
			ends[l.Index(topic, int32(o.Partition))] = int64(o.End)
		}
	}
	return ends, nil
}

// LeaderOf implements Faults.
func (s *ownSystem) LeaderOf(ctx context.Context, l Layout, partition int) (int, error) {
	topic, n := l.At(partition)
	topics, err := s.client.Admin().DescribeTopics(ctx, topic)
	if err != nil {
		return 0, err
	}
	for i, p := range s.cluster.Nodes() {
		if p.ID == topics[0].Partitions[n].Leader {
			return i, nil
		}
	}
	return 0, fmt.Errorf("it is led by node %d, which is none of this run's", topics[0].Partitions[n].Leader)
}

// Kill implements Faults.
func (s *ownSystem) Kill(node int) error { return s.cluster.Nodes()[node].Kill() }

// Stop implements Faults.
func (s *ownSystem) Stop(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return s.cluster.Nodes()[node].Terminate(ctx)
}

// Restart implements Faults.
func (s *ownSystem) Restart(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.cluster.Nodes()[node].Start(ctx)
}

// StartProfiles implements profiler.
func (s *ownSystem) StartProfiles() error { return s.signal(syscall.SIGUSR1) }

// StopProfiles implements profiler.
func (s *ownSystem) StopProfiles() error { return s.signal(syscall.SIGUSR2) }

func (s *ownSystem) signal(sig os.Signal) error {
	var errs []error
	if s.cluster != nil && s.setup.Profile != (Profile{}) {
		for _, p := range s.cluster.Nodes() {
			errs = append(errs, p.Signal(sig))
		}
	}
	return errors.Join(errs...)
}

// Counters implements counter.
func (s *ownSystem) Counters(ctx context.Context) (map[string]float64, error) {
	sums := make(map[string]float64)
	for _, n := range s.status.Nodes {
		if n.MetricsAddress == "" {
			continue
		}
		if err := scrape(ctx, n.MetricsAddress, sums); err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// scrape adds what a node counts to sums: its own counters, and the Go runtime's of allocations.
func scrape(ctx context.Context, address string, sums map[string]float64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("cannot read the metrics of %s: %w", address, err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || name != mallocs && !(strings.HasPrefix(name, "quorumlog_") && strings.HasSuffix(name, "_total")) {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			sums[name] += v
		}
	}
	return nil
}
