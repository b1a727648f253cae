package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/quorumlog/quorumlog/rpc/loglimit"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Options say who this node is and where it finds the others. Cluster, Self and BindAddress are required.
type Options struct {
	// Cluster is the name of the cluster. It labels every packet and stream: bytes without it are dropped unread.
	Cluster string
	// Keys encrypt the gossip: the first does, all are understood. 16, 24 or 32 bytes each; none: it is not encrypted.
	Keys [][]byte
	Self Self
	// BindAddress is where to listen, TCP and UDP: an IP address and a port. Port 0 picks one.
	BindAddress string
	// AdvertiseAddress is where the others find this node, host or host:port. Needed when BindAddress is not one address (0.0.0.0).
	AdvertiseAddress string
	// Seeds are gossip addresses of any nodes, host:port.
	Seeds []string
	// Known returns more of them: those of the metadata. nil: none.
	Known func() []string
	// Plausible tells whether what a member says of itself can be; what cannot is dropped and counted. It is called under memberlist's
	// locks, and so must neither block nor call the Membership. nil: all can.
	Plausible func(Self) bool
	// OnChange is called with each event, one after the other, on a goroutine of the package. It may call Members and Member, but not
	// Close. nil: nobody wants to know.
	OnChange func(Event)
	// MaxStreams is how many streams are open at once, 128 by default: the oldest makes room.
	MaxStreams int
	Profile    Profile
	Logger     *slog.Logger // nil: silent
	// WrapConn and Passes, when not nil, are a network of a test's making: WrapConn is given each stream that is opened, and a packet
	// goes out only if Passes says that it arrives.
	WrapConn func(net.Conn) (net.Conn, error)
	Passes   func(address string) bool
}

func (o Options) validate() error {
	switch {
	case o.Cluster == "":
		return errors.New("membership: the cluster has no name")
	case len(o.Cluster) > memberlist.LabelMaxSize:
		return fmt.Errorf("membership: the name of the cluster has %d bytes, at most %d are allowed", len(o.Cluster), memberlist.LabelMaxSize)
	case o.Self.Node < 0:
		return fmt.Errorf("membership: %d is not a node id", o.Self.Node)
	}
	if err := checkKeys(o.Keys); err != nil {
		return err
	}
	_, err := encodeMeta(o.Self)
	return err
}

func checkKeys(keys [][]byte) error {
	for _, key := range keys {
		if !slices.Contains([]int{16, 24, 32}, len(key)) {
			return fmt.Errorf("membership: the gossip key has %d bytes: it must have 16, 24 or 32", len(key))
		}
	}
	return nil
}

// Membership is one node's part in the gossip.
type Membership struct {
	name      string
	options   Options
	timing    timing
	log       *slog.Logger
	lines     *loglimit.Limiter // for what any member can cause
	transport *transport
	list      *memberlist.Memberlist
	box       *mailbox
	table     *table
	keys      *memberlist.Keyring // nil: gossip is not encrypted
	meta      atomic.Pointer[[]byte]
	announced chan struct{} // wakes announce: meta changed
	called    chan struct{} // capacity 1: rejoin has called the seeds for the first time
	looked    chan struct{} // closed once deliver knows that, and has told what came of it
	foreign   atomic.Pointer[WrongClusterError]

	implausible atomic.Uint64

	cancel    context.CancelFunc
	wait      sync.WaitGroup
	closeOnce sync.Once
	closed    error
}

