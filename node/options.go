package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Founding says what a node does when its data directory belongs to no cluster yet.
type Founding int

const (
	// JoinCluster waits for a cluster to be found through the addresses of Options.Join.
	JoinCluster Founding = iota
	// Bootstrap founds a new cluster, once every node of Options.Join has said that it belongs to none; see found.go. It is ignored once
	// the data directory belongs to a cluster, so that a start script may always pass it. Format founds with one node alone.
	Bootstrap
)

// Options are all settings of a node. The zero value is not usable: NodeID and DataDir must be given.
type Options struct {
	// NodeID is the operator's number for the node, unique in the cluster, >= 0, fixed for the life of the data directory.
	NodeID id.Node
	// DataDir holds all state, or with MoreDataDirs the node's identity, the metadata and some of the replicas. It is created when missing.
	DataDir string
	// MoreDataDirs hold replicas beside DataDir, each on a disk of its own: one that fails takes its own replicas offline and no others. New
	// replicas go where most is free. Directories may be added with any start; none can be taken away.
	MoreDataDirs []string
	// AllowMissingDataDirs starts the node without those of MoreDataDirs that it has used and that are missing, or whose disk fails: what may be
	// in them stays offline until a start with them.
	AllowMissingDataDirs bool
	// ClusterName separates clusters whose networks touch: it is the label of every gossip packet. Default "quorumlog".
	ClusterName string
	// RPCAddress is the host:port on which peers and clients are served. Default 127.0.0.1:9192; port 0 picks one.
	RPCAddress string
	// AdvertisedAddress is the host:port that peers and clients are told to dial. Default: the bound RPC address.
	AdvertisedAddress string
	// GossipAddress is the host:port of gossip, TCP and UDP. Default 127.0.0.1:7946; port 0 picks one.
	GossipAddress string
	// KafkaAddress is the host:port on which Kafka's protocol is served, port 0 picks one. Empty: not served.
	KafkaAddress string
	// KafkaAdvertisedAddress is the host:port that clients of Kafka's protocol are told to dial. Default: the bound one.
	KafkaAdvertisedAddress string
	// MetricsAddress is the host:port of /metrics, /healthz and /readyz. Empty: not served.
	MetricsAddress string
	// Join are gossip addresses of nodes of the cluster. Any one that is alive suffices, but to found one: see Founding.
	Join []string
	// Rack is where the node stands; placement spreads replicas over racks.
	Rack string
	// Founding says whether this node may found a cluster.
	Founding Founding
	// Security says who is believed. The zero value: everybody who reaches the ports.
	Security SecurityOptions
	// Storage tunes the wal. The zero value takes its defaults.
	Storage StorageOptions
	// Authorization says who may do what. The zero value: everybody everything. More needs Security.TLS.
	Authorization AuthorizationOptions
	// Limits bound what clients may cost. The zero value takes the defaults.
	Limits LimitOptions
	// Timing tunes elections and failure detection. The zero value takes the defaults.
	Timing TimingOptions
	// Logger receives the node's log. Default: slog.Default().
	Logger *slog.Logger
}

// mostMoreDirs is as many store ids as the identity of the first directory has room for, with some to spare.
const mostMoreDirs = 31

// StorageOptions tune the node's wal. All sizes are bytes; zero takes the wal's default.
type StorageOptions struct {
	Disk DiskMode
	// Fsync wal.FsyncNone acknowledges without syncing, for comparisons only: a power failure loses acknowledged records.
	Fsync               wal.FsyncClass
	CacheBytes          int64
	DirectAppendBytes   int64
	JournalFileBytes    int64
	CheckpointBytes     int64
	ReserveBytes        int64
	CheckpointInterval  time.Duration
	DefaultSegmentBytes int64
	// ScrubRate is how many bytes a second are read in the background to find rot; 0: none.
	ScrubRate int64
}

// LimitOptions bound what all clients of a node may cost together. Zero values take the defaults.
type LimitOptions struct {
	// ConnectionsPerAddress is how many connections one host may have; negative: as many as there are. By default a quarter of all, which
	// depend on the limit of open files, but at least 64. Loopback is not limited. Kafka's max.connections.per.ip.
	ConnectionsPerAddress int
	// ProduceBytes bounds the batches of all producers that have not been answered, 256 MiB by default. Beyond it producers are throttled, those
	// first that have most.
	ProduceBytes int64
}

// DiskMode selects how segment files are written.
type DiskMode int

const (
	// DiskAuto uses direct I/O where the file system of the data directory allows it.
	DiskAuto DiskMode = iota
	// DiskBuffered always writes through the page cache.
	DiskBuffered
)

func (m DiskMode) open(dir string) (disk.FS, error) {
	if m == DiskBuffered {
		return disk.NewBuffered(), nil
	}
	return disk.NewOS(dir)
}

// TimingOptions tune elections. Zero values take the defaults.
type TimingOptions struct {
	// TickInterval is the length of a Raft tick (default 100 ms); heartbeats are sent every HeartbeatTicks (5), a follower
	// that hears nothing for ElectionTicks (30) to twice as many campaigns. Failover does not wait for that: a broken peer
	// lane starts it at once.
	TickInterval                  time.Duration
	HeartbeatTicks, ElectionTicks int
	// BalanceInterval is how often a node looks whether it leads partitions that prefer another node (default 30 s).
	BalanceInterval time.Duration
	// ProducerExpiry is for how long a partition remembers an idempotent producer that writes nothing, at least: a batch that it sends again
	// after that is taken for a new one. Default 24 h.
	ProducerExpiry time.Duration
	// VoterGrace is how long a voter of the metadata may be away before another node votes in its place (default 10 min).
	VoterGrace time.Duration
	// Gossip selects the timings of failure hints; GossipTest uses gossip timings for tests: detection within a second at the price of false alarms on loaded machines.
	Gossip Gossip
}

