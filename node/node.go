package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/node/authorizer"
	"github.com/quorumlog/quorumlog/node/fetching"
	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/node/quota"
	"github.com/quorumlog/quorumlog/node/replicas"
	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/placement"
	rules "github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/console"
	"github.com/quorumlog/quorumlog/rpc/native"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Start opens a node and returns once it serves. A node that belongs to no cluster yet waits for one until ctx ends, and says in
// one line what it waits for.
func Start(ctx context.Context, o Options) (*Node, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	limit, given := simulated.OpenFilesOf(ctx)
	if !given {
		limit = openFiles()
	}
	shares, err := shareFiles(limit)
	if err != nil {
		return nil, err
	}
	n := newNode(o, shares)
	// Every port is bound before the cluster hears of the node: what fails afterwards may leave a member behind that is never there.
	for _, open := range []func(context.Context) error{
		n.openSecurity, n.openDirectory, n.openStore, n.openListener, n.openKafkaListener, n.openConsole, n.openGossip, n.joinCluster, n.openGroups, n.openServices,
	} {
		if err := open(ctx); err != nil {
			n.closeParts(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	return n, nil
}

func (n *Node) openDirectory(ctx context.Context) error {
	home, err := n.lockDirectory(ctx, n.options.DataDir)
	if err != nil {
		return err
	}
	n.files, n.pebbleFiles, n.lock = home.files, home.pebbleFiles, home.lock
	found, paths, unusable, err := n.lookAtMore(ctx)
	if err != nil {
		return err
	}
	known, err := n.peek(n.files, n.options.DataDir)
	if err != nil {
		return unusableIdentity(n.options.DataDir, err)
	}
	missing, err := checkDirectories(n.options.DataDir, known, paths, found)
	if err == nil {
		err = n.goWithout(missing, unusable)
	}
	if err != nil {
		return err
	}
	fresh := identity{NodeID: n.options.NodeID}
	if n.identity, err = n.openIdentity(home, fresh); err != nil {
		return err
	}
	fresh.Home = n.identity.StoreID
	for _, d := range slices.Clone(n.more) {
		d.listed = slices.Contains(n.identity.More, d.identity.StoreID)
		if d.identity, err = n.openIdentity(d, fresh); err == nil {
			continue
		}
		if !n.lose(d, err) {
			return err
		}
		n.more = slices.DeleteFunc(n.more, func(lost *directory) bool { return lost == d })
	}
	n.warnOfFsyncClass()
	return nil
}

// lockDirectory makes a data directory if it is missing, and takes it for this process.
func (n *Node) lockDirectory(ctx context.Context, path string) (d *directory, err error) {
	d = &directory{path: path}
	if d.files, d.pebbleFiles, err = n.openFiles(ctx, path); err != nil {
		return nil, directoryUnusable(path, err)
	}
	if d.lock, err = d.files.Lock(filepath.Join(path, ".lock")); err != nil {
		return nil, directoryInUse(path, err)
	}
	n.opened("lock", ignoreContext(d.lock.Close))
	return d, nil
}

func (n *Node) openIdentity(d *directory, fresh identity) (identity, error) {
	ident, err := openIdentity(d.files, d.path, fresh, n.options.ClusterName, n.options.Storage.Fsync, n.logger)
	return ident, unusableIdentity(d.path, err)
}

func unusableIdentity(dir string, err error) error {
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) || errors.Is(err, disk.ErrNoSpace) {
		return directoryUnusable(dir, err)
	}
	return err
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

// openFiles makes a data directory and returns the file systems for it.
func (n *Node) openFiles(ctx context.Context, dir string) (disk.FS, vfs.FS, error) {
	if d, ok := simulated.DiskOf(ctx); ok {
		return d.Files, d.Pebble, makeDirectory(d.Files, dir)
	}
	if err := makeDirectory(disk.NewBuffered(), dir); err != nil {
		return nil, nil, err
	}
	files, err := n.options.Storage.Disk.open(dir)
	return files, nil, err
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
	home := &directory{path: n.options.DataDir, files: n.files, pebbleFiles: n.pebbleFiles, identity: n.identity, listed: n.identity.ClusterID != ""}
	if err := n.openStoreOf(ctx, home, n.fail); err != nil {
		return err
	}
	n.store = home.store
	var more []*wal.Store
	for _, d := range slices.Clone(n.more) {
		err := n.openStoreOf(ctx, d, func(error) { n.failed <- d })
		if err == nil {
			more = append(more, d.store)
			continue
		}
		if d.store != nil || !n.lose(d, err) {
			return err
		}
		n.more = slices.DeleteFunc(n.more, func(lost *directory) bool { return lost == d })
	}
	n.stores = replicas.NewStores(n.store, more...)
	n.sayAbsent()
	if err := errors.Join(n.stores.CheckUnique(), n.enlist()); err != nil {
		return err
	}
	for _, r := range n.stores.Refused() {
		replicas.LogRefusal(n.logger, r)
	}
	n.shares.warnOfFewFiles(n.logger, len(n.stores.Logs()))
	return nil
}

// openStoreOf opens the store in one of the data directories, which share memory and files alike.
func (n *Node) openStoreOf(ctx context.Context, d *directory, fatal func(error)) error {
	begin := time.Now()
	s, among := n.options.Storage, 1+len(n.more)
	if among > 1 {
		s.CacheBytes = cmp.Or(s.CacheBytes, wal.DefaultCacheBytes) / int64(among)
	}
	if n.shares.storage/among < wal.LeastOpenFiles {
		return fmt.Errorf("%d data directories need %d open files, and the storage may have %d: raise the limit of the process (ulimit -n, or LimitNOFILE= in "+
			"its systemd unit)", among, among*wal.LeastOpenFiles, n.shares.storage)
	}
	store, err := wal.Open(ctx, wal.Options{
		Dir: d.path, FS: d.files, PebbleFS: d.pebbleFiles, Fsync: s.Fsync, Logger: n.logger, OnFatal: fatal,
		OnCondemned: n.condemned.add,
		CacheBytes:  s.CacheBytes, DirectAppendBytes: s.DirectAppendBytes, JournalFileBytes: s.JournalFileBytes,
		CheckpointBytes: s.CheckpointBytes, ReserveBytes: s.ReserveBytes, CheckpointInterval: s.CheckpointInterval,
		SegmentBytes: s.DefaultSegmentBytes, ScrubRate: s.ScrubRate, MaxOpenFiles: n.shares.storage / among,
	})
	if err != nil {
		return fmt.Errorf("cannot open the data in %s: %w", d.path, err)
	}
	d.store = store
	n.opened("store", func(context.Context) error { return n.closeStore(d) })
	n.logger.Info("data recovered", "dir", d.path, "logs", len(store.Logs()), "took", time.Since(begin).Round(time.Millisecond))
	return checkStore(store, d.path, &d.identity, !d.listed)
}

func (n *Node) openListener(ctx context.Context) error {
	address, err := n.resolved(ctx, "--rpc-address", n.options.RPCAddress)
	if err != nil {
		return err
	}
	if err := n.options.checkExposed("--rpc-address", address); err != nil {
		return err
	}
	listener, err := rpc.Listen(ctx, address)
	if err != nil {
		return listenError("rpc", "--rpc-address", n.options.RPCAddress, err)
	}
	n.listener = listener
	n.dialer = &rpc.Dialer{ClientID: fmt.Sprintf("node-%d", n.options.NodeID), TLS: n.dialTLS()}
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
	n.sayWhoIsBelieved()
	return nil
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
		Dropped:       func(_ id.Node, g id.Group, m *raftpb.Message) { in.dropped(g, m) },
		SnapshotsLost: func(peer id.Node) { in.host.SnapshotsLost(peer) },
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
		Node: n.options.NodeID, Store: n.stores, Transport: transport{peers}, TickInterval: t.TickInterval, HeartbeatTicks: t.HeartbeatTicks,
		ElectionTicks: t.ElectionTicks, Logger: n.logger, TurnDone: n.turns.Done,
		OnGroupFailed: n.groupFailed,
	})
	if err != nil {
		return err
	}
	n.host, in.host = host, host
	peers.SetHealth(rpc.Health(host.Condition())) // before a lane opens: nobody is to be given a leadership first
	n.opened("raft groups", ignoreContext(host.Close))
	n.replicas = replicas.New(n.options.NodeID, n.stores, host, n.leaders, n.logger, n.viewForReplicas)
	if err := n.openController(ctx); err != nil {
		return err
	}
	n.openBroker()
	return n.openServer(in)
}

// viewForReplicas is the metadata. The first replicas are opened by the controller before it is known to be open: there is nothing yet then.
func (n *Node) viewForReplicas() *placement.View {
	if v := n.view(); v != nil {
		return v
	}
	return placement.NewTable().View()
}

// openBroker wires what clients ask to the parts that know.
func (n *Node) openBroker() {
	n.fetching = fetching.NewHub(fetching.Options{Node: n.options.NodeID})
	n.opened("hub of consumers", func(context.Context) error { n.fetching.Close(); return nil })
	n.authorizer = n.options.Authorization.authorizer(func() *acl.Set { return n.controller.View().ACLs() }, n.isRegistered, n.logger)
	n.broker = serving.New(serving.Options{
		Node: n.options.NodeID, ClusterID: n.identity.ClusterID, ClusterName: n.options.ClusterName, Logger: n.logger,
		Host: n.host, Turns: &n.turns, Pressure: n.stores.Pressure, Space: n.stores.Space, Replicas: n.replicas, Fetching: n.fetching, Leaders: n.leaders, Controller: n.controller,
		Nodes: serving.Nodes{
			Resolve: n.resolve, Alive: n.alive, TakesLeaderships: n.takesLeaderships, Reachable: n.reachable, IsUp: n.isUp, KafkaAddress: n.kafkaAddressOf,
			Remote: func(node id.Node, address string) broker.Remote {
				return native.Remote(n.dialer.AdminOf(address, node))
			},
		},
		SegmentBytes: n.options.Storage.DefaultSegmentBytes, Age: n.word.age, Self: n.selfStatus, Authorizer: n.authorizer, InFlightBytes: n.options.Limits.ProduceBytes,
	})
}

func (n *Node) openServer(in *inbound) error {
	n.quotas = quota.New(func() *rules.Set { return n.controller.View().Quotas() })
	guarded := n.quotas.Of(authorizer.Guard(n.broker, n.authorizer))
	services := native.Services(guarded, &peerCalls{node: n})
	services.Peer = in
	server, err := rpc.NewServer(rpc.ServerOptions{
		Listener: n.listener, Node: n.options.NodeID, Logger: n.logger, MaxConnections: n.shares.clients - n.kafkaClients(), PeerConnections: n.shares.peers,
		TLS: n.serverTLS(), ClusterName: n.options.ClusterName, ClusterID: n.identity.ClusterID, Age: n.word.age,
		Calls: n.quotas.Call, Limits: rpc.ServerLimits{ConnectionsPerAddress: n.options.Limits.ConnectionsPerAddress},
		Services: services,
	})
	if err != nil {
		return err
	}
	n.server = server
	n.opened("rpc server", server.Close)
	n.openKafka(guarded)
	return nil
}

// openServices starts what is not needed to serve: registration, balancing, metrics.
func (n *Node) openServices(context.Context) error {
	n.registrar.start(n.keepRegistered)
	n.opened("registrar", n.registrar.close)
	n.identities.start(n.watchIdentity)
	n.opened("watch of the identity", n.identities.close)
	n.certificates.start(n.watchFiles)
	n.opened("watch of the certificates", n.certificates.close)
	n.balancer.start(n.balanceLeaders)
	n.opened("balancer", n.balancer.close)
	n.majority.start(n.listenToMajority)
	n.opened("ear for the majority", n.majority.close)
	n.condition.start(n.watchCondition)
	n.opened("watch of the disk", n.condition.close)
	n.expiry.start(n.expireProducers)
	n.opened("expiry of producers", n.expiry.close)
	n.retention.start(n.retain)
	n.opened("retention", n.retention.close)
	n.sweeper.start(func(ctx context.Context) { n.leaders.Keep(ctx, n.controller.Changed) })
	n.opened("sweeper of what leaders said", n.sweeper.close)
	n.directories.start(n.watchDirectories)
	n.opened("watch of the data directories", n.directories.close)
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

// RPCAddress returns the address that the node serves.
func (n *Node) RPCAddress() string { return n.listener.Addr().String() }

// GossipAddress returns the address of gossip, TCP and UDP.
func (n *Node) GossipAddress() string { return n.membership.Address() }

// Addresses returns one line with every port that the node listens on.
func (n *Node) Addresses() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %d of cluster %s serves: rpc tcp %s (advertised %s), gossip tcp+udp %s", n.options.NodeID, n.identity.ClusterID,
		n.listener.Addr(), n.advertised(), n.membership.Address())
	if n.kafkaListener != nil {
		fmt.Fprintf(&b, ", kafka tcp %s (advertised %s)", n.KafkaAddress(), n.advertisedKafka())
	}
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

func (n *Node) closeParts(ctx context.Context) error {
	var first error
	if n.stores != nil {
		n.stores.StopWaiting() // of those that are closed before them
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

// warnOfFsyncClass says at each start what a node without syncs is worth.
func (n *Node) warnOfFsyncClass() {
	if n.options.Storage.Fsync != wal.FsyncNone {
		return
	}
	n.logger.Warn("--unsafe-no-fsync: nothing is synced before it is acknowledged; a power failure WILL lose acknowledged records; for benchmarks only",
		"data_dir", n.options.DataDir)
	if n.identity.Mark == suspect {
		n.logger.Warn("--unsafe-no-fsync: a node was not stopped in order while it wrote here: acknowledged records and votes may be lost already",
			"data_dir", n.options.DataDir)
	}
}

// closeStore closes a store, and takes the mark away if all is durable then. One that failed while the node went on has been said.
func (n *Node) closeStore(d *directory) error {
	failed := d.store.Err() != nil && d.identity.Home != ""
	if err := d.store.Close(); err != nil {
		if failed {
			return nil
		}
		return err
	}
	if d.identity.Mark != unsynced {
		return nil
	}
	// As it is stored: a start that failed half-way has more in memory, such as a cluster that it did not get a place in.
	ident, err := loadIdentity(d.files, d.path, n.logger)
	if err != nil {
		return err
	}
	ident.Mark = unmarked
	return ident.store(d.files, d.path)
}
