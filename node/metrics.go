package node

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/node/quota"
	rules "github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal"
)

// namespace is the prefix of every metric.
const namespace = "quorumlog"

// registerMetrics says what /metrics shows. The parts count for themselves, in plain structs; they are read when somebody asks.
func (n *Node) registerMetrics(registry *prometheus.Registry) {
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	register(registry, storeSamples, n.stores.Metrics)
	register(registry, raftSamples, n.host.Metrics)
	register(registry, peerSamples, n.peers.Metrics)
	register(registry, serverSamples, n.server.Metrics)
	register(registry, gossipSamples, n.membership.Implausible)
	n.registerQuotas(registry)
	n.registerRetention(registry)
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, value))
	}
	gauge("wal_pressure", "0: none, 1: producers are throttled, 2: no space.", func() float64 { return float64(n.stores.Pressure()) })
	gauge("disk_free_bytes", "Free space where the data directory is, the one with the least.", func() float64 { return float64(n.freeBytes()) })
	gauge("disk_full", "1 while the node takes no records and hands over what it leads, because its disk has no space.",
		func() float64 { return boolean(n.host.Condition() == raftgroup.Full) })
	gauge("disk_stalled", "1 while the node hands over what it leads, because its disk does not answer in time.",
		func() float64 { return boolean(n.host.Condition() == raftgroup.Stalled) })
	gauge("data_directories_failed", "Data directories that failed since the start, or are missing: their replicas are offline.",
		func() float64 { return float64(1 + len(n.more) + len(n.absent) - len(n.stores.Working())) })
	n.registerDirectories(registry)
	gauge("replicas_offline", "Replicas on this node whose data directory failed.", func() float64 { return float64(n.replicas.OfflineCount()) })
	gauge("unsafe_no_fsync", "1 when the node acknowledges without syncing (--unsafe-no-fsync): a power failure loses acknowledged records.",
		func() float64 { return boolean(n.options.Storage.Fsync == wal.FsyncNone) })
	gauge("ready", "1 when the node holds what the metadata wants it to hold, hears of a leader of each of these, and has a disk that takes records.",
		func() float64 { return boolean(n.readiness() == nil) })
	gauge("unreached", "1 while the controller does not reach the node under the address that it advertises: it gets no replicas.",
		func() float64 { return boolean(n.unreachedError() != nil) })
	if n.credentials != nil {
		gauge("certificate_not_after_seconds", "When the first of the certificates in use expires, in seconds since 1970.",
			func() float64 { return float64(n.credentials.Expires().Unix()) })
	}
	gauge("controller", "1 when the node leads the cluster's metadata.", func() float64 { return boolean(n.controller.Group().IsLeader()) })
	gauge("replicas", "Replicas of partitions on this node.", func() float64 { return float64(len(n.replicas.All())) })
	gauge("subscriptions", "Partitions that consumers read here, each counted once for each connection.",
		func() float64 { return float64(n.fetching.Subscriptions()) })
	gauge("partitions_under_replicated", "Partitions that this node leads, of which not all replicas are in sync and answer.",
		func() float64 { return float64(n.leaders.Lagging()) })
	gauge("partitions_led", "Partitions that this node leads.", func() float64 {
		led := 0
		for _, p := range n.replicas.All() {
			if p.Group().IsLeader() {
				led++
			}
		}
		return float64(led)
	})
}

// registerDirectories says how each data directory is.
func (n *Node) registerDirectories(registry *prometheus.Registry) {
	gauge := func(dir, name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: name, Help: help, ConstLabels: prometheus.Labels{"data_dir": dir},
		}, value))
	}
	show := func(dir string, failed func() bool) {
		gauge(dir, "data_directory_failed", "1 if the data directory failed since the start, or is missing.", func() float64 { return boolean(failed()) })
		gauge(dir, "data_directory_replicas_offline", "Replicas in the data directory that are offline.",
			func() float64 { return float64(n.replicas.OfflineIn(dir)) })
	}
	show(n.options.DataDir, func() bool { return n.store.Err() != nil })
	for _, d := range n.more {
		show(d.path, func() bool { return d.store.Err() != nil })
	}
	if missing := n.stores.Missing(); missing != "" {
		show(missing, func() bool { return true })
	}
}

