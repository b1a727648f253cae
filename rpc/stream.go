package rpc

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Loan is memory that its owner uses again when the last reference is released.
type Loan = broker.Loan

// Kinds of frames that produce and fetch streams share. Others count from 1 and belong to their stream.
const (
	framePing = 0xf2
	framePong = 0xf3
	// frameThrottle says for how long the client is to send nothing, or will be sent nothing; it has no other place in a message than before
	// the answers that it goes with.
	frameThrottle = 0xf4
)

// appendClientHello encodes a client's hello, behind the opening:
//
//	u8 length, client id
func appendClientHello(dst []byte, v Versions, clientID string) []byte {
	dst = opening{versions: v, release: Release}.begin(dst)
	clientID = broker.CleanClientID(clientID)
	return endOpening(append(append(dst, byte(len(clientID))), clientID...))
}

func decodeClientHello(message []byte) (o opening, clientID string, err error) {
	o, rest, err := readOpening(message)
	if err != nil {
		return o, "", err
	}
	c := cursor{b: rest}
	clientID = string(c.bytes(int(c.u8())))
	if c.bad {
		return o, "", kerr.Errorf(kerr.InvalidRequest, "hello of %d bytes is cut short", len(message))
	}
	return o, clientID, nil
}

// appendLimits encodes the server's answer, behind the opening:
//
//	i32 node | u32 largest batch | u64 bytes in flight
func appendLimits(dst []byte, o opening, l Limits) []byte {
	dst = o.begin(dst)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(l.Node))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(l.MaxBatchBytes))
	return endOpening(binary.LittleEndian.AppendUint64(dst, uint64(l.InFlightBytes)))
}

func decodeLimits(message []byte) (opening, Limits, error) {
	o, rest, err := readOpening(message)
	if err != nil {
		return o, Limits{}, err
	}
	c := cursor{b: rest}
	l := Limits{Node: id.Node(c.u32()), MaxBatchBytes: int(c.u32()), InFlightBytes: int(c.u64())}
	if c.bad {
		return o, Limits{}, kerr.Errorf(kerr.InvalidRequest, "the server's answer to the hello is cut short: %d bytes", len(message))
	}
	return o, l, nil
}

// appendPong encodes the answer to a ping:
//
//	0 u32 length | 4 u8 kind | 5 u8 0, u16 0 | 8 u32 age of the node's knowledge in milliseconds, 2^32-1 for "never knew"
func appendPong(dst []byte, age time.Duration) []byte {
	at := len(dst)
	dst = beginFrame(dst, framePong, 12)
	ms := uint32(math.MaxUint32)
	if age >= 0 {
		ms = uint32(min(age.Milliseconds(), math.MaxUint32-1))
	}
	binary.LittleEndian.PutUint32(dst[at+8:], ms)
	endFrame(dst, at)
	return dst
}