// Start opens the ports and begins to look for the seeds. It does not wait for them.
func Start(o Options) (*Membership, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Membership{
		name: newName(o.Self), options: o, timing: o.Profile.timing(), log: o.Logger, lines: loglimit.Strangers(), box: newMailbox(),
		announced: make(chan struct{}, 1), called: make(chan struct{}, 1), looked: make(chan struct{}),
	}
	meta, err := encodeMeta(o.Self)
	if err != nil {
		return nil, err
	}
	m.meta.Store(&meta)
	if len(o.Keys) > 0 {
		if m.keys, err = memberlist.NewKeyring(o.Keys, o.Keys[0]); err != nil {
			return nil, fmt.Errorf("membership: the gossip keys: %w", err)
		}
	}
	m.transport, err = listen(o, m.timing)
	if err != nil {
		return nil, err
	}
	m.table = newTable(m.name, Member{Self: o.Self, GossipAddress: m.Address()})
	if m.list, err = memberlist.Create(m.config()); err != nil {
		m.transport.Shutdown()
		return nil, fmt.Errorf("membership: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.wait.Go(func() { m.deliver(ctx) })
	m.wait.Go(func() { m.rejoin(ctx) })
	m.wait.Go(func() { m.announce(ctx) })
	return m, nil
}

func (m *Membership) config() *memberlist.Config {
	c := m.timing.config()
	c.Name = m.name
	c.Label = m.options.Cluster
	c.Keyring = m.keys
	c.Transport = m.transport
	address := m.transport.advertised
	c.AdvertiseAddr, c.AdvertisePort = address.Addr().String(), int(address.Port())
	c.BindAddr, c.BindPort = c.AdvertiseAddr, c.AdvertisePort
	c.Delegate = (*delegate)(m)
	c.Events, c.Alive = m.box, (*delegate)(m)
	c.Logger = newLogBridge(m.log)
	return c
}

// Close says goodbye, so that the others need not find out, and gives the ports back. It waits for all goroutines of the package; those of
// memberlist end within its probe timeout.
func (m *Membership) Close() error { return m.stop((*memberlist.Memberlist).Leave) }

// Abort is Close without the goodbye: to the others it looks like a crash.
func (m *Membership) Abort() error {
	return m.stop(func(*memberlist.Memberlist, time.Duration) error { return nil })
}

func (m *Membership) stop(leave func(*memberlist.Memberlist, time.Duration) error) error {
	m.closeOnce.Do(func() {
		m.cancel()
		m.transport.hangUp() // a dial of rejoin may be waiting
		m.wait.Wait()
		if err := leave(m.list, m.timing.leave); err != nil {
			m.log.Info("gossip: left without an answer, the others will notice", "reason", err)
		}
		m.closed = m.list.Shutdown()
	})
	return m.closed
}

// Address is where the others find this node's gossip, TCP and UDP.
func (m *Membership) Address() string { return m.transport.advertised.String() }

// Members returns the other nodes that are alive as far as the gossip knows, by node id.
func (m *Membership) Members() []Member { return m.table.members() }

// Member returns a node that is alive as far as the gossip knows.
func (m *Membership) Member(n id.Node) (Member, bool) { return m.table.member(n) }

// Looked returns a channel that is closed once the seeds have been called for the first time: one of them answered, and what it knows is in
// Members and was told to OnChange, or none did.
func (m *Membership) Looked() <-chan struct{} { return m.looked }

// Foreign returns the last refusal by a seed that belongs to another cluster, nil if there is none or a seed of this cluster has answered since.
func (m *Membership) Foreign() error {
	if e := m.foreign.Load(); e != nil {
		return e
	}
	return nil
}

// Implausible returns how often a member said what Options.Plausible took for impossible.
func (m *Membership) Implausible() uint64 { return m.implausible.Load() }

// Former returns earlier starts of this node that are alive as far as the gossip knows. Mostly the gossip has not noticed yet that they are
// over; one that is not runs on the directory of which this one is a copy.
func (m *Membership) Former() []Member { return m.table.formerSelves() }

// SetKeys exchanges the keys: the first encrypts from now on, all are understood. To exchange the key of a cluster, all nodes learn to
// understand the new one first, then use it, then forget the old one. Gossip that was started without keys has none for good.
func (m *Membership) SetKeys(keys [][]byte) error {
	switch {
	case m.keys == nil:
		return errors.New("membership: gossip was started without a key: start the node again")
	case len(keys) == 0:
		return errors.New("membership: no gossip key")
	}
	if err := checkKeys(keys); err != nil {
		return err
	}
	for _, key := range keys {
		if err := m.keys.AddKey(key); err != nil {
			return fmt.Errorf("membership: a gossip key: %w", err)
		}
	}
	if err := m.keys.UseKey(keys[0]); err != nil {
		return fmt.Errorf("membership: the gossip key: %w", err)
	}
	for _, old := range m.keys.GetKeys() {
		if !slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, old) }) {
			if err := m.keys.RemoveKey(old); err != nil {
				return fmt.Errorf("membership: an old gossip key: %w", err)
			}
		}
	}
	return nil
}

// SetClusterID tells the others that this node has a place in the cluster now. It does not wait until they know.
func (m *Membership) SetClusterID(clusterID string) error {
	self := m.options.Self
	self.ClusterID = clusterID
	meta, err := encodeMeta(self)
	if err != nil {
		return err
	}
	m.meta.Store(&meta)
	select {
	case m.announced <- struct{}{}:
	default:
	}
	return nil
}

// announce sends a changed meta out. UpdateNode waits for the first transmission, therefore the goroutine.
func (m *Membership) announce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.announced:
			if err := m.list.UpdateNode(m.timing.stream); err != nil {
				m.log.Debug("gossip: update", "reason", err)
			}
		}
	}
}

// deliver moves what callbacks left in the mailbox into the table and tells OnChange.
func (m *Membership) deliver(ctx context.Context) {
	for {
		first := false
		select {
		case <-ctx.Done():
			return
		case <-m.box.wake:
		case <-m.called: // what the first answer brought is in the box since before this
			first = true
		}
		for _, c := range m.box.take() {
			m.tell(m.table.apply(c))
		}
		if first {
			close(m.looked)
		}
	}
}