// registerRetention says what goes and what is there, of all partitions together: a series for each would be too many. Where the log of one
// begins is asked for with its offsets.
func (n *Node) registerRetention(registry *prometheus.Registry) {
	trims := n.replicas.Trims()
	for reason, label := range map[partition.TrimReason]string{partition.TrimRecords: "records", partition.TrimTime: "time", partition.TrimSize: "size"} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: namespace, Name: "log_start_moves_total", Help: "Log starts that this node moved as the leader: for DeleteRecords, retention.ms or retention.bytes.",
			ConstLabels: prometheus.Labels{"reason": label},
		}, func() float64 { return float64(trims.Moved(reason)) }))
	}
	register(registry, trimSamples, func() *partition.Trims { return trims })
	register(registry, sizeSamples, n.logSizes)
}

var trimSamples = []sample[*partition.Trims]{
	{"log_start_moved_records_total", "Records that are below log starts which this node moved as the leader.", (*partition.Trims).Records},
	{"log_start_early_total", "Looks that found records to let go of, which the cluster's feature level does not allow before quorumlog cluster upgrade.", (*partition.Trims).Early},
	{"log_start_failures_total", "Attempts to move a log start that failed, or were not known to succeed in time. They are repeated.", (*partition.Trims).Failed},
}

var sizeSamples = []sample[logSizes]{
	{"log_bytes", "Bytes of batches in the logs of partitions.", func(s logSizes) uint64 { return uint64(s.bytes) }},
	{"log_segments", "Segments of the logs of partitions.", func(s logSizes) uint64 { return uint64(s.segments) }},
}

// registerQuotas says what limits and quotas did to clients. By kind, not by client: clients make their ids up.
func (n *Node) registerQuotas(registry *prometheus.Registry) {
	registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: "produce_in_flight_bytes", Help: "Bytes of batches that are not answered yet."},
			func() float64 { bytes, _ := n.broker.InFlight(); return float64(bytes) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: "produce_refused_in_flight_total",
			Help: "Batches that were refused because too many bytes of their connection, or of all, were not answered yet."},
			func() float64 { _, refused := n.broker.InFlight(); return float64(refused) }),
	)
	for _, key := range []rules.Key{rules.ProducerByteRate, rules.ConsumerByteRate, rules.RequestPercentage} {
		labels := prometheus.Labels{"quota": key.String()}
		counter := func(name, help string, value func(quota.Metrics) float64) {
			registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels},
				func() float64 { return value(n.quotas.Metrics(key)) }))
		}
		counter("quota_throttled_total", "Times that a client was told to pause, or sent nothing, for using more than its quota.",
			func(m quota.Metrics) float64 { return float64(m.Throttled) })
		counter("quota_throttle_seconds_total", "For how long clients were told to pause.", func(m quota.Metrics) float64 { return m.Time.Seconds() })
		counter("quota_refused_total", "Requests of clients that did not pause, and were refused.", func(m quota.Metrics) float64 { return float64(m.Refused) })
	}
}

// sample is one number of a part, and where in the part's Metrics it is.
type sample[M any] struct {
	name, help string
	value      func(M) uint64
}