// decodePong returns the age, negative for "never knew".
func decodePong(frame []byte) time.Duration {
	if len(frame) < 12 {
		return 0
	}
	ms := binary.LittleEndian.Uint32(frame[8:])
	if ms == math.MaxUint32 {
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}

// appendThrottle encodes how long a client is to pause, which has used more than its quota:
//
//	0 u32 length | 4 u8 kind | 5 u8 0, u16 0 | 8 u32 milliseconds
func appendThrottle(dst []byte, d time.Duration) []byte {
	at := len(dst)
	dst = beginFrame(dst, frameThrottle, 12)
	ms := (d + time.Millisecond - 1).Milliseconds()
	binary.LittleEndian.PutUint32(dst[at+8:], uint32(min(max(ms, 0), math.MaxUint32)))
	endFrame(dst, at)
	return dst
}

func decodeThrottle(frame []byte) time.Duration {
	if len(frame) < 12 {
		return 0
	}
	return time.Duration(binary.LittleEndian.Uint32(frame[8:])) * time.Millisecond
}

// frameOf returns a frame that is nothing but its kind.
func frameOf(kind byte) []byte {
	f := beginFrame(nil, kind, frameHead)
	endFrame(f, 0)
	return f
}

// acceptHello receives the client's hello and answers it with the limits.
func (s *Server) acceptHello(c *conn, st rawStream, l Limits) error {
	var answer opening
	err := receiveOne(st, func(message []byte) error {
		hello, client, err := decodeClientHello(message)
		if err != nil {
			return err
		}
		c.client = broker.CleanClientID(client)
		c.caller = named(c.caller, c.client)
		answer, err = s.versions.answerTo(hello, nodeName(s.o.Node), "the client")
		return err
	})
	if err != nil {
		return err
	}
	c.established(maxMessage, streamTimeout)
	if err := c.tapStream(st.ID(), 1); err != nil {
		return err
	}
	return transmit(st, appendLimits(nil, answer, l))
}

// client is what produce and fetch streams share on the client's side: the link, its pings, and its end.
type client struct {
	*link
	sendMu  sync.Mutex // held across writes: whoever sends more than TCP takes has to wait
	closed  chan struct{}
	once    sync.Once
	pinging chan struct{} // closed when the pinging goroutine has ended

	opened time.Time
	heard  atomic.Int64 // when something last arrived, since opened
	age    atomic.Int64 // of the node's knowledge, as it last said
	paused atomic.Int64 // since opened: until when the node wants nothing from us, or sends nothing

	mu struct {
		sync.Mutex
		receiving bool // Recv was called: it waits for the goroutines, not Close
	}
}

// openClient opens a produce or fetch stream and fills in the server's limits.
func (d *Dialer) openClient(ctx context.Context, addr, rpc string, l *Limits) (*client, error) {
	welcome := func(message []byte) error {
		answer, limits, err := decodeLimits(message)
		if err == nil {
			_, err = d.spoken().accept(answer, "this client", nodeName(limits.Node))
		}
		*l = limits
		return err
	}
	k, err := d.open(ctx, target{addr, id.NoNode}, rpc, appendClientHello(nil, d.spoken(), d.ClientID), streamTimeout, welcome)
	if err != nil {
		return nil, err
	}
	c := &client{link: k, closed: make(chan struct{}), pinging: make(chan struct{}), opened: time.Now()}
	go c.keepAlive()
	return c, nil
}

// keepAlive pings while the stream lives; the server answers, and so neither side takes the other for dead.
func (c *client) keepAlive() {
	defer close(c.pinging)
	ticker := time.NewTicker(streamPing)
	defer ticker.Stop()
	ping := frameOf(framePing)
	for {
		select {
		case <-ticker.C:
			if c.say(ping) != nil {
				return
			}
		case <-c.closed:
			return
		case <-c.dc.Closed():
			return
		}
	}
}

// say writes one message.
func (c *client) say(message []byte) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if err := c.out.write([][]byte{message}); err != nil {
		return lost(c.addr, err)
	}
	return nil
}

// Silent returns for how long nothing has arrived. The node answers pings, so a second of it means that the node is frozen, or does not
// reach us.
func (c *client) Silent() time.Duration { return time.Since(c.opened) - time.Duration(c.heard.Load()) }

// Age returns how old the node's knowledge of the cluster was when it last answered a ping: since it had word from a majority. Negative: it
// never had since its start.
func (c *client) Age() time.Duration { return time.Duration(c.age.Load()) }

// Throttled returns for how long the node still wants to be sent nothing, or sends nothing itself, because the client has used more than its
// quota. A producer that sends all the same is refused in the end.
func (c *client) Throttled() time.Duration {
	until := c.paused.Load()
	if until == 0 {
		return 0
	}
	return max(time.Duration(until)-time.Since(c.opened), 0)
}

func (c *client) noteThrottle(frame []byte) {
	c.paused.Store(int64(time.Since(c.opened) + decodeThrottle(frame)))
}

// Done is closed when the connection is broken or closed.
func (c *client) Done() <-chan struct{} { return c.dc.Closed() }

// Addr is the address that was dialed.
func (c *client) Addr() string { return c.addr }

// Close closes the connection; what was not answered yet never will be. From any goroutine, also inside Recv's callback: Recv
// returns soon after it.
func (c *client) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.receiving {
		c.mu.receiving = true
		c.join()
		<-c.pinging
	}
	return nil
}

// recv runs the receiving goroutine's loop and cleans up after it.
func (c *client) recv(f onMessage) error {
	c.mu.Lock()
	started := c.mu.receiving
	c.mu.receiving = true
	c.mu.Unlock()
	if started {
		return kerr.Errorf(kerr.NetworkException, "connection to %s is closed", c.addr)
	}
	err := receive(c.conn, c.st, borrowed(func(message []byte) error {
		c.heard.Store(int64(time.Since(c.opened)))
		return f(message)
	}))
	c.once.Do(func() { close(c.closed) })
	c.close()
	c.join()
	<-c.pinging
	return lost(c.addr, err)
}
