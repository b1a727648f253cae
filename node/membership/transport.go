package membership

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/quorumlog/quorumlog/rpc/loglimit"
)

const (
	// headTimeout is how long a stream may take to show that it is gossip.
	headTimeout = 2 * time.Second
	// defaultStreams is Options.MaxStreams: of those that have not shown it yet, and those that have.
	defaultStreams = 128
	// goodbyeTimeout bounds the answer to gossip of another cluster.
	goodbyeTimeout = time.Second
)

// transport is the network under memberlist: one TCP and one UDP socket on the same port. It differs from memberlist's own in that nothing
// gets past it that is not gossip of this cluster, that packets that are not cost no memory, and that it closes every stream when it is closed.
//
// Two goroutines accept and receive, and each stream has one until its first bytes are checked; Shutdown waits for all of them.
type transport struct {
	label      string
	encrypted  bool
	maxStreams int
	log        *slog.Logger
	limit      *loglimit.Limiter
	tcp        *net.TCPListener
	udp        *net.UDPConn
	advertised netip.AddrPort
	packets    chan *memberlist.Packet
	streams    chan net.Conn
	wait       sync.WaitGroup
	ctx        context.Context // ends with Shutdown
	cancel     context.CancelFunc
	dialing    context.Context // ends with hangUp or ctx: no more calls
	hangUp     context.CancelFunc
	wrap       func(net.Conn) (net.Conn, error) // nil: as it is
	passes     func(address string) bool        // nil: all packets do

	mu struct {
		sync.Mutex
		closed bool
		// open streams in both directions, oldest first
		open []*stream
		// refused has, by address that was dialed, the cluster it belongs to
		refused map[string]*WrongClusterError
	}
}

// WrongClusterError says that a seed belongs to another cluster.
type WrongClusterError struct{ Address, Ours, Theirs string }

// Error names both clusters and the fix.
func (e *WrongClusterError) Error() string {
	return fmt.Sprintf("%s belongs to cluster %q, this node to cluster %q: correct the cluster name or the list of nodes to join", e.Address, e.Theirs, e.Ours)
}

func listen(o Options, timing timing) (*transport, error) {
	bind, err := netip.ParseAddrPort(o.BindAddress)
	if err != nil {
		return nil, fmt.Errorf("membership: %q is not an IP address and a port to listen on", o.BindAddress)
	}
	if o.MaxStreams <= 0 {
		o.MaxStreams = defaultStreams
	}
	t := &transport{
		maxStreams: o.MaxStreams,
		label:      o.Cluster, encrypted: len(o.Keys) > 0, log: o.Logger, limit: loglimit.New(quietTime, 1),
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), wrap: o.WrapConn, passes: o.Passes,
	}
	if err := t.open(canonical(bind)); err != nil {
		return nil, err
	}
	if t.advertised, err = advertised(t.tcp, o.AdvertiseAddress, timing); err != nil {
		t.tcp.Close()
		t.udp.Close()
		return nil, err
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.dialing, t.hangUp = context.WithCancel(t.ctx)
	t.mu.refused = make(map[string]*WrongClusterError)
	t.wait.Go(t.accept)
	t.wait.Go(t.receive)
	return t, nil
}

// open binds both sockets to one port. The kernel picks a port that is free for TCP; somebody may have it for UDP.
func (t *transport) open(bind netip.AddrPort) error {
	tries := 1
	if bind.Port() == 0 {
		tries = 10
	}
	var err error
	for range tries {
		t.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
		if err != nil {
			break
		}
		at := netip.AddrPortFrom(bind.Addr(), t.tcp.Addr().(*net.TCPAddr).AddrPort().Port())
		t.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err == nil {
			return nil
		}
		t.tcp.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("membership: gossip address %s is in use by another process: stop it or choose another port: %w", bind, err)
	}
	return fmt.Errorf("membership: cannot listen on gossip address %s: %w", bind, err)
}