var storeSamples = []sample[wal.Metrics]{
	{"wal_rounds_total", "Commit rounds that wrote something.", func(m wal.Metrics) uint64 { return m.Rounds }},
	{"wal_appends_total", "Appends completed.", func(m wal.Metrics) uint64 { return m.Appends }},
	{"wal_appended_bytes_total", "Bytes of entries submitted.", func(m wal.Metrics) uint64 { return m.AppendedBytes }},
	{"wal_journal_bytes_total", "Bytes written to the journal, padding included.", func(m wal.Metrics) uint64 { return m.JournalBytes }},
	{"wal_segment_bytes_total", "Bytes written to segments, by rounds and flushes.", func(m wal.Metrics) uint64 { return m.SegmentBytes }},
	{"wal_direct_bytes_total", "Of the bytes written to segments: by rounds.", func(m wal.Metrics) uint64 { return m.DirectBytes }},
	{"wal_index_bytes_total", "Bytes written to indexes.", func(m wal.Metrics) uint64 { return m.IndexBytes }},
	{"wal_read_bytes_total", "Bytes read from segments.", func(m wal.Metrics) uint64 { return m.ReadDiskBytes }},
	{"wal_checkpoints_total", "Checkpoints completed.", func(m wal.Metrics) uint64 { return m.Checkpoints }},
	{"wal_trimmed_segments_total", "Segments of which a log has let go because they were below its start.", func(m wal.Metrics) uint64 { return m.TrimmedSegments }},
	{"wal_trimmed_bytes_total", "Bytes of batches in these.", func(m wal.Metrics) uint64 { return m.TrimmedBytes }},
	{"wal_condemned_total", "Logs whose stored bytes, or files, turned out bad since the start.", func(m wal.Metrics) uint64 { return m.Condemned }},
	{"wal_unremoved_files_total", "Files of segments that went, and could not be removed: the next start tries again.", func(m wal.Metrics) uint64 { return m.Unremoved }},
	{"wal_scrubbed_bytes_total", "Bytes read in the background to find rot.", func(m wal.Metrics) uint64 { return m.ScrubbedBytes }},
	{"wal_scrub_passes_total", "Times that all logs were read through.", func(m wal.Metrics) uint64 { return m.ScrubPasses }},
	{"wal_scrub_errors_total", "Logs in which the scrub found rot.", func(m wal.Metrics) uint64 { return m.ScrubErrors }},
	{"wal_scrub_last_pass_ms", "When the last pass of the scrub ended, ms since 1970; 0: none has since the start.", func(m wal.Metrics) uint64 { return uint64(m.LastScrub) }},
	{"wal_refused_replicas", "Replicas that are out for good and have to be replaced.", func(m wal.Metrics) uint64 { return uint64(m.Refused) }},
	{"wal_tail_bytes", "Memory of all tails.", func(m wal.Metrics) uint64 { return uint64(m.TailBytes) }},
	{"wal_row_bytes", "Memory of index rows.", func(m wal.Metrics) uint64 { return uint64(m.RowBytes) }},
	{"wal_uncut_bytes", "Bytes in the journal since the last checkpoint.", func(m wal.Metrics) uint64 { return uint64(m.UncutBytes) }},
}

var raftSamples = []sample[raftgroup.Metrics]{
	{"raft_proposals_total", "Batches proposed.", func(m raftgroup.Metrics) uint64 { return m.Proposals }},
	{"raft_proposal_steps_total", "Messages into which batches were gathered to be proposed.", func(m raftgroup.Metrics) uint64 { return m.ProposalSteps }},
	{"raft_proposed_bytes_total", "Bytes of proposed batches.", func(m raftgroup.Metrics) uint64 { return m.ProposedBytes }},
	{"raft_refused_total", "Batches refused before they were proposed.", func(m raftgroup.Metrics) uint64 { return m.Refused }},
	{"raft_committed_total", "Entries committed.", func(m raftgroup.Metrics) uint64 { return m.Committed }},
	{"raft_received_total", "Messages from other nodes.", func(m raftgroup.Metrics) uint64 { return m.Received }},
	{"raft_sent_total", "Messages to other nodes.", func(m raftgroup.Metrics) uint64 { return m.Sent }},
	{"raft_turns_total", "Turns of the workers.", func(m raftgroup.Metrics) uint64 { return m.Turns }},
	{"raft_elections_total", "Campaigns started by hints, calls and failed nodes.", func(m raftgroup.Metrics) uint64 { return m.Elections }},
	{"raft_leader_changes_total", "Changes of leader, term or role.", func(m raftgroup.Metrics) uint64 { return m.LeaderChanges }},
	{"raft_dropped_invalid_total", "Messages that no replica can have meant.", func(m raftgroup.Metrics) uint64 { return m.DroppedInvalid }},
	{"raft_failed_total", "Replicas that stopped, or were refused, since the start.", func(m raftgroup.Metrics) uint64 { return m.Failed }},
	{"raft_halted_replicas", "Replicas that apply nothing further: this release does not know an entry.",
		func(m raftgroup.Metrics) uint64 { return uint64(m.Halted) }},
	{"raft_dropped_no_space_total", "Messages with records that were dropped because the disk has no space.", func(m raftgroup.Metrics) uint64 { return m.DroppedNoSpace }},
	{"raft_dropped_behind_total", "Messages with records that were dropped because the disk is behind.", func(m raftgroup.Metrics) uint64 { return m.DroppedBehind }},
	{"raft_held_back_total", "Messages with records that were not sent to nodes whose disk would not take them.", func(m raftgroup.Metrics) uint64 { return m.HeldBack }},
	{"raft_yields_total", "Attempts to hand a leadership over because of the own disk.", func(m raftgroup.Metrics) uint64 { return m.Yields }},
	{"raft_uncommitted_bytes", "Bytes proposed and not committed.", func(m raftgroup.Metrics) uint64 { return uint64(m.UncommittedBytes) }},
}

