package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/fetching"
	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/node/membership"
	"github.com/quorumlog/quorumlog/node/replicas"
	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/console"
	"github.com/quorumlog/quorumlog/rpc/native"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Node is a running node. Its parts are opened in the order of the fields and closed in the opposite one.
type Node struct {
	options Options
	logger  *slog.Logger

	lock       io.Closer // of the data directory
	identity   identity
	store      *wal.Store
	listener   net.Listener
	dialer     *rpc.Dialer
	membership *membership.Membership
	peers      *rpc.Peers
	host       *raftgroup.Host
	replicas   *replicas.Set
	controller *controller.Controller
	fetching   *fetching.Hub
	server     *rpc.Server
	console    *console.Server      // nil without a metrics address
	registry   *prometheus.Registry // what it shows
	leaders    *leaders.Table
	word       word
	reach      reach
	unreached  atomic.Pointer[error] // the controller's last word, if it is that it does not reach this node
	turns      serving.Turns
	broker     *serving.Broker
	registrar  background
	identities background
	doubts     chan id.Node // capacity 1: peers that take another process for this node
	balancer   background
	condition  background
	majority   background
	expiry     background
	sweeper    background
	condemned  condemned
	taker      background

	// running is the controller once it is open: gossip and the lanes ask for it from before that.
	running atomic.Pointer[controller.Controller]

	shares      fileShares
	files       disk.FS
	pebbleFiles vfs.FS // nil: the operating system's

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

// Start opens a node and returns once it serves. A node that belongs to no cluster yet waits for one until ctx ends, and says in
// one line what it waits for.
func Start(ctx context.Context, o Options) (*Node, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	shares, err := shareFiles(openFiles())
	if err != nil {
		return nil, err
	}
	n := newNode(o, shares)
	// Every port is bound before the cluster hears of the node: what fails afterwards may leave a member behind that is never there.
	for _, open := range []func(context.Context) error{
		n.openDirectory, n.openStore, n.openListener, n.openConsole, n.openGossip, n.joinCluster, n.openGroups, n.openServices,
	} {
		if err := open(ctx); err != nil {
			n.closeParts(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	return n, nil
}

func newNode(o Options, shares fileShares) *Node {
	n := &Node{options: o, logger: o.Logger.With("node", int(o.NodeID)), fatal: make(chan error, 1), shares: shares, reach: newReach()}
	n.condemned.wake = make(chan struct{}, 1)
	n.doubts = make(chan id.Node, 1)
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

func (n *Node) openDirectory(ctx context.Context) error {
	dir := n.options.DataDir
	files, err := n.openFiles(ctx)
	if err != nil {
		return directoryUnusable(dir, err)
	}
	n.files = files
	if n.lock, err = files.Lock(filepath.Join(dir, ".lock")); err != nil {
		return directoryInUse(dir, err)
	}
	n.opened("lock", ignoreContext(n.lock.Close))
	n.identity, err = openIdentity(files, dir, n.options.NodeID, n.options.ClusterName, n.options.Storage.Fsync, n.logger)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) || errors.Is(err, disk.ErrNoSpace) {
		return directoryUnusable(dir, err)
	}
	if err != nil {
		return err
	}
	n.warnOfFsyncClass()
	return nil
}

func directoryInUse(dir string, err error) error {
	var locked *disk.LockedError
	if !errors.As(err, &locked) {
		return directoryUnusable(dir, err)
	}
	holder := "another process"
	if locked.PID != 0 {
		holder = fmt.Sprintf("process %d", locked.PID)
	}
	return fmt.Errorf("data directory %s is in use by %s: stop it, or give this node a directory of its own with --data-dir", dir, holder)
}

// directoryUnusable says what is wrong with a data directory, and what to do about it.
func directoryUnusable(dir string, err error) error {
	remedy := "see what is wrong with it, or name another one with --data-dir"
	switch {
	case errors.Is(err, syscall.EROFS):
		remedy = "its file system is mounted read-only: look in the kernel's log for the reason, repair it, and mount it for writing"
	case errors.Is(err, fs.ErrPermission):
		remedy = fmt.Sprintf("this process (user id %d) has no permission: give it the directory and all that is in it, with chown -R", os.Getuid())
	case errors.Is(err, disk.ErrNoSpace):
		remedy = "its disk is full: free some space"
	}
	return fmt.Errorf("cannot use the data directory %s: %w: %s", dir, err, remedy)
}

// openFiles makes the data directory and returns the file system for it.
func (n *Node) openFiles(ctx context.Context) (disk.FS, error) {
	dir := n.options.DataDir
	if d, ok := simulated.DiskOf(ctx); ok {
		n.pebbleFiles = d.Pebble
		return d.Files, makeDirectory(d.Files, dir)
	}
	if err := makeDirectory(disk.NewBuffered(), dir); err != nil {
		return nil, err
	}
	return n.options.Storage.Disk.open(dir)
}

// makeDirectory makes a directory and what is missing above it, durably: the wal's promises begin in the directory that it is
// given, so the names that lead there must not be the ones that a power loss takes.
func makeDirectory(files disk.FS, dir string) error {
	var made []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := files.Stat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		made = append(made, d)
	}
	if err := files.MkdirAll(dir); err != nil {
		return err
	}
	for _, d := range made {
		if err := files.SyncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) openStore(ctx context.Context) error {
	begin := time.Now()
	s := n.options.Storage
	store, err := wal.Open(ctx, wal.Options{
		Dir: n.options.DataDir, FS: n.files, PebbleFS: n.pebbleFiles, Fsync: s.Fsync, Logger: n.logger, OnFatal: n.fail,
		OnCondemned: n.condemned.add,
		CacheBytes:  s.CacheBytes, DirectAppendBytes: s.DirectAppendBytes, JournalFileBytes: s.JournalFileBytes,
		CheckpointBytes: s.CheckpointBytes, ReserveBytes: s.ReserveBytes, CheckpointInterval: s.CheckpointInterval,
		SegmentBytes: s.DefaultSegmentBytes, MaxOpenFiles: n.shares.storage,
	})
	if err != nil {
		return fmt.Errorf("cannot open the data in %s: %w", n.options.DataDir, err)
	}
	n.store = store
	n.opened("store", ignoreContext(n.closeStore))
	if err := n.checkStore(); err != nil {
		return err
	}
	for _, r := range store.Refused() {
		replicas.LogRefusal(n.logger, r)
	}
	n.shares.warnOfFewFiles(n.logger, len(store.Logs()))
	n.logger.Info("data recovered", "logs", len(store.Logs()), "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

func (n *Node) openListener(ctx context.Context) error {
	address, err := n.resolved(ctx, "--rpc-address", n.options.RPCAddress)
	if err != nil {
		return err
	}
	listener, err := rpc.Listen(ctx, address)
	if err != nil {
		return listenError("rpc", "--rpc-address", n.options.RPCAddress, err)
	}
	n.listener = listener
	n.dialer = &rpc.Dialer{ClientID: fmt.Sprintf("node-%d", n.options.NodeID)}
	if network, ok := simulated.NetworkOf(ctx); ok {
		n.dialer.WrapConn = network.Opened
	}
	n.opened("dialer", ignoreContext(n.dialer.Close))
	n.opened("listener", func(context.Context) error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil // the server has closed it
	})
	return nil
}

// listenError says why an address cannot be listened on, and what to do if somebody else does.
func listenError(what, flag, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s address %s is in use by another process: stop it, or choose another port with %s", what, address, flag)
	}
	return fmt.Errorf("cannot listen on the %s address %s: %w", what, address, err)
}

// advertised is the address that peers and clients are told to dial.
func (n *Node) advertised() string {
	if n.options.AdvertisedAddress != "" {
		return n.options.AdvertisedAddress
	}
	return n.listener.Addr().String()
}

// openGroups opens everything that needs a cluster id: the lanes, the Raft host, the replicas and the metadata.
func (n *Node) openGroups(ctx context.Context) error {
	hello := rpc.PeerHello{Versions: rpc.Spoken, Release: Version, ClusterID: n.identity.ClusterID, Node: n.options.NodeID, Boot: n.identity.Boot}
	known := func(peer id.Node) bool { _, ok := n.resolve(peer); return ok }
	n.leaders = leaders.New(leaders.Options{Self: n.options.NodeID, View: n.view, Alive: n.alive, Changed: func() { n.peers.Tell() }})
	in := &inbound{self: hello, known: known, registered: n.registered, word: n.noteWord, leaders: n.leaders}
	n.dialer.MeansCluster(n.identity.ClusterID)
	peers, err := rpc.NewPeers(rpc.PeerOptions{
		Self: hello, Resolve: n.addresses, Refused: n.refusedBy, Teller: n.leaders, Dialer: n.dialer, Logger: n.logger,
		Down: func(peer id.Node) {
			n.logger.Info("peer lost", "peer", peer)
			n.leaders.Down(peer)
			in.host.NodeDown(peer)
		},
		Up: func(peer id.Node) {
			n.logger.Info("peer connected", "peer", peer)
			n.leaders.Up(peer)
			in.host.NodeUp(peer)
		},
	})
	if err != nil {
		return err
	}
	n.peers, in.peers = peers, peers
	n.opened("peers", ignoreContext(peers.Close))
	t := n.options.Timing
	host, err := raftgroup.New(raftgroup.Options{
		Node: n.options.NodeID, Store: n.store, Transport: transport{peers}, TickInterval: t.TickInterval, HeartbeatTicks: t.HeartbeatTicks,
		ElectionTicks: t.ElectionTicks, Logger: n.logger, TurnDone: n.turns.Done,
		OnGroupFailed: n.groupFailed,
	})
	if err != nil {
		return err
	}
	n.host, in.host = host, host
	peers.SetHealth(rpc.Health(host.Condition())) // before a lane opens: nobody is to be given a leadership first
	n.opened("raft groups", ignoreContext(host.Close))
	n.replicas = replicas.New(n.options.NodeID, n.store, host, n.leaders, n.logger, func() id.Producer { return n.controller.View().NextProducer() })
	if err := n.openController(ctx); err != nil {
		return err
	}
	n.openBroker()
	return n.openServer(in)
}

// view is the metadata; nil before it is open.
func (n *Node) view() *placement.View {
	if c := n.running.Load(); c != nil {
		return c.View()
	}
	return nil
}

// openBroker wires what clients ask to the parts that know.
func (n *Node) openBroker() {
	n.fetching = fetching.NewHub(fetching.Options{Node: n.options.NodeID})
	n.opened("hub of consumers", func(context.Context) error { n.fetching.Close(); return nil })
	n.broker = serving.New(serving.Options{
		Node: n.options.NodeID, ClusterID: n.identity.ClusterID, ClusterName: n.options.ClusterName, Logger: n.logger,
		Host: n.host, Turns: &n.turns, Pressure: n.store.Pressure, Replicas: n.replicas, Fetching: n.fetching, Leaders: n.leaders, Controller: n.controller,
		Nodes: serving.Nodes{
			Resolve: n.resolve, Alive: n.alive, TakesLeaderships: n.takesLeaderships, Reachable: n.reachable, IsUp: n.isUp,
			Remote: func(address string) broker.Remote { return native.Remote(n.dialer.Admin(address)) },
		},
		Age: n.word.age, Self: n.selfStatus,
	})
}

func (n *Node) openServer(in *inbound) error {
	services := native.Services(n.broker, &peerCalls{node: n})
	services.Peer = in
	server, err := rpc.NewServer(rpc.ServerOptions{
		Listener: n.listener, Node: n.options.NodeID, Logger: n.logger, MaxConnections: n.shares.clients,
		ClusterID: n.identity.ClusterID, Age: n.word.age,
		Services: services,
	})
	if err != nil {
		return err
	}
	n.server = server
	n.opened("rpc server", server.Close)
	return nil
}

// openServices starts what is not needed to serve: registration, balancing, metrics.
func (n *Node) openServices(context.Context) error {
	n.registrar.start(n.keepRegistered)
	n.opened("registrar", n.registrar.close)
	n.identities.start(n.watchIdentity)
	n.opened("watch of the identity", n.identities.close)
	n.balancer.start(n.balanceLeaders)
	n.opened("balancer", n.balancer.close)
	n.majority.start(n.listenToMajority)
	n.opened("ear for the majority", n.majority.close)
	n.condition.start(n.watchCondition)
	n.opened("watch of the disk", n.condition.close)
	n.expiry.start(n.expireProducers)
	n.opened("expiry of producers", n.expiry.close)
	n.sweeper.start(func(ctx context.Context) { n.leaders.Keep(ctx, n.controller.Changed) })
	n.opened("sweeper of what leaders said", n.sweeper.close)
	n.taker.start(n.takeOutCondemned)
	n.opened("taker of condemned replicas", n.taker.close)
	if n.console != nil {
		n.registerMetrics(n.registry)
		n.opened("console", n.console.Close) // before the parts that it shows
	}
	return nil
}

// openConsole serves the metrics port from the beginning: a node that waits for its cluster is alive, and not ready. There are metrics once
// there is something to count.
func (n *Node) openConsole(ctx context.Context) error {
	if n.options.MetricsAddress == "" {
		return nil
	}
	address, err := n.resolved(ctx, "--metrics", n.options.MetricsAddress)
	if err != nil {
		return err
	}
	n.registry = prometheus.NewRegistry()
	server, err := console.Serve(ctx, address, console.Options{
		Ready: n.readiness, Logger: n.logger, MaxConnections: n.shares.console,
		Gatherer: n.registry,
	})
	if err != nil {
		return listenError("metrics", "--metrics", n.options.MetricsAddress, err)
	}
	n.console = server
	n.opened("metrics port", server.Close)
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

// readiness returns nil when the node holds what the metadata wants it to hold, its disk takes records, and all that it holds has a leader
// that it hears of.
func (n *Node) readiness() error {
	if s := n.State(); s != Ready && n.failure.Load() == nil {
		return fmt.Errorf("node %d is %v", n.options.NodeID, s)
	}
	if err := n.conditionError(); err != nil {
		return err
	}
	return n.leaderError()
}

// RPCAddress returns the address that the node serves.
func (n *Node) RPCAddress() string { return n.listener.Addr().String() }

// GossipAddress returns the address of gossip, TCP and UDP.
func (n *Node) GossipAddress() string { return n.membership.Address() }

// Addresses returns one line with every port that the node listens on.
func (n *Node) Addresses() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %d of cluster %s serves: rpc tcp %s (advertised %s), gossip tcp+udp %s", n.options.NodeID, n.identity.ClusterID,
		n.listener.Addr(), n.advertised(), n.membership.Address())
	if n.console != nil {
		fmt.Fprintf(&b, ", metrics tcp %s", n.console.Addr())
	}
	return b.String()
}

// Stop hands the node's leaderships over for as long as ctx allows, closes everything in order and returns the first error.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	n.stopOnce.Do(func() {
		n.state.Store(int32(Draining))
		n.drain(ctx)
		err = n.closeParts(context.WithoutCancel(ctx))
		n.logger.Info("node stopped")
	})
	return err
}

// closeTimeout bounds the closing of one part that waits for others, such as administrative calls in progress.
const closeTimeout = 5 * time.Second

func (n *Node) closeParts(ctx context.Context) error {
	var first error
	if n.store != nil {
		n.store.StopWaiting() // of those that are closed before it
	}
	for i := len(n.closers) - 1; i >= 0; i-- {
		part := n.closers[i]
		bounded, cancel := context.WithTimeout(ctx, closeTimeout)
		if err := part.close(bounded); err != nil && first == nil {
			first = fmt.Errorf("closing the %s: %w", part.what, err)
		}
		cancel()
	}
	n.closers = nil
	return first
}