// advertised returns where others find the listener.
func advertised(l *net.TCPListener, configured string, timing timing) (netip.AddrPort, error) {
	at := canonical(l.Addr().(*net.TCPAddr).AddrPort())
	if configured == "" {
		if at.Addr().IsUnspecified() {
			return at, fmt.Errorf("membership: gossip listens on %s, which is no address that others can reach: set an advertised address", at)
		}
		return at, nil
	}
	if ap, err := netip.ParseAddrPort(configured); err == nil {
		return canonical(ap), nil
	}
	host, port := configured, at.Port()
	if h, p, err := net.SplitHostPort(configured); err == nil {
		n, err := net.LookupPort("tcp", p)
		if err != nil {
			return at, fmt.Errorf("membership: advertised address %q: %w", configured, err)
		}
		host, port = h, uint16(n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timing.stream)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.Trim(host, "[]"))
	if err != nil {
		return at, fmt.Errorf("membership: cannot resolve the advertised address %q: %w", configured, err)
	}
	return canonical(netip.AddrPortFrom(ips[0], port)), nil
}

// receive takes packets. Its buffer is its own: only what passes the screen is copied.
func (t *transport) receive() {
	buf := make([]byte, maxPacket+1)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buf)
		now := time.Now()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if !t.pauseAfter("UDP", err) {
				return
			}
			continue
		}
		if n > maxPacket {
			t.complain("UDP", from.Addr().String(), errMessage)
			continue
		}
		if err := screenPacket(buf[:n], t.label, t.encrypted); err != nil {
			t.complain("UDP", from.Addr().String(), err)
			continue
		}
		p := &memberlist.Packet{Buf: slices.Clone(buf[:n]), From: net.UDPAddrFromAddrPort(canonical(from)), Timestamp: now}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) accept() {
	for {
		conn, err := t.tcp.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if !t.pauseAfter("TCP", err) { // out of file descriptors, most likely
				return
			}
			continue
		}
		s := t.track(&stream{Conn: conn, owner: t})
		t.wait.Go(func() { t.check(s) })
	}
}

// pauseAfter waits a little after an error of a socket, and tells whether to go on.
func (t *transport) pauseAfter(network string, err error) bool {
	t.complain(network, "socket", err)
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-t.ctx.Done():
		return false
	}
}

// check hands a stream to memberlist once its first bytes are those of gossip of this cluster.
func (t *transport) check(s *stream) {
	s.SetDeadline(time.Now().Add(headTimeout))
	r := bufio.NewReaderSize(s.Conn, maxStreamHead)
	err := errShort
	for n := 1; errors.Is(err, errShort) && n <= maxStreamHead; n++ {
		if _, err = r.Peek(n); err != nil {
			break
		}
		head, _ := r.Peek(r.Buffered())
		n = len(head)
		err = screenStream(head, t.label, t.encrypted)
	}
	if err != nil {
		t.reject(s, err)
		return
	}
	s.pass(r, 2+len(t.label)+1)
	select {
	case t.streams <- s:
	case <-t.ctx.Done():
		s.Close()
	}
}

func (t *transport) reject(s *stream, err error) {
	var wrong wrongLabelError
	if errors.As(err, &wrong) {
		// Say who we are, so that the other side can tell its operator: to a node it is clearer than a closed connection.
		s.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
		s.Write(appendLabel(nil, t.label))
	}
	host, _, splitErr := net.SplitHostPort(s.RemoteAddr().String())
	if splitErr != nil {
		host = s.RemoteAddr().String()
	}
	s.Close()
	if t.ctx.Err() == nil {
		t.complain("TCP", host, err)
	}
}

// complain writes a line about something that was refused, one for each sender and reason in a while.
func (t *transport) complain(network, from string, err error) {
	reason := err
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		reason = errors.New("a silent connection")
	case errors.As(err, &ne), errors.Is(err, io.EOF):
		reason = errors.New("a connection that broke off")
	}
	key := network + from + reason.Error()
	var wrong wrongLabelError
	if errors.As(err, &wrong) {
		key = network + from // labels are free to choose
	}
	if suppressed, ok := t.limit.Allow(key); ok {
		t.log.Warn("gossip: refused", "what", reason.Error(), "network", network, "from", from, "cluster", t.label, "suppressed", suppressed)
	}
}

