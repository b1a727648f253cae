package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/authorizer"
	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// drainTimeout bounds how long a node that was asked to stop hands its leaderships over before it closes all the same.
const drainTimeout = 10 * time.Second

// noNodeID is the node id of a command line that has none.
const noNodeID = -1

// maxMiB bounds sizes that are given in MiB: 1 PiB.
const maxMiB = 1 << 30

func newNodeCommand() *cobra.Command {
	var config string
	var o nodeFlags
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run one node of a cluster in the foreground",
		Long: `Run one node of a cluster in the foreground. All its state is kept below --data-dir. Given more
than once, the first has identity and metadata, and replicas are spread over all: one that fails takes its own replicas offline.

Every node is started with --join and the gossip addresses of others, the founder of a new cluster with --bootstrap, too: it
founds once all nodes of --join have said that they belong to no cluster, and joins theirs if they do. A cluster that begins
with one node is founded by 'quorumlog format', once, before. Nodes may start in any order. SIGTERM hands the node's
leaderships over and stops it.

Every flag may stand in a YAML file (--config) under its own name, for example
  node-id: 1
  data-dir: /var/lib/quorumlog
  join: [host2:7946, host3:7946]
A flag on the command line wins over the file.`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := o.configured(cmd.Flags(), config)
			if err != nil {
				return err
			}
			return runNode(cmd.Context(), options)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "YAML `file` with the values of flags")
	o.register(cmd.Flags())
	cmd.AddCommand(newNodeRemoveCommand())
	return cmd
}

// nodeFlags are the flags of the node command as typed.
type nodeFlags struct {
	nodeID                                                                   int
	cluster, rpc, advertised, gossip, metrics, rack, logLevel, logFormat, io string
	dataDirs, join                                                           []string
	bootstrap, unsafeNoFsync, allowPlaintext, allowMissing, withoutDirs      bool
	authorizer, superUsers                                                   string
	tls                                                                      auth.Files
	tlsClients, gossipKeys                                                   string
	cacheMB, checkpointMB, reserveMB, segmentMB, produceMB, scrubRate        int64
	connectionsPerIP                                                         int
	kafka, kafkaAdvertised                                                   string
}

func (f *nodeFlags) register(flags *pflag.FlagSet) {
	flags.IntVar(&f.nodeID, "node-id", noNodeID, "`number` of the node: 0 or more, unique in the cluster, fixed for the life of the data directory (required)")
	flags.StringArrayVar(&f.dataDirs, "data-dir", nil, "`directory` of all state, created when missing (required); given again, one more for replicas, on another disk")
	flags.BoolVar(&f.withoutDirs, "allow-missing-data-dirs", false, "start without data directories that are missing or fail, but for the first: their replicas stay offline")
	flags.StringVar(&f.cluster, "cluster-name", "quorumlog", "`name` that keeps apart clusters whose networks touch")
	flags.StringVar(&f.rpc, "rpc-address", "127.0.0.1:9192", "`host:port` to serve peers and clients on; port 0 picks one")
	flags.StringVar(&f.advertised, "advertised-address", "", "`host:port` that peers and clients are told to dial (default: the bound rpc address)")
	flags.StringVar(&f.gossip, "gossip-address", "127.0.0.1:7946", "`host:port` of gossip, TCP and UDP; port 0 picks one")
	flags.StringVar(&f.kafka, "kafka-address", "", "`host:port` to serve Kafka's protocol on; port 0 picks one; not served when empty")
	flags.StringVar(&f.kafkaAdvertised, "kafka-advertised-address", "", "`host:port` that Kafka's clients are told to dial (default: the bound kafka address)")
	flags.StringVar(&f.metrics, "metrics", "", "`host:port` of /metrics, /healthz and /readyz; none when empty")
	flags.StringSliceVar(&f.join, "join", nil, "gossip `addresses` of nodes of the cluster; any one that is alive suffices, but for --bootstrap, which asks them all")
	flags.BoolVar(&f.bootstrap, "bootstrap", false, "found a new cluster unless this data directory, or any node of --join, belongs to one")
	flags.StringVar(&f.rack, "rack", "", "`name` of the rack: replicas are spread over racks")
	flags.StringVar(&f.authorizer, "authorizer", "none", "none: everybody may do everything; acl: what 'quorumlog acl' says, and nothing else; needs TLS")
	flags.StringVar(&f.superUsers, "super-users", "", "`principals` who may do everything, separated by semicolons: User:CN=admin;User:CN=ops")
	flags.BoolVar(&f.allowMissing, "allow-everyone-if-no-acl-found", false, "let everybody use what there is no ACL for at all")
	flags.StringVar(&f.tls.CA, "tls-ca", "", "PEM `file` of the authorities that are believed, for nodes and clients")
	flags.StringVar(&f.tls.Certificate, "tls-cert", "", "PEM `file` of this node's certificate; see 'quorumlog cert'")
	flags.StringVar(&f.tls.Key, "tls-key", "", "PEM `file` of its key")
	flags.StringVar(&f.tlsClients, "tls-client-auth", "required", "required: clients need a certificate; requested: those without one are User:ANONYMOUS")
	flags.StringVar(&f.gossipKeys, "gossip-key-file", "", "`file` with the key that encrypts the gossip, and those that are understood beside it, one a line")
	flags.BoolVar(&f.allowPlaintext, "allow-plaintext", false, "listen without TLS where other hosts reach the node: the whole network is TRUSTED")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&f.io, "disk-io", "auto", "auto: direct I/O where the file system allows it; buffered: through the page cache")
	flags.BoolVar(&f.unsafeNoFsync, "unsafe-no-fsync", false, "acknowledge without syncing: a power failure LOSES acknowledged records; for comparisons only")
	flags.Int64Var(&f.cacheMB, "cache-mb", 0, "memory for the newest records, in `MiB` (default 512)")
	flags.Int64Var(&f.checkpointMB, "checkpoint-mb", 0, "journal bytes between checkpoints, in `MiB` (default: the storage's)")
	flags.Int64Var(&f.reserveMB, "reserve-mb", 0, "disk kept for votes and metadata, in `MiB`: with less, records are refused (default 256; at least about 180)")
	flags.Int64Var(&f.segmentMB, "segment-mb", 0, "segment size of topics without segment.bytes, in `MiB` (default 1024)")
	flags.Int64Var(&f.produceMB, "max-produce-mb", 0, "batches of all producers that are not answered yet, in `MiB`: beyond it each gets a fair share (default 256)")
	flags.Int64Var(&f.scrubRate, "scrub.rate", 4<<20, "`bytes` a second of old records that are read in the background, once a day at most, to find rot; 0: none")
	flags.IntVar(&f.connectionsPerIP, "max-connections-per-ip", 0, "`number` of connections from one host, loopback excepted; -1: no limit (default: a quarter of all, at least 64)")
}

