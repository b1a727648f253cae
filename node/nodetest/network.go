package nodetest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/node/internal/simulated"
)

// retransmission is how long bytes that do not arrive are sent again before the sender's connection is given up: what TCP_USER_TIMEOUT
// does for a node's real connections.
const retransmission = 5 * time.Second

// network lies between the nodes of a cluster. Each connection that a node opens to another one ends here, and what is said on it is
// carried over by two goroutines, one for each direction, as long as nothing stops them. What is cut is not lost: as with TCP it
// arrives late, if the cut is over in time, and otherwise the connection breaks, for the sender first. The other end hears of that
// when something can reach it again.
//
// What clients open does not come through here: an isolated node goes on talking to them.
type network struct {
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		nodes   map[string]int // by address, of rpc and gossip
		silent  map[route]bool // what the first sends to the second does not arrive
		blocked map[route]bool // neither way, on connections that the first has opened to the second
		changed chan struct{}  // closed and replaced with each change
	}
}

// route is a pair of nodes, by their places in Cluster.Nodes.
type route struct{ from, to int }

func newNetwork() *network {
	n := &network{}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.mu.nodes = make(map[string]int)
	n.mu.silent, n.mu.blocked = make(map[route]bool), make(map[route]bool)
	n.mu.changed = make(chan struct{})
	return n
}

// close ends all connections and waits for the goroutines.
func (n *network) close() {
	n.cancel()
	n.wg.Wait()
}

func (n *network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// add makes the addresses of the node in place i known.
func (n *network) add(i int, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		n.mu.nodes[a] = i
	}
}

// nodeAt returns the place of the node with an address.
func (n *network) nodeAt(address string) (i int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i, ok = n.mu.nodes[address]
	return i, ok
}

// passes tells whether what one node sends arrives at another one, on connections (or by packets) that opener began.
func (n *network) passes(sent, opened route) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.mu.silent[sent] && !n.mu.blocked[opened], n.mu.changed
}

// at is a node's side of the network.
type at struct {
	network *network
	node    int
}

var _ simulated.Network = at{}

// Passes implements simulated.Network.
func (a at) Passes(address string) bool {
	to, ok := a.network.nodeAt(address)
	r := route{a.node, to}
	passes, _ := a.network.passes(r, r)
	return !ok || passes
}

// Opened implements simulated.Network. The node gets one end of a connection to this process, whose other end is spliced with the real one.
func (a at) Opened(far net.Conn) (net.Conn, error) {
	to, ok := a.network.nodeAt(far.RemoteAddr().String())
	if !ok {
		return far, nil
	}
	near, inside, err := pipe()
	if err != nil {
		return nil, err
	}
	s := &splice{network: a.network, opened: route{a.node, to}, near: inside, far: far}
	a.network.wg.Go(s.run)
	return near, nil
}

// pipe returns a TCP connection and its other end: real sockets, because nodes write past net.Conn where they can.
func pipe() (one, other net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if one, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	for {
		if other, err = l.Accept(); err != nil {
			return nil, nil, errors.Join(err, one.Close())
		}
		if other.RemoteAddr().String() == one.LocalAddr().String() {
			return one, other, nil
		}
		_ = other.Close() // a stranger's
	}
}

// splice is one connection: near is the end of who opened it, far that of who accepted it.
type splice struct {
	network   *network
	opened    route
	near, far net.Conn
}

func (s *splice) run() {
	stop := context.AfterFunc(s.network.ctx, s.reset)
	defer stop()
	var both sync.WaitGroup
	back := route{s.opened.to, s.opened.from}
	both.Go(func() { s.carry(s.opened, s.near, s.far) })
	both.Go(func() { s.carry(back, s.far, s.near) })
	both.Wait()
	s.reset()
}

func (s *splice) reset() { _, _ = s.near.Close(), s.far.Close() }

// carry brings what from sends to to, until one of them ends. That it has ended is a message, too, and waits like all others.
func (s *splice) carry(sent route, from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !s.await(sent, retransmission) {
			breakOff(from)
			s.await(sent, 0)
			breakOff(to)
			return
		}
		if _, failed := to.Write(buf[:n]); failed != nil {
			s.await(route{sent.to, sent.from}, 0)
			breakOff(from)
			return
		}
		if err != nil {
			s.await(sent, 0)
			end(to, err)
			return
		}
	}
}

// await waits until what is sent arrives, for as long as patience, if there is one, or until the network is closed.
func (s *splice) await(sent route, patience time.Duration) bool {
	var over <-chan time.Time
	for {
		passes, changed := s.network.passes(sent, s.opened)
		if passes {
			return true
		}
		if over == nil && patience > 0 {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			over = timer.C
		}
		select {
		case <-changed:
		case <-over:
			return false
		case <-s.network.ctx.Done():
			return false
		}
	}
}

// end closes a connection in the way in which the other one ended.
func end(c net.Conn, err error) {
	if tcp, ok := c.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
		_ = tcp.CloseWrite()
		return
	}
	breakOff(c)
}

func breakOff(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// Cut has nothing arrive any more of what node from sends to node to, on connections that either has opened and as packets. The other
// direction goes on, though TCP soon notices that nothing is acknowledged. Needs WithNetwork, as do all that follow.
func (c *Cluster) Cut(from, to int) {
	c.network.change(func() { c.network.mu.silent[route{from, to}] = true })
}

// Block has nothing arrive, neither way, on connections that node from opens or has opened to node to, and none of its packets: a
// firewall that lets only the other one call.
func (c *Cluster) Block(from, to int) {
	c.network.change(func() { c.network.mu.blocked[route{from, to}] = true })
}

// Isolate cuts node i off from all other nodes, both ways. Clients reach it.
func (c *Cluster) Isolate(i int) {
	c.network.change(func() {
		for j := range c.Nodes {
			if j != i {
				c.network.mu.silent[route{i, j}], c.network.mu.silent[route{j, i}] = true, true
			}
		}
	})
}

// Heal ends all that Cut, Block and Isolate have done.
func (c *Cluster) Heal() {
	c.network.change(func() {
		clear(c.network.mu.silent)
		clear(c.network.mu.blocked)
	})
}
