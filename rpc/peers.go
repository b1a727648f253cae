package rpc

import (
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Lane is the number of a lane between two nodes: LaneCtl, or a bulk lane from 1 up.
type Lane uint8

// LaneCtl carries everything but entries: heartbeats, votes, responses. It never waits behind data.
const LaneCtl Lane = 0

// PeerHello is the first thing said on a lane, in both directions.
type PeerHello struct {
	Version   uint16 // Protocol
	ClusterID string
	Node      id.Node
	Boot      uint64 // grows with every start of the node
	Lane      Lane
}

// CheckHello is what a node checks of a peer's hello: version, cluster id, and that its boot epoch is not older than newest, the
// newest seen of that node (0: none). The error names both values.
func CheckHello(self, peer PeerHello, newest uint64) error { return errStub }

// PeerOptions are the settings of Peers.
type PeerOptions struct {
	Self PeerHello
	// Resolve returns the present address of a node. Called at each dial.
	Resolve func(id.Node) (addr string, ok bool)
	// Down is called once when a node's control lane is lost, Up once when it works (again). On a goroutine of Peers, in
	// order for each node; they must not block for long and not call Close.
	Down, Up func(id.Node)
	// Dropped, when not nil, is called for each message that found its queue full or its lane down. On the goroutine of Send.
	Dropped func(to id.Node, g id.Group, m *raftpb.Message)
	Dialer  *Dialer
	Logger  *slog.Logger

	BulkLanes           int           // 2
	CtlBytes, BulkBytes int           // bounds of a lane's queue: 1 MiB, 16 MiB
	Ping, Timeout       time.Duration // of the control lane: 300 ms, 1.5 s
}

// Peers holds the lanes from this node to all others.
type Peers struct{}

// NewPeers returns Peers without any lane: lanes are opened by the first Send or Reset of a node.
func NewPeers(o PeerOptions) (*Peers, error) { return nil, errStub }

// Send encodes m into the queue of its lane before it returns: MsgApp with entries to the bulk lane of the group, all else to
// the control lane. It never blocks; beyond the queue's bound, or while the node cannot be reached, m is dropped and counted.
// Nothing leaves before Flush. Any goroutine.
func (p *Peers) Send(to id.Node, g id.Group, m *raftpb.Message) {}

// Flush wakes the writers of the lanes that got messages since the last Flush. Any goroutine.
func (p *Peers) Flush() {}

// Reset opens the lanes to a node, at once if they were waiting to try again. For when gossip says that it lives, or it has
// dialed us.
func (p *Peers) Reset(n id.Node) {}

// Lost says that the node's own control lane to us broke: ours are closed, Down is reported unless it was already, and
// reconnecting begins.
func (p *Peers) Lost(n id.Node) {}

// Remove closes the lanes to a node that has left the cluster, without a report.
func (p *Peers) Remove(n id.Node) {}

// Close closes all lanes and waits for their goroutines. What is queued is dropped.
func (p *Peers) Close() error { return nil }

// PeerMetrics counts what the lanes have done since the start.
type PeerMetrics struct {
	Messages, Bytes, Trains uint64 // Raft messages, bytes and drpc messages written
	Dropped                 uint64 // Raft messages that found a full queue or a lane that was down
	Unencodable             uint64 // Raft messages that have no place on the wire (a bug above)
	Connects, Breaks        uint64
}

// Metrics returns the counts.
func (p *Peers) Metrics() PeerMetrics { return PeerMetrics{} }