// configured returns the options of flags and file.
func (f *nodeFlags) configured(flags *pflag.FlagSet, file string) (node.Options, error) {
	if file != "" {
		if err := applyConfigFile(flags, file); err != nil {
			return node.Options{}, err
		}
	}
	return f.options()
}

func (f *nodeFlags) options() (node.Options, error) {
	switch {
	case f.nodeID == noNodeID:
		return node.Options{}, errors.New("--node-id is missing: a number from 0 up that no other node of the cluster has")
	case f.nodeID < 0 || f.nodeID > math.MaxInt32:
		return node.Options{}, fmt.Errorf("--node-id %d: from 0 to %d", f.nodeID, math.MaxInt32)
	}
	for flag, mib := range map[string]int64{"cache-mb": f.cacheMB, "checkpoint-mb": f.checkpointMB, "reserve-mb": f.reserveMB, "segment-mb": f.segmentMB, "max-produce-mb": f.produceMB} {
		if mib < 0 || mib > maxMiB {
			return node.Options{}, fmt.Errorf("--%s %d: from 0 (the default) to %d", flag, mib, maxMiB)
		}
	}
	if f.scrubRate < 0 || f.scrubRate > maxMiB<<20 {
		return node.Options{}, fmt.Errorf("--scrub.rate %d: from 0 (off) to %d", f.scrubRate, int64(maxMiB<<20))
	}
	logger, err := newLogger(f.logLevel, f.logFormat)
	if err != nil {
		return node.Options{}, err
	}
	o := node.Options{
		NodeID: id.Node(f.nodeID), ClusterName: f.cluster, RPCAddress: f.rpc, AdvertisedAddress: f.advertised,
		KafkaAddress: f.kafka, KafkaAdvertisedAddress: f.kafkaAdvertised,
		Limits:        node.LimitOptions{ConnectionsPerAddress: f.connectionsPerIP, ProduceBytes: f.produceMB << 20},
		GossipAddress: f.gossip, MetricsAddress: f.metrics, Join: f.join, Rack: f.rack, Logger: logger,
		Storage: node.StorageOptions{
			CacheBytes: f.cacheMB << 20, CheckpointBytes: f.checkpointMB << 20, ReserveBytes: f.reserveMB << 20, DefaultSegmentBytes: f.segmentMB << 20,
			ScrubRate: f.scrubRate,
		},
	}
	if len(f.dataDirs) > 0 {
		o.DataDir, o.MoreDataDirs = f.dataDirs[0], f.dataDirs[1:]
		o.AllowMissingDataDirs = f.withoutDirs
	}
	if o.Authorization, err = f.authorization(); err != nil {
		return node.Options{}, err
	}
	o.Security = node.SecurityOptions{TLS: f.tls, GossipKeyFile: f.gossipKeys, AllowPlaintext: f.allowPlaintext}
	switch f.tlsClients {
	case "required":
	case "requested":
		o.Security.Clients = auth.CertificateRequested
	default:
		return node.Options{}, fmt.Errorf("--tls-client-auth %q: must be required or requested", f.tlsClients)
	}
	if f.bootstrap {
		o.Founding = node.Bootstrap
	}
	if f.unsafeNoFsync {
		o.Storage.Fsync = wal.FsyncNone
	}
	switch f.io {
	case "auto":
	case "buffered":
		o.Storage.Disk = node.DiskBuffered
	default:
		return node.Options{}, fmt.Errorf("--disk-io %q: must be auto or buffered", f.io)
	}
	return o, nil
}

