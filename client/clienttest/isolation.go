package clienttest

import (
	"net"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// view is what a node that is cut off goes on saying.
type view struct {
	since   time.Time
	index   uint64
	leaders map[*partition]leadership
	nobody  bool // it has noticed that it leads nothing, and knows nobody who does
}

type leadership struct {
	node  id.Node
	epoch id.Epoch
}

// Isolate cuts a node off from the others while clients still reach it. It goes on answering at once, with what is true now, and tells how
// old that is. What it is sent is neither written nor answered, and its consumers see nothing new. Its partitions move when the test moves
// them.
func (c *Cluster) Isolate(n id.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := &view{since: time.Now(), index: c.index, leaders: make(map[*partition]leadership)}
	for _, t := range c.topics {
		for _, p := range t.partitions {
			v.leaders[p] = leadership{p.leader, p.epoch}
		}
	}
	c.node(n).view = v
}

// StepDown has an isolated node notice that it leads nothing: from now on it names nobody.
func (c *Cluster) StepDown(n id.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node(n).view.nobody = true
	c.announceLocked()
}

// Young has an isolated node say that its knowledge is new: nobody can tell from an answer that the node is cut off, as in the first moments.
func (c *Cluster) Young(n id.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node(n).view.since = time.Now().Add(time.Hour)
}

// leaderLocked is who leads a partition as the node says.
func (n *node) leaderLocked(p *partition) (id.Node, id.Epoch) {
	switch l, ok := n.viewOf(p); {
	case n.view == nil:
		return p.leader, p.epoch
	case !ok || n.view.nobody:
		return id.NoNode, l.epoch
	default:
		return l.node, l.epoch
	}
}

func (n *node) viewOf(p *partition) (leadership, bool) {
	if n.view == nil {
		return leadership{}, false
	}
	l, ok := n.view.leaders[p]
	return l, ok
}

// knowsLocked tells whether the node knows a topic.
func (n *node) knowsLocked(t *topic) bool {
	if t == nil || n.view == nil {
		return t != nil
	}
	_, ok := n.view.leaders[t.partitions[0]]
	return ok
}

func (n *node) ageLocked() time.Duration {
	if n.view == nil {
		return 0
	}
	return max(time.Since(n.view.since), 0)
}

func (n *node) age() time.Duration {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.ageLocked()
}

// Freeze stops a node as SIGSTOP does: connections stay open, new ones are accepted, and nothing is answered. The function that it returns
// lets it go on, and has been called when the test ends.
func (c *Cluster) Freeze(n id.Node) (thaw func()) {
	return c.node(n).ice.freeze()
}

// ice holds up what a node reads and writes.
type ice struct {
	mu     sync.Mutex
	thawed chan struct{} // nil: nothing is frozen
}

func (i *ice) freeze() (thaw func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.thawed == nil {
		i.thawed = make(chan struct{})
	}
	return i.thaw
}

func (i *ice) thaw() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.thawed != nil {
		close(i.thawed)
		i.thawed = nil
	}
}

func (i *ice) wait(closed <-chan struct{}) {
	i.mu.Lock()
	thawed := i.thawed
	i.mu.Unlock()
	if thawed == nil {
		return
	}
	select {
	case <-thawed:
	case <-closed:
	}
}

// icyConn is a node's end of a connection.
type icyConn struct {
	net.Conn
	ice    *ice
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn.
func (c *icyConn) Read(b []byte) (int, error) {
	c.ice.wait(c.closed)
	n, err := c.Conn.Read(b)
	c.ice.wait(c.closed)
	return n, err
}

// Write implements net.Conn.
func (c *icyConn) Write(b []byte) (int, error) {
	c.ice.wait(c.closed)
	return c.Conn.Write(b)
}

// CloseWrite ends the node's direction.
func (c *icyConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// Close implements net.Conn.
func (c *icyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
