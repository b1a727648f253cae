package limit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
)

// NodeOptions configures a process of the bound.
type NodeOptions struct {
	Dir        string
	Layout     Layout
	Partitions int
	Followers  []string // addresses; a leader has them
	Ready      func(address string)
}

// lagBytes bounds the frames in a process: how far the slowest copy may be behind.
const lagBytes = 64 << 20

// RunNode serves until the context ends or a write fails.
func RunNode(ctx context.Context, o NodeOptions) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	n := &node{NodeOptions: o, listener: listener, pool: newPool(lagBytes), failed: make(chan error, 1)}
	if err := n.open(); err != nil {
		return err
	}
	for _, address := range o.Followers {
		f, err := dialFollower(n, address)
		if err != nil {
			return err
		}
		n.followers = append(n.followers, f)
	}
	n.durable = make([][3]uint64, len(n.committers))
	n.waiting = make([][]*buffer, len(n.committers))
	for _, c := range n.committers {
		n.running.Go(c.run)
	}
	for i, f := range n.followers {
		n.running.Go(f.send)
		n.running.Go(func() { f.receive(i + 1) })
	}
	n.running.Go(n.accept)
	o.Ready(listener.Addr().String())
	select {
	case err = <-n.failed:
	case <-ctx.Done():
	}
	n.close()
	return err
}

// node is a leader or a follower; a follower is a leader of nobody, whose acknowledgements need nobody else.
type node struct {
	NodeOptions
	listener   net.Listener
	pool       *pool
	committers []*committer
	followers  []*follower
	running    sync.WaitGroup
	failed     chan error

	mu          sync.Mutex
	durable     [][3]uint64 // by file: synced here, and on the followers
	client      *acker
	subscribers []*outlet
	waiting     [][]*buffer // by file, for subscribers: frames that are not yet committed
	conns       []net.Conn
}

func (n *node) open() error {
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return err
	}
	for file := range n.Layout.filesOf(n.Partitions) {
		d, err := openDisk(n.Layout, fileName(n.Dir, file))
		if err != nil {
			return fmt.Errorf("limit: cannot make a file: %w", err)
		}
		n.committers = append(n.committers, newCommitter(d, file, n.syncedHere, n.fail))
	}
	return nil
}

func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

func (n *node) close() {
	n.listener.Close()
	n.mu.Lock()
	for _, c := range n.conns {
		c.Close()
	}
	if n.client != nil {
		n.client.close()
	}
	for _, s := range n.subscribers {
		s.close()
	}
	n.mu.Unlock()
	for _, f := range n.followers {
		f.close()
	}
	for _, c := range n.committers {
		c.close()
	}
	n.running.Wait()
	for _, c := range n.committers {
		c.disk.close()
	}
}

// accept takes connections. The first byte says what one is for: frames come in, or committed frames go out.
func (n *node) accept() {
	for {
		conn, err := n.listener.Accept()
		if err != nil {
			return
		}
		kind := make([]byte, 1)
		if _, err := io.ReadFull(conn, kind); err != nil {
			conn.Close()
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, conn)
		if kind[0] == kindSubscribe {
			s := newOutlet(conn)
			n.subscribers = append(n.subscribers, s)
			n.running.Go(func() { s.run(n.fail) })
			n.mu.Unlock()
			_, _ = conn.Write(kind) // the subscription stands
			continue
		}
		n.client = newAcker(conn, len(n.committers))
		n.running.Go(n.client.run)
		n.mu.Unlock()
		n.running.Go(func() { n.read(conn) })
	}
}

const (
	kindFrames    = 'f'
	kindSubscribe = 's'
)

// read takes frames and hands them to the disk and the followers.
func (n *node) read(conn net.Conn) {
	in := bufio.NewReaderSize(conn, blockBytes) // a short buffer: most of a frame goes straight to where it stays
	for {
		b := <-n.pool.free
		if _, err := io.ReadFull(in, b.b[:headerBytes]); err != nil {
			n.pool.free <- b
			return // the producer has closed; consumers may still read
		}
		h := headerOf(b.b)
		if err := h.check(len(n.committers)); err != nil {
			n.fail(err)
			return
		}
		b.n = int(h.bytes)
		if _, err := io.ReadFull(in, b.b[headerBytes:b.n]); err != nil {
			n.fail(err)
			return
		}
		n.mu.Lock()
		subscribed := len(n.subscribers) > 0
		refs := 1 + len(n.followers)
		if subscribed {
			refs++
			n.waiting[h.file] = append(n.waiting[h.file], b)
		}
		b.refs.Store(int32(refs))
		n.mu.Unlock()
		for _, f := range n.followers {
			f.out.push(b)
		}
		n.committers[h.file].push(b)
	}
}

func (n *node) syncedHere(file int, sequence uint64) { n.synced(0, file, sequence) }

// synced notes that a copy has frames on its disk, and acknowledges what is on two of three.
func (n *node) synced(who, file int, sequence uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &n.durable[file]
	d[who] = sequence
	committed := sequence
	if len(n.followers) > 0 {
		sorted := *d
		slices.Sort(sorted[:])
		committed = sorted[1]
	}
	if !n.client.done(file, committed) || len(n.subscribers) == 0 {
		return
	}
	waiting := n.waiting[file]
	for len(waiting) > 0 && headerOf(waiting[0].b).sequence <= committed {
		waiting[0].refs.Add(int32(len(n.subscribers) - 1))
		for _, s := range n.subscribers {
			s.push(waiting[0])
		}
		waiting = waiting[1:]
	}
	n.waiting[file] = waiting
}

// follower is the leader's side of a connection to one.
type follower struct {
	node *node
	conn net.Conn
	out  *outlet
}

func dialFollower(n *node, address string) (*follower, error) {
	conn, err := net.Dial("tcp", strings.TrimSpace(address))
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{kindFrames}); err != nil {
		return nil, err
	}
	return &follower{node: n, conn: conn, out: newOutlet(conn)}, nil
}

func (f *follower) send() { f.out.run(f.node.fail) }

func (f *follower) receive(who int) {
	in := bufio.NewReader(f.conn)
	ack := make([]byte, ackBytes)
	for {
		if _, err := io.ReadFull(in, ack); err != nil {
			f.node.fail(err)
			return
		}
		file, sequence := ackOf(ack)
		f.node.synced(who, file, sequence)
	}
}

func (f *follower) close() {
	f.out.close()
	f.conn.Close()
}