// track remembers an open stream. When there are too many, the oldest goes: a flood of silent connections cannot keep nodes out.
func (t *transport) track(s *stream) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		s.Conn.Close()
		return s
	}
	if len(t.mu.open) >= t.maxStreams {
		t.mu.open[0].Conn.Close() // its own goroutine takes it from the list
		t.mu.open = slices.Delete(t.mu.open, 0, 1)
	}
	t.mu.open = append(t.mu.open, s)
	return s
}

func (t *transport) forget(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.mu.open, s); i >= 0 {
		t.mu.open = slices.Delete(t.mu.open, i, i+1)
	}
}

// stream is one TCP connection.
type stream struct {
	net.Conn
	owner  *transport
	head   *bufio.Reader // that looked at the first bytes; nil: nobody has yet
	dialed string        // dialed: the address
	// plain is how many bytes come before those that are screened: label and type. After them everything is msgpack, unless it is encrypted.
	plain  int
	screen packScreen
}

// pass lets memberlist read what r has looked at.
func (s *stream) pass(r *bufio.Reader, plain int) { s.head, s.plain = r, plain }

// Read implements net.Conn. No length gets past it that nodes do not send.
func (s *stream) Read(p []byte) (int, error) {
	if s.head == nil {
		if err := s.checkAnswer(); err != nil {
			return 0, err
		}
	}
	n, err := s.head.Read(p)
	if s.owner.encrypted {
		return n, err
	}
	skip := min(n, s.plain)
	s.plain -= skip
	if bad := s.screen.scan(p[skip:n]); bad != nil {
		return 0, bad
	}
	return n, err
}

// checkAnswer looks at the first bytes of the answer to a call. Answers carry no label, so one that begins with a label is the other side's
// way to say that it is not of this cluster.
func (s *stream) checkAnswer() error {
	r := bufio.NewReaderSize(s.Conn, maxStreamHead)
	err := errShort
	for n := 1; errors.Is(err, errShort) && n <= maxStreamHead; n++ {
		if _, err = r.Peek(n); err != nil {
			return err
		}
		head, _ := r.Peek(r.Buffered())
		n = len(head)
		if head[0] == msgLabel {
			return s.owner.refusedBy(s.dialed, r)
		}
		err = screenAnswer(head, s.owner.encrypted)
	}
	if err != nil {
		return err
	}
	s.pass(r, 1)
	return nil
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.owner.forget(s)
	return s.Conn.Close()
}

func (t *transport) refusedBy(address string, r *bufio.Reader) error {
	e := &WrongClusterError{Address: address, Ours: t.label}
	if head, err := r.Peek(2); err == nil {
		if head, err = r.Peek(2 + int(head[1])); err == nil {
			e.Theirs = string(head[2:])
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mu.refused) < maxMembers {
		t.mu.refused[address] = e
	}
	return e
}

// wrongCluster returns, once, why the last call to the address was refused.
func (t *transport) wrongCluster(address string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.mu.refused[address]; e != nil {
		delete(t.mu.refused, address)
		return e
	}
	return nil
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertised.Addr().AsSlice(), int(t.advertised.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, fmt.Errorf("gossip to %q: %w", address, err)
	}
	if t.passes != nil && !t.passes(address) {
		return time.Now(), nil
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.dialing, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil && t.wrap != nil {
		conn, err = t.wrap(conn)
	}
	if err != nil {
		return nil, err
	}
	return t.track(&stream{Conn: conn, owner: t, dialed: address}), nil
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport: it closes everything and waits for the goroutines of the transport.
func (t *transport) Shutdown() error {
	t.cancel()
	t.tcp.Close()
	t.udp.Close()
	t.mu.Lock()
	t.mu.closed = true
	for _, s := range t.mu.open {
		s.Conn.Close()
	}
	t.mu.open = nil
	t.mu.Unlock()
	t.wait.Wait()
	return nil
}