// Gossip names a set of gossip timings.
type Gossip int

const (
	// GossipProduction detects a crash within 3-4 s and survives process pauses of 2 s.
	GossipProduction Gossip = iota
	// GossipTest detects within about a second; for tests on loopback.
	GossipTest
)

func (o Options) withDefaults() Options {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&o.ClusterName, "quorumlog")
	def(&o.RPCAddress, "127.0.0.1:9192")
	def(&o.GossipAddress, "127.0.0.1:7946")
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Timing.BalanceInterval <= 0 {
		o.Timing.BalanceInterval = 30 * time.Second
	}
	if o.Timing.ProducerExpiry <= 0 {
		o.Timing.ProducerExpiry = 24 * time.Hour
	}
	if o.Storage.DefaultSegmentBytes == 0 {
		o.Storage.DefaultSegmentBytes = 1 << 30
	}
	return o
}

// Validate returns the first thing that is wrong with o, in words that name the option and the fix.
func (o Options) Validate() error {
	switch {
	case o.NodeID < 0:
		return fmt.Errorf("node id %d: must be 0 or more and unique in the cluster (--node-id)", o.NodeID)
	case o.DataDir == "":
		return errors.New("no data directory: name one with --data-dir")
	case len(o.MoreDataDirs) > mostMoreDirs:
		return fmt.Errorf("%d data directories: at most %d (--data-dir)", 1+len(o.MoreDataDirs), 1+mostMoreDirs)
	case len(o.ClusterName) > 200:
		return fmt.Errorf("cluster name of %d bytes: at most 200", len(o.ClusterName))
	case strings.ContainsFunc(o.ClusterName, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("cluster name %q: no spaces or characters that cannot be seen (--cluster-name)", o.ClusterName)
	case len(o.Rack) > 64:
		return fmt.Errorf("rack of %d bytes: at most 64", len(o.Rack))
	case o.Storage.Fsync != wal.FsyncAll && o.Storage.Fsync != wal.FsyncNone:
		return fmt.Errorf("fsync class %v: there are %v and %v (--unsafe-no-fsync)", o.Storage.Fsync, wal.FsyncAll, wal.FsyncNone)
	}
	named := map[string]bool{filepath.Clean(o.DataDir): true}
	for _, dir := range o.MoreDataDirs {
		if dir == "" || named[filepath.Clean(dir)] {
			return fmt.Errorf("data directory %q is named twice, or not at all: name each once (--data-dir)", dir)
		}
		named[filepath.Clean(dir)] = true
	}
	for _, listen := range []struct{ flag, address string }{
		{"--rpc-address", o.RPCAddress}, {"--gossip-address", o.GossipAddress}, {"--metrics", o.MetricsAddress},
	} {
		if _, _, err := splitAddress(listen.address); err != nil && (listen.address != "" || listen.flag != "--metrics") {
			return fmt.Errorf("%s %w", listen.flag, err)
		}
	}
	if err := o.Security.validate(); err != nil {
		return err
	}
	for _, a := range o.Join {
		if err := checkDialable(a); err != nil {
			return fmt.Errorf("--join %w", err)
		}
	}
	if err := o.Authorization.validate(o.Security); err != nil {
		return err
	}
	if err := o.validateAdvertised(); err != nil {
		return err
	}
	if err := o.validateKafka(); err != nil {
		return err
	}
	if err := o.checkExposed("--rpc-address", o.RPCAddress); err != nil {
		return err
	}
	return o.checkExposed("--gossip-address", o.GossipAddress)
}

// validateKafka refuses an address to listen on, or to hand out, that is none.
func (o Options) validateKafka() error {
	const flag, advertised = "--kafka-address", "--kafka-advertised-address"
	if o.KafkaAddress == "" {
		if o.KafkaAdvertisedAddress != "" {
			return fmt.Errorf("%s without %s: nothing is served there", advertised, flag)
		}
		return nil
	}
	host, _, err := splitAddress(o.KafkaAddress)
	if err != nil {
		return fmt.Errorf("%s %w", flag, err)
	}
	if o.KafkaAdvertisedAddress != "" {
		if err := checkDialable(o.KafkaAdvertisedAddress); err != nil {
			return fmt.Errorf("%s %w", advertised, err)
		}
	} else if err := checkHost(o.KafkaAddress, host); err != nil {
		return fmt.Errorf("%s %w: clients are told to dial it; pass %s HOST:PORT with the name that they reach this node under", flag, err, advertised)
	}
	return o.checkExposed(flag, o.KafkaAddress)
}

// validateAdvertised refuses to hand out an address that no other host can dial: a wildcard, or port 0.
func (o Options) validateAdvertised() error {
	if o.AdvertisedAddress != "" {
		if err := checkDialable(o.AdvertisedAddress); err != nil {
			return fmt.Errorf("--advertised-address %w", err)
		}
		return nil
	}
	host, _, err := splitAddress(o.RPCAddress) // the kernel picks a port for 0
	if err == nil {
		err = checkHost(o.RPCAddress, host)
	}
	if err != nil {
		return fmt.Errorf("--rpc-address %w: pass --advertised-address HOST:PORT", err)
	}
	return nil
}