func (f *nodeFlags) authorization() (node.AuthorizationOptions, error) {
	var s node.AuthorizationOptions
	switch f.authorizer {
	case "none":
	case "acl":
		s.Authorizer = node.ACLAuthorizer
	default:
		return s, fmt.Errorf("--authorizer %q: must be none or acl", f.authorizer)
	}
	if f.allowMissing {
		s.MissingACLs = authorizer.AllowMissing
	}
	var err error
	if s.SuperUsers, err = authorizer.ParseSuperUsers(f.superUsers); err != nil {
		return s, fmt.Errorf("--super-users: %w", err)
	}
	return s, nil
}

func newLogger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: must be debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: must be text or json", format)
}

// applyConfigFile sets the flags that the file names and the command line does not.
func applyConfigFile(flags *pflag.FlagSet, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return fmt.Errorf("%s is not valid YAML: %w", path, err)
	}
	if len(document.Content) == 0 {
		return nil // empty, or nothing but comments
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s, line %d: expected lines of the form \"flag: value\", such as \"node-id: 1\"", path, root.Line)
	}
	seen := make(map[string]bool)
	for pair := root.Content; len(pair) > 0; pair = pair[2:] {
		key, value := pair[0], pair[1]
		flag := flags.Lookup(key.Value)
		switch {
		case flag == nil || flag.Name == "config" || flag.Name == "help":
			return fmt.Errorf("%s, line %d: unknown key %q: did you mean %q?", path, key.Line, key.Value, nearestFlag(flags, key.Value))
		case seen[flag.Name]:
			return fmt.Errorf("%s, line %d: %q is there twice", path, key.Line, key.Value)
		}
		seen[flag.Name] = true
		text, err := yamlText(value)
		if err != nil {
			return fmt.Errorf("%s, line %d: %s: %w", path, key.Line, key.Value, err)
		}
		if flag.Changed {
			continue // the command line wins
		}
		set := func() error { return flag.Value.Set(text) }
		if list, ok := flag.Value.(pflag.SliceValue); ok && flag.Value.Type() == "stringArray" && value.Kind == yaml.SequenceNode {
			set = func() error { return list.Replace(itemsOf(value)) } // a name may have commas
		}
		if err := set(); err != nil {
			return fmt.Errorf("%s, line %d: invalid value %q for %s: %w", path, value.Line, text, key.Value, err)
		}
	}
	return nil
}

// yamlText is a value as it would stand on the command line: the text in the file, not what YAML makes of it (a rack 1.10 is not 1.1).
func yamlText(value *yaml.Node) (string, error) {
	switch {
	case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
		return "", errors.New("no value is given")
	case value.Kind == yaml.ScalarNode:
		return value.Value, nil
	case value.Kind != yaml.SequenceNode:
		return "", errors.New("expected a value or a list of values")
	}
	for _, item := range value.Content {
		if item.Kind != yaml.ScalarNode {
			return "", errors.New("expected a list of values")
		}
	}
	return strings.Join(itemsOf(value), ","), nil
}

func itemsOf(list *yaml.Node) []string {
	items := make([]string, len(list.Content))
	for i, item := range list.Content {
		items[i] = item.Value
	}
	return items
}

func nearestFlag(flags *pflag.FlagSet, key string) string {
	best, distance := "", math.MaxInt
	flags.VisitAll(func(f *pflag.Flag) {
		if d := levenshtein.ComputeDistance(key, f.Name); d < distance && f.Name != "config" && f.Name != "help" {
			best, distance = f.Name, d
		}
	})
	return best
}

// runNode runs a node until a signal or a fatal error. The second signal does not wait for the first one's drain.
func runNode(ctx context.Context, options node.Options) error {
	defer keepHeapFloor()()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	n, err := node.Start(ctx, options)
	if err != nil {
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return nil // asked to stop while it waited for its cluster
		}
		return err
	}
	fmt.Println(n.Addresses())
	reload := make(chan os.Signal, 1)
	if s := options.Security; !s.TLS.None() || s.GossipKeyFile != "" { // else SIGHUP ends the process, as ever
		signal.Notify(reload, syscall.SIGHUP)
		defer signal.Stop(reload)
	}
	for running := true; running; {
		select {
		case err := <-n.Fatal():
			// The disk failed a write or a sync: nothing that is still open may be flushed "a last time", so no orderly close.
			return fmt.Errorf("node %d stopped: %w", options.NodeID, err)
		case <-reload:
			if err := n.Reload(); err != nil {
				options.Logger.Error("SIGHUP: certificates or keys cannot be used, those from before stay in use", "reason", err)
			}
		case <-ctx.Done():
			running = false
		}
	}
	stop()
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	return n.Stop(drain)
}
