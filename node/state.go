package node

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/fetching"
	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/node/membership"
	"github.com/quorumlog/quorumlog/node/quota"
	"github.com/quorumlog/quorumlog/node/replicas"
	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/console"
	"github.com/quorumlog/quorumlog/rpc/loglimit"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Version is this release's.
const Version = rpc.Release

// Node is a running node. Its parts are opened in the order of the fields and closed in the opposite one.
type Node struct {
	options Options
	logger  *slog.Logger
	lines   *loglimit.Limiter // for what strangers can cause

	lock          io.Closer // of the data directory
	identity      identity
	store         *wal.Store       // of the first data directory
	stores        *replicas.Stores // of all of them
	listener      net.Listener
	kafkaListener net.Listener      // nil: Kafka's protocol is not served
	credentials   *auth.Credentials // nil: without TLS
	dialer        *rpc.Dialer
	membership    *membership.Membership
	peers         *rpc.Peers
	host          *raftgroup.Host
	replicas      *replicas.Set
	controller    *controller.Controller
	fetching      *fetching.Hub
	server        *rpc.Server
	console       *console.Server      // nil without a metrics address
	registry      *prometheus.Registry // what it shows
	leaders       *leaders.Table
	word          word
	reach         reach
	unreached     atomic.Pointer[error] // the controller's last word, if it is that it does not reach this node
	turns         serving.Turns
	broker        *serving.Broker
	authorizer    broker.Authorizer
	quotas        *quota.Engine
	registrar     background
	identities    background
	doubts        chan id.Node // capacity 1: peers that take another process for this node
	balancer      background
	certificates  background
	condition     background
	majority      background
	expiry        background
	retention     background
	sweeper       background
	condemned     condemned
	taker         background
	directories   background

	// running is the controller once it is open: gossip and the lanes ask for it from before that.
	running atomic.Pointer[controller.Controller]

	shares      fileShares
	files       disk.FS
	pebbleFiles vfs.FS          // nil: the operating system's
	more        []*directory    // the data directories beside the first
	failed      chan *directory // of these, each at most once
	absent      []absentDirectory

	state    atomic.Int32          // a State
	fatal    chan error            // capacity 1: the first one counts
	failure  atomic.Pointer[error] // the one that fatal delivers, or has delivered
	closers  []closer              // what is open, in the order of opening
	stopOnce sync.Once
}

// State is a node's own word for how far it is.
type State int32

// The states, in order.
const (
	Starting State = iota // not all replicas are open, or the metadata is behind
	Ready
	Draining // hands its leaderships over
)

// String names the state.
func (s State) String() string { return [...]string{"starting", "ready", "draining"}[s] }

type closer struct {
	what  string
	close func(context.Context) error
}

// background is a goroutine with its owner's means to end it.
type background struct {
	stop context.CancelFunc
	done sync.WaitGroup
}

func (b *background) start(run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.done.Go(func() { run(ctx) })
}

func (b *background) close(context.Context) error {
	b.stop()
	b.done.Wait()
	return nil
}

func newNode(o Options, shares fileShares) *Node {
	n := &Node{options: o, logger: o.Logger.With("node", int(o.NodeID)), lines: loglimit.Strangers(), fatal: make(chan error, 1), shares: shares, reach: newReach()}
	n.condemned.wake = make(chan struct{}, 1)
	n.doubts = make(chan id.Node, 1)
	n.failed = make(chan *directory, len(o.MoreDataDirs))
	n.word.began = time.Now()
	return n
}

// opened notes a part to be closed.
func (n *Node) opened(what string, close func(context.Context) error) {
	n.closers = append(n.closers, closer{what, close})
}

func ignoreContext(close func() error) func(context.Context) error {
	return func(context.Context) error { return close() }
}

// advertised is the address that peers and clients are told to dial.
func (n *Node) advertised() string {
	if n.options.AdvertisedAddress != "" {
		return n.options.AdvertisedAddress
	}
	return n.listener.Addr().String()
}

// view is the metadata; nil before it is open.
func (n *Node) view() *placement.View {
	if c := n.running.Load(); c != nil {
		return c.View()
	}
	return nil
}

// fail is told of an error after which nothing may be acknowledged any more.
func (n *Node) fail(err error) {
	n.logger.Error("the node cannot go on", "reason", err)
	n.failure.CompareAndSwap(nil, &err)
	select {
	case n.fatal <- err:
	default:
	}
}

// Fatal delivers the error after which the process must exit, if one occurs: a failed write or sync, or metadata that this
// release cannot follow. Nothing is acknowledged after it.
func (n *Node) Fatal() <-chan error { return n.fatal }

// State returns how far the node is.
func (n *Node) State() State { return State(n.state.Load()) }

// closeTimeout bounds the closing of one part that waits for others, such as administrative calls in progress.
const closeTimeout = 5 * time.Second
