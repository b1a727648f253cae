package rpc

import (
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"storj.io/drpc/drpcstream"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
	"github.com/quorumlog/quorumlog/wal/id"
)

// laneKey names a lane of another node to this one.
type laneKey struct {
	node id.Node
	lane Lane
}

// inbound is the receiving end of a lane. A node has one of each number at a time: a newer one of the same process supersedes the older,
// whose end is then no news. All of a node's are one process's.
type inbound struct {
	conn    *conn
	who     incarnation
	session uint64 // its number among all lanes that were let in
}

// serveLane receives the lane of another node until it ends. This goroutine only receives; pongs have their own.
func (s *Server) serveLane(c *conn, st *drpcstream.Stream) error {
	var hello PeerHello
	err := receiveOne(st, func(message []byte) (err error) {
		hello, err = decodeHello(message)
		return err
	})
	if err == nil {
		if err = s.checkHello(c, hello); err != nil {
			s.counts.lanesRefused.Add(1)
			s.complainOfIdentity(c, err)
		}
	}
	if err != nil {
		return err
	}
	in := &inbound{conn: c, who: hello.incarnation()}
	key := laneKey{hello.Node, hello.Lane}
	self, registered, err := s.welcome(hello, in, key)
	if err != nil {
		s.counts.lanesRefused.Add(1)
		return err
	}
	if registered { // without certificates this is as much as can be known of a node
		s.proven(c)
	}
	defer s.leave(key, in)
	c.established(maxTrain, missedPings*self.ping)
	c.intake = nil // other nodes are few
	if err := c.tapStream(st.ID(), 1); err != nil {
		return err
	}
	if err := transmit(st, appendHello(nil, self)); err != nil {
		return err
	}
	if hello.Lane == LaneCtl {
		s.o.Services.Peer.PeerOpened(hello.Node)
	}
	version := trainVersionOf(self.picked)
	var missed atomic.Bool // something of what it tells
	echo := newEcho(func() error { return transmit(st, version.pong(missed.Load())) })
	defer func() {
		c.hurry()
		echo.close()
	}()
	told := func(h Health) {
		if hello.Lane == LaneCtl {
			s.o.Services.Peer.Health(hello.Node, h)
		}
	}
	told(hello.Health)
	var words []Word
	news := func(heads []byte) error {
		n, err := decodeNews(heads, words[:0])
		if err != nil {
			return err
		}
		missed.Store(!s.o.Services.Peer.News(hello.Node, in.session, n))
		words = clearWords(n.Words)
		return nil
	}
	step := func(g id.Group, m *raftpb.Message, data Loan) { s.o.Services.Peer.Step(hello.Node, g, m, data) }
	err = receive(c, st, func(message *memory.Buffer) error {
		defer message.Release()
		kind, heads, bodies, err := version.open(message.Bytes)
		switch {
		case err != nil:
			return err
		case kind == trainMessages:
			err := decodeTrain(heads, bodies, message, step)
			s.o.Services.Peer.Stepped()
			return err
		case kind == trainPing:
			h, err := decodePing(heads)
			if err != nil {
				return err
			}
			echo.send()
			told(h)
			return nil
		case kind == trainNews && hello.Lane == LaneCtl && len(bodies) == 0:
			return news(heads)
		}
		return errUnexpected(kind)
	})
	if hello.Lane == LaneCtl && errors.Is(err, os.ErrDeadlineExceeded) {
		s.lines.Log(s.log, slog.LevelWarn, "closed the control lane of a silent node", "node", hello.Node, "silent", missedPings*self.ping)
	}
	if code := kerr.CodeOf(err); code == kerr.CorruptMessage || code == kerr.InvalidRequest {
		s.lines.Log(s.log, slog.LevelWarn, "closed a lane that carried what it should not", "node", hello.Node, "lane", hello.Lane, "reason", err.Error())
	}
	if hungUp(err) {
		return nil
	}
	return err
}

// welcome enters a lane and returns the answer to its hello, and whether the node is registered; or refuses it, and then nothing has changed.
func (s *Server) welcome(hello PeerHello, in *inbound, key laneKey) (self PeerHello, known bool, err error) {
	self, registered, err := s.o.Services.Peer.Hello(hello)
	if err != nil {
		return self, false, err
	}
	self = self.withDefaults()
	answer, err := self.Versions.answerTo(hello.opening(), nodeName(self.Node), nodeName(hello.Node))
	if err != nil {
		return self, false, err
	}
	self.Lane, self.Target, self.picked = hello.Lane, hello.Node, answer.picked
	self.ping = min(max(hello.ping, 10*time.Millisecond), 10*time.Second)
	return self, registered != 0, s.enter(key, in, registered)
}

// complainOfIdentity says that somebody is not who it says: an operator has mixed up certificates, or worse.
func (s *Server) complainOfIdentity(c *conn, err error) {
	s.lines.Log(s.log, slog.LevelWarn, "refused what only nodes may do", "remote", c.RemoteAddr().String(), "principal", c.caller.Principal.String(),
		"reason", err.Error())
}

// enter makes a lane the node's one of its number. Of another process of the node all lanes are closed, if it may be displaced.
func (s *Server) enter(key laneKey, in *inbound, registered uint64) error {
	var closed []*inbound
	defer func() {
		for _, old := range closed {
			_ = old.conn.Close()
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctl := s.mu.lanes[laneKey{key.node, LaneCtl}]; ctl != nil && ctl != in {
		if err := displace(key.node, ctl.who, in.who, registered); err != nil {
			return err
		}
	}
	for k, old := range s.mu.lanes {
		if k.node == key.node && (k == key || old.who != in.who) {
			closed = append(closed, old)
			delete(s.mu.lanes, k)
		}
	}
	s.mu.sessions++
	in.session = s.mu.sessions
	s.mu.lanes[key] = in
	return nil
}

// leave takes a lane out, and reports the end of a node's control lane unless a newer one is there.
func (s *Server) leave(key laneKey, in *inbound) {
	s.mu.Lock()
	newest := s.mu.lanes[key] == in
	if newest {
		delete(s.mu.lanes, key)
	}
	s.mu.Unlock()
	if newest && key.lane == LaneCtl && s.closing.Err() == nil {
		s.o.Services.Peer.PeerClosed(key.node, in.session)
	}
}

// echo answers pings: one goroutine that does so whenever it was asked to since the last time. Receiving goroutines ask and never
// wait.
type echo struct {
	asked chan struct{} // capacity 1
	ended chan struct{}
}

func newEcho(answer func() error) *echo {
	e := &echo{asked: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		for range e.asked {
			if answer() != nil {
				return // the receiving side will learn why
			}
		}
	}()
	return e
}

func (e *echo) send() {
	select {
	case e.asked <- struct{}{}:
	default:
	}
}

// close ends the goroutine and waits for it. Not concurrently with send.
func (e *echo) close() {
	close(e.asked)
	<-e.ended
}
