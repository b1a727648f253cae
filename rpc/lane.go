package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
	// healthyAfter is how long a lane must have worked for its next break to start from backoffMin again.
	healthyAfter = 10 * time.Second
	// missedPings without any sign of life break a lane, at either end.
	missedPings = 5
	// bulkPing is how much longer the bulk lanes' ping interval is: their answers wait behind data.
	bulkPing = 5
)

// lane is one direction of one lane to one node: a queue, and a goroutine that dials, writes, and dials again. While the lane
// is down and waiting to be dialed nothing is queued: Raft repeats itself, and what it said a second ago is of no use.
type lane struct {
	peer   *peer
	number Lane
	out    *trains
	ping   time.Duration
	kick   chan struct{} // capacity 1: dial now
	notice chan struct{} // capacity 1, control lane only: the node's own lane to us broke
	news   chan struct{} // capacity 1, control lane only: our health is another
	tale   *tale         // what the node is told; control lane only

	snapshots atomic.Bool // some were queued since it was last said that they may be lost

	link    atomic.Pointer[link] // the present stream, for breakNow
	version atomic.Uint32        // its trainVersion

	// writing is held by whoever takes trains off the queue and writes them: the order of the one is that of the other.
	writing struct {
		sync.Mutex
		open   bool     // the stream may be written to
		pieces [][]byte // scratch
	}

	// Of run's goroutine only:
	logged   string // the last failure that was logged
	failures int    // since it last worked
	backoff  time.Duration
}

// smallTrain is what flush writes itself instead of waking the lane's goroutine: on a quiet lane the wake-up costs more than the
// write, and takes longer.
const smallTrain = 8 << 10

// flush has what is queued written, and never waits for it. Any goroutine.
func (l *lane) flush() {
	if l.out.flushed() && !l.writeSmall() {
		l.out.signal()
	}
}

// writeSmall writes a train that is small if nobody else is writing. False: the lane's goroutine has to.
func (l *lane) writeSmall() bool {
	w := &l.writing
	if !w.TryLock() {
		return false
	}
	defer w.Unlock()
	k := l.link.Load()
	if k == nil || !w.open || !k.out.canTry() {
		return false
	}
	t := l.out.takeSmall(smallTrain)
	if t == nil {
		return false
	}
	err := k.out.tryWrite(l.piecesOf(t))
	l.sent(t)
	return err == nil && k.out.whole() // an error closed the connection, which ends the goroutine's stream
}

// piecesOf returns a train as the pieces of a message. writing is held.
func (l *lane) piecesOf(t *train) [][]byte {
	l.writing.pieces = append(append(l.writing.pieces[:0], l.agreed().seal(t.heads, trainMessages)), t.bodies...)
	return l.writing.pieces
}

// sent gives a train back that was written, or failed to be. writing is held.
func (l *lane) sent(t *train) {
	m := &l.peer.peers.counts
	m.trains.Add(1)
	m.bytes.Add(uint64(t.size))
	clear(l.writing.pieces)
	l.out.done(t)
}

func newLane(p *peer, number Lane, bound int, ping time.Duration) *lane {
	return &lane{
		peer: p, number: number, out: newTrains(bound, trainVersionOf(p.peers.o.Self.Versions.Newest)), ping: ping,
		kick: make(chan struct{}, 1), notice: make(chan struct{}, 1), news: make(chan struct{}, 1), backoff: backoffMin,
		tale: newTale(p.peers.o.Teller, number),
	}
}

// run keeps the lane open until the peer is closed.
func (l *lane) run() {
	p := l.peer
	for p.ctx.Err() == nil {
		l.out.open()
		k, err := l.connect()
		if err == nil {
			start := time.Now()
			err = l.drive(k)
			if time.Since(start) > healthyAfter {
				l.backoff = backoffMin
			}
		}
		l.out.close()
		if p.ctx.Err() == nil {
			l.loseSnapshots()
			l.report(err)
			l.pause()
		}
	}
	l.out.close()
}

