package rpc

import (
	"bytes"
	"net"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/wal/id"
)

// piped is a listener whose connections are pipes that the test makes.
type piped struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPiped() *piped { return &piped{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *piped) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzServer has strangers say whatever they like to a whole server: it neither panics nor keeps anything of them once they are gone.
func FuzzServer(f *testing.F) {
	said := func(name string, messages ...[]byte) []byte {
		b := invoke(name)
		for i, m := range messages {
			b = append(b, wireFrame(drpcwire.KindMessage, 1, uint64(i+2), m)...)
		}
		return b
	}
	client := appendClientHello(nil, Spoken, "stranger")
	request := append(appendRequestHead(nil, ProduceRequest{Correlation: 1, Acks: AcksAll, Batch: []byte("batch")}), "batch"...)
	half := drpcwire.AppendFrame(nil, drpcwire.Frame{ID: drpcwire.ID{Stream: 1, Message: 3}, Kind: drpcwire.KindMessage, Data: make([]byte, frameBytes)})
	for _, b := range [][]byte{
		nil, {0}, []byte("GET / HTTP/1.1\r\n\r\n"), invoke(rpcProduce), claim(drpcwire.KindInvoke, 1, 1, 1<<30),
		said(rpcProduce, nil), said(rpcFetch, nil), said(rpcLane, nil), // no hello is an empty one
		said(rpcProduce, client, request), said(rpcProduce, client, frameOf(framePing)), said(rpcProduce, client, []byte{1, 0, 0, 0, 77}),
		join(said(rpcProduce, client), half, half),
		said(rpcFetch, client, appendCommand(nil, FetchCommand{Kind: Subscribe, Subscription: 7, Credit: -1}), frameOf(framePing)),
		said(rpcFetch, client, appendCommand(nil, FetchCommand{Kind: Credit, Subscription: 7, Credit: 1 << 62})),
		said(rpcLane, helloTo(1, hello(2), 20*time.Millisecond), trainOf(nil, heartbeat(1)).wire()),
		said(rpcLane, helloTo(1, hello(2), 0), noiseTrain()),
		said("/quorumlog.Admin/Metadata", []byte{10, 1, 'a'}), said("/quorumlog.Admin/CreateTopic", bytes.Repeat([]byte{0xff}, 100)), said("/no.Such/Call", nil),
		join(wireFrame(drpcwire.KindInvokeMetadata, 1, 1, []byte{10, 4, 10, 0, 18, 0}), said("/quorumlog.Admin/Metadata", nil)),
	} {
		f.Add(b)
	}
	listener := newPiped()
	s, err := NewServer(ServerOptions{Listener: listener, Node: 1, Services: Services{
		Admin: &adminServer{},
		Peer:  discardingPeer{hello(1)},
		Produce: func(p *ProduceStream) error {
			return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{Correlation: r.Correlation}) })
		},
		Fetch: func(f *FetchStream) error { return f.Recv(func(FetchCommand) error { return nil }) },
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { closeServer(f, s) })
	f.Fuzz(func(t *testing.T, b []byte) {
		theirs, ours := net.Pipe()
		listener.conns <- ours
		read := make(chan struct{})
		go func() {
			defer close(read)
			buf := make([]byte, 4096)
			for {
				if _, err := theirs.Read(buf); err != nil {
					return
				}
			}
		}()
		_ = theirs.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = theirs.Write(b)
		_ = theirs.Close()
		<-read
		eventually(t, 20*time.Second, "the stranger is forgotten", func() bool { return s.Metrics().Connections == 0 })
		if n := s.Metrics().Panics; n > 0 {
			t.Fatalf("%d panics", n)
		}
		if !s.bounds.intake.room.TryAcquire(defaultReceive) {
			t.Fatal("memory of messages is lost")
		}
		s.bounds.intake.room.Release(defaultReceive)
		if n, m := s.bounds.answers.Used(), s.bounds.requests.Used(); n+m != 0 {
			t.Fatalf("%d bytes of answers and %d of requests are held by nobody", n, m)
		}
	})
}

// discardingPeer takes what other nodes say and forgets it.
type discardingPeer struct{ self PeerHello }

func (p discardingPeer) Hello(h PeerHello) (PeerHello, uint64, error) {
	return p.self, 0, CheckHello(p.self, h, 0)
}
func (discardingPeer) PeerOpened(id.Node)                                    {}
func (discardingPeer) Step(_ id.Node, _ id.Group, _ *raftpb.Message, _ Loan) {}
func (discardingPeer) Stepped()                                              {}
func (discardingPeer) Health(id.Node, Health)                                {}
func (discardingPeer) News(id.Node, uint64, News) bool                       { return true }
func (discardingPeer) PeerClosed(id.Node, uint64)                            {}

// FuzzOpenings: what is taken for the beginning of a stream is one, and comes out as it went in.
func FuzzOpenings(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, openingHead))
	f.Add(endOpening(opening{versions: Spoken}.begin(nil)))
	f.Add(appendClientHello(nil, Spoken, ""))
	f.Add(appendClientHello(nil, Versions{0, 65535}, "me\n"))
	f.Add(appendHello(nil, hello(2)))
	f.Add(appendLimits(nil, opening{versions: Spoken, picked: Protocol, release: Release}, Limits{Node: -1, MaxBatchBytes: 1 << 30, InFlightBytes: -1}))
	f.Fuzz(func(t *testing.T, message []byte) {
		sealed := append([]byte(nil), message...)
		if len(sealed) > openingHead { // past the sum, which would stop nearly all
			sealed = endOpening(sealed)
		}
		o, rest, err := readOpening(sealed)
		if err != nil {
			if _, _, err := decodeClientHello(sealed); err == nil {
				t.Fatal("a hello without an opening")
			}
			if _, err := decodeHello(sealed); err == nil {
				t.Fatal("a lane's hello without an opening")
			}
			return
		}
		if len(sealed) <= openingHead || len(rest) > len(sealed)-openingHead || o.versions.Oldest > o.versions.Newest {
			t.Fatalf("%d bytes are an opening %+v with a rest of %d", len(sealed), o, len(rest))
		}
		if _, name, err := decodeClientHello(sealed); err == nil && len(name) > 255 {
			t.Fatal("a name out of nothing")
		}
		if h, err := decodeHello(sealed); err == nil {
			again, err := decodeHello(appendHello(nil, h))
			if again.Release = h.Release; err != nil || again != h { // the name is cleaned
				t.Fatalf("%+v became %+v, %v", h, again, err)
			}
		}
	})
}

// TestThrottleFrames: how long to pause arrives as it was said, and nonsense is no pause.
func TestThrottleFrames(t *testing.T) {
	for said, want := range map[time.Duration]time.Duration{
		time.Millisecond: time.Millisecond, time.Microsecond: time.Millisecond, 90 * time.Second: 90 * time.Second, -1: 0, 1 << 62: (1<<32 - 1) * time.Millisecond,
	} {
		if got := decodeThrottle(appendThrottle(nil, said)); got != want {
			t.Errorf("%v arrives as %v", said, got)
		}
	}
	if got := decodeThrottle(frameOf(frameThrottle)); got != 0 {
		t.Error(got)
	}
	c := &client{opened: time.Now()}
	if c.Throttled() != 0 {
		t.Error("paused before it was told")
	}
	c.noteThrottle(appendThrottle(nil, time.Hour))
	if got := c.Throttled(); got < 59*time.Minute || got > time.Hour {
		t.Error(got)
	}
	c.noteThrottle(appendThrottle(nil, 0)) // the newest counts
	if c.Throttled() != 0 {
		t.Error("still paused")
	}
}