func (m *Membership) tell(events []Event) {
	for _, e := range events {
		if e.Kind == Up || e.Kind == Down {
			m.lines.Log(m.log, slog.LevelInfo, "gossip: node is "+e.Kind.String(), "node", e.Node, "rpc", e.Member.RPCAddress, "boot", e.Member.Boot)
		}
		if m.options.OnChange != nil {
			m.options.OnChange(e)
		}
	}
}

// rejoin calls one address after the other that should be a member and is not: at the start, and for ever, because a split that outlives
// gossipToTheDead does not heal by itself.
func (m *Membership) rejoin(ctx context.Context) {
	said := make(map[string]string) // by address, the last reason for a failure: it is worth one line
	first := sync.OnceFunc(func() { m.called <- struct{}{} })
	for pause := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		missing := m.missing(ctx)
		if len(missing) > 0 {
			m.joinOne(ctx, missing, said)
		}
		first()
		pause = m.timing.rejoin + rand.N(m.timing.rejoin)
		if len(m.table.members()) == 0 {
			pause = min(pause, 500*time.Millisecond) // alone: nothing is more urgent
		}
	}
}

// joinOne calls the missing addresses in random order until one answers: a dead seed must not shadow the others.
func (m *Membership) joinOne(ctx context.Context, missing []string, said map[string]string) {
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	for _, address := range missing {
		err := m.join(address)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			delete(said, address)
			m.foreign.Store(nil)
			return
		}
		var wrong *WrongClusterError
		if errors.As(err, &wrong) {
			m.foreign.Store(wrong)
		}
		if reason := err.Error(); said[address] != reason && len(said) < maxMembers {
			said[address] = reason
			m.log.Warn("gossip: no answer yet", "from", address, "reason", reason)
		}
	}
}

func (m *Membership) join(address string) error {
	_, err := m.list.Join([]string{address})
	if wrong := m.transport.wrongCluster(address); wrong != nil {
		return wrong
	}
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "crypt"): // "decrypt", "encrypted", "encryption": memberlist has no error values for them
		return fmt.Errorf("%s has another gossip key than this node, or one of the two has none: set the same key on all nodes", address)
	case strings.HasSuffix(strings.TrimSpace(err.Error()), "EOF"):
		return fmt.Errorf("%s hung up: it is not a node of cluster %q", address, m.options.Cluster)
	}
	return flatten(err)
}

// flatten puts memberlist's list of errors into one line.
func flatten(err error) error {
	lines := strings.Split(err.Error(), "\n")
	last := strings.TrimSpace(lines[0])
	for _, l := range lines {
		if l = strings.TrimLeft(strings.TrimSpace(l), "* "); l != "" {
			last = l
		}
	}
	return errors.New(last)
}

// missing returns the addresses, as IP and port, of seeds and known nodes that are neither alive nor this node.
func (m *Membership) missing(ctx context.Context) []string {
	names := slices.Clone(m.options.Seeds)
	if m.options.Known != nil {
		names = append(names, m.options.Known()...)
	}
	var missing []string
	for _, name := range names {
		for _, address := range m.resolve(ctx, name) {
			if address != m.Address() && !m.table.hasAddress(address) && !slices.Contains(missing, address) {
				missing = append(missing, address)
			}
		}
	}
	return missing
}

// resolve looks names up here, each time anew: memberlist would ask the name servers over TCP first, with timeouts of its own.
func (m *Membership) resolve(ctx context.Context, name string) []string {
	if ap, err := netip.ParseAddrPort(name); err == nil {
		return []string{canonical(ap).String()}
	}
	host, port, err := net.SplitHostPort(name)
	number, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil {
		m.log.Debug("gossip: not an address", "seed", name)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.timing.stream)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		m.log.Debug("gossip: cannot resolve", "seed", name, "reason", err)
		return nil
	}
	addresses := make([]string, len(ips))
	for i, ip := range ips {
		addresses[i] = canonical(netip.AddrPortFrom(ip, uint16(number))).String()
	}
	return addresses
}

// canonical makes an IPv4 address one, also when it was written as IPv6, so that addresses compare as text.
func canonical(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// delegate is what memberlist asks while it holds its locks.
type delegate Membership

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte { return *d.meta.Load() }

// NotifyMsg implements memberlist.Delegate: nodes send no messages of their own.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive implements memberlist.AliveDelegate: only what describes a node gets in, and not without end.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := memberOf(n)
	if err != nil {
		return err
	}
	if f := d.options.Plausible; f != nil && !f(m.Self) {
		d.implausible.Add(1)
		return fmt.Errorf("node %d says what cannot be: start number %d", m.Node, m.Boot)
	}
	if d.table.full(n.Name) {
		return fmt.Errorf("more than %d members", maxMembers)
	}
	return nil
}