// connect opens the stream and exchanges hellos.
func (l *lane) connect() (*link, error) {
	p := l.peer
	addresses := p.peers.o.Resolve(p.node)
	if len(addresses) == 0 {
		return nil, errNoAddress
	}
	hello := p.peers.o.Self
	hello.Target, hello.Lane, hello.Health, hello.ping = p.node, l.number, l.health(), l.ping
	addr := addresses[l.failures%len(addresses)]
	return p.peers.o.Dialer.open(p.ctx, target{addr, p.node}, rpcLane, appendHello(nil, hello), missedPings*l.ping, l.welcome)
}

// agreed is the version of the trains of the present stream.
func (l *lane) agreed() trainVersion { return trainVersion(l.version.Load()) }

var (
	errNoAddress = errors.New("its address is not known")
	errClosing   = errors.New("closing")
)

// welcome checks who answered, since the address may be another node's by now, and takes the version that it picked.
func (l *lane) welcome(message []byte) error {
	h, err := decodeHello(message)
	if err != nil {
		return err
	}
	self, peer := l.peer.peers.o.Self, l.peer.node
	picked, err := self.Versions.accept(h.opening(), nodeName(self.Node), nodeName(peer))
	if err != nil {
		return err
	}
	if h.Node != peer {
		return kerr.Errorf(kerr.InvalidRequest, "node %d answers at the address of node %d", h.Node, peer)
	}
	l.version.Store(uint32(trainVersionOf(picked)))
	if l.out.agreed(trainVersionOf(picked)) {
		l.loseSnapshots()
	}
	return nil
}

// put queues a message.
func (l *lane) put(size int, g id.Group, m *raftpb.Message, data Loan) bool {
	if m.GetType() == raftpb.MsgSnap {
		l.snapshots.Store(true) // first: it may be lost as soon as it is queued
	}
	return l.out.put(size, g, m, data)
}

// loseSnapshots says that those on their way may be lost: Raft does not repeat them by itself, as it does all else.
func (l *lane) loseSnapshots() {
	if lost := l.peer.peers.o.SnapshotsLost; l.snapshots.Swap(false) && lost != nil {
		lost(l.peer.node)
	}
}

// drive writes what is queued until the stream breaks, and returns why.
func (l *lane) drive(k *link) error {
	l.link.Store(k)
	if l.peer.ctx.Err() != nil { // closed between the dial and the Store: nobody else will close k
		k.close()
	}
	received := make(chan error, 1)
	go func() { received <- receive(k.conn, k.st, borrowed(l.answer)) }()
	l.up()
	l.begin()
	err := l.write(k, received)
	l.link.Store(nil)
	l.end()
	if hungUp(err) || isClosed(k.dc.Closed()) { // a write noticed that the stream has ended; the receiver knows why
		err = lost(k.addr, <-received)
	} else {
		k.close()
		if reason, ok := fromWire(<-received); ok {
			err = reason
		}
	}
	k.close()
	k.join()
	l.down()
	return err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// answer takes what the other side says on the lane: pongs, which did their work by arriving, but for those that ask for all news again.
func (l *lane) answer(message []byte) error {
	kind, heads, err := l.agreed().openBare(message)
	if err != nil {
		return err
	}
	if kind != trainPong {
		return errUnexpected(kind)
	}
	anew, err := decodeLanePong(heads)
	l.tale.missed.Store(anew)
	return err
}

// write is the lane's writer. It leaves the error of the receiver in received.
func (l *lane) write(k *link, received chan error) error {
	ticker := time.NewTicker(l.ping)
	defer ticker.Stop()
	l.tale.begin()
	defer l.tale.end()
	busy := false // since the last ping
	for {
		select {
		case <-l.out.wake:
			busy = true
			if err := l.drain(k); err != nil {
				return err
			}
		case <-ticker.C:
			if !busy {
				l.out.trim()
			}
			busy = false
			if err := l.say(k, l.agreed().ping(l.health())); err != nil {
				return err
			}
			l.tale.look()
		case <-l.tale.awake():
			l.tale.schedule()
		case <-l.tale.due.C:
			if message := l.tale.next(l.agreed()); message != nil {
				if err := l.say(k, message); err != nil {
					return err
				}
			}
		case err := <-received:
			received <- err
			return io.EOF
		case <-l.news:
			if err := l.say(k, l.agreed().ping(l.health())); err != nil {
				return err
			}
		case <-l.notice: // see whether it answers us, now rather than at the next tick
			if err := l.say(k, l.agreed().ping(l.health())); err != nil {
				return err
			}
		case <-l.peer.ctx.Done():
			return errClosing
		}
	}
}

func (l *lane) health() Health { return Health(l.peer.peers.health.Load()) }

// drain writes all that is queued.
func (l *lane) drain(k *link) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.drainLocked(k)
}