var peerSamples = []sample[rpc.PeerMetrics]{
	{"peer_messages_total", "Raft messages written to lanes.", func(m rpc.PeerMetrics) uint64 { return m.Messages }},
	{"peer_bytes_total", "Bytes written to lanes.", func(m rpc.PeerMetrics) uint64 { return m.Bytes }},
	{"peer_trains_total", "Writes to lanes.", func(m rpc.PeerMetrics) uint64 { return m.Trains }},
	{"peer_dropped_total", "Raft messages dropped by full or broken lanes.", func(m rpc.PeerMetrics) uint64 { return m.Dropped }},
	{"peer_breaks_total", "Lanes that broke.", func(m rpc.PeerMetrics) uint64 { return m.Breaks }},
}

var serverSamples = []sample[rpc.ServerMetrics]{
	{"connections", "Connections of clients and other nodes.", func(m rpc.ServerMetrics) uint64 { return uint64(m.Connections) }},
	{"connections_refused_total", "Connections that were one too many, of the node or of their host.", func(m rpc.ServerMetrics) uint64 { return m.Refused }},
	{"connections_dropped_total", "Connections that made no valid call.", func(m rpc.ServerMetrics) uint64 { return m.Dropped }},
	{"connections_evicted_total", "Connections that did not finish a message while others waited for its memory.",
		func(m rpc.ServerMetrics) uint64 { return m.Evicted }},
	{"calls_refused_total", "Administrative calls that found too many under way.", func(m rpc.ServerMetrics) uint64 { return m.CallsRefused }},
	{"answers_refused_total", "Answers to producers for which there was no room, because so many are not read.",
		func(m rpc.ServerMetrics) uint64 { return m.AnswersRefused }},
	{"admin_calls_total", "Administrative calls served, of clients and other nodes.", func(m rpc.ServerMetrics) uint64 { return m.Calls }},
	{"lanes_refused_total", "Hellos of other nodes, or of who says so, that were refused.", func(m rpc.ServerMetrics) uint64 { return m.LanesRefused }},
}

var gossipSamples = []sample[uint64]{
	{"gossip_implausible_total", "Words of members that cannot be true, and were dropped.", func(n uint64) uint64 { return n }},
}

// register adds a part's samples: a name that ends in _total is a counter, any other a gauge.
func register[M any](registry *prometheus.Registry, samples []sample[M], read func() M) {
	for _, s := range samples {
		value := func() float64 { return float64(s.value(read())) }
		if strings.HasSuffix(s.name, "_total") {
			registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: s.name, Help: s.help}, value))
		} else {
			registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: s.name, Help: s.help}, value))
		}
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (n *Node) metricsAddress() string {
	if n.console == nil {
		return ""
	}
	return n.console.Addr().String()
}