func (l *lane) drainLocked(k *link) error {
	if err := k.out.complete(); err != nil {
		return err
	}
	for t := l.out.take(); t != nil; t = l.out.take() {
		err := k.out.write(l.piecesOf(t))
		l.sent(t)
		if err != nil {
			return err
		}
	}
	return nil
}

// say writes a message of the lane itself, after all that is queued: what is half written must be whole first.
func (l *lane) say(k *link, message []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.drainLocked(k); err != nil {
		return err
	}
	return k.out.write([][]byte{message})
}

// begin lets others write to the stream, and end ends that.
func (l *lane) begin() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.writing.open = true
}

func (l *lane) end() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.writing.open = false
}

// up and down report the control lane's state; down also ends the bulk lanes, so that all of them start afresh.
func (l *lane) up() {
	l.peer.peers.counts.connects.Add(1)
	l.failures = 0
	if l.logged != "" {
		l.logged = ""
		l.log().Info("lane to node works again", "node", l.peer.node, "lane", l.number)
	}
	if l.number == LaneCtl {
		l.peer.report(stateUp)
		for _, b := range l.peer.bulk {
			b.kickNow()
		}
	}
}

func (l *lane) down() {
	l.peer.peers.counts.breaks.Add(1)
	if l.number != LaneCtl || l.peer.ctx.Err() != nil {
		return
	}
	for _, b := range l.peer.bulk {
		b.breakNow()
	}
	l.peer.report(stateDown)
}

// report logs a failure, once as long as it stays the same.
func (l *lane) report(err error) {
	l.failures++
	if refused := l.peer.peers.o.Refused; refused != nil && l.number == LaneCtl && kerr.CodeOf(err) == kerr.DuplicateBrokerRegistration {
		refused(l.peer.node, err)
	}
	if l.number != LaneCtl && (l.failures < 3 || l.peer.ctl.link.Load() == nil) {
		return // the control lane speaks for all, unless this one alone keeps failing
	}
	if text := err.Error(); text != l.logged {
		l.logged = text
		l.log().Warn("no lane to node, trying again", "node", l.peer.node, "lane", l.number, "reason", text)
	}
}

// pause waits for the back-off to pass, with jitter, or to be cut short.
func (l *lane) pause() {
	timer := time.NewTimer(l.backoff/2 + rand.N(l.backoff/2+1))
	defer timer.Stop()
	l.backoff = min(2*l.backoff, backoffMax)
	for {
		select {
		case <-timer.C:
			return
		case <-l.kick:
			l.backoff = backoffMin
			return
		case <-l.notice:
			l.peer.report(stateDown)
		case <-l.peer.ctx.Done():
			return
		}
	}
}

func (l *lane) log() *slog.Logger { return l.peer.peers.o.Logger }

func (l *lane) kickNow() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// breakNow closes the present stream, if there is one. Its receiver notices, and then its writer.
func (l *lane) breakNow() {
	if k := l.link.Load(); k != nil {
		k.close()
	}
}

// peerState is what was last reported of a node.
type peerState uint8

const (
	stateUnknown peerState = iota
	stateUp
	stateDown
)

// peer is all lanes to one node.
type peer struct {
	peers  *Peers
	node   id.Node
	ctx    context.Context
	cancel context.CancelFunc
	ctl    *lane
	bulk   []*lane
	state  peerState // the control lane's goroutine only
}

// report calls back when the state changes. Control lane's goroutine only.
func (p *peer) report(s peerState) {
	if s == p.state {
		return
	}
	p.state = s
	f := p.peers.o.Up
	if s == stateDown {
		f = p.peers.o.Down
	}
	if f != nil {
		f(p.node)
	}
}

// close ends the lanes without waiting.
func (p *peer) close() {
	p.cancel()
	p.ctl.breakNow()
	for _, b := range p.bulk {
		b.breakNow()
	}
}
