package rpc

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/id"
)

var someNews = News{From: 3, To: 9, Last: true, Words: []Word{
	{Group: 2, Leader: id.NoNode, Term: 7},
	{Group: 1 << 40, Leader: 3, Term: math.MaxUint64},
	{Group: 5, Leader: math.MaxInt32 - 1, Term: 1, Led: true, Lagging: 2, InSync: []id.Node{0, math.MaxInt32}},
	{Group: 6, Leader: 0, Led: true},
	{Group: 7, Leader: id.NoNode, Gone: true},
}}

func TestNewsRoundTrip(t *testing.T) {
	for _, n := range []News{someNews, {To: 1}, {To: math.MaxUint64, Last: true}} {
		got, err := decodeNews(appendNews(nil, n), nil)
		if err != nil || !reflect.DeepEqual(got, n) {
			t.Errorf("%+v came back as %+v, %v", n, got, err)
		}
	}
}

func TestNewsRefuseGarbage(t *testing.T) {
	head := appendNews(nil, News{From: 3, To: 9})
	with := func(b ...byte) []byte { return append(slices.Clone(head), b...) }
	number := func(v uint64) []byte { return binary.AppendUvarint(nil, v) }
	for what, b := range map[string][]byte{
		"nothing":               {},
		"a head cut short":      head[:newsHead-1],
		"an unknown flag":       append(slices.Clone(head[:newsHead-1]), 2),
		"counts that go back":   appendNews(nil, News{From: 9, To: 3}),
		"no count":              appendNews(nil, News{}),
		"a group alone":         with(1),
		"an unknown word":       with(1, 4),
		"gone and led":          with(1, wordGone|wordLed),
		"no such leader":        with(append([]byte{1, 0, 1}, number(math.MaxInt32+1)...)...),
		"nobody leads, here":    with(1, wordLed, 1, 0, 0, 0),
		"more nodes than bytes": with(1, wordLed, 1, 1, 0, 200, 1),
		"no such node":          with(append([]byte{1, wordLed, 1, 1, 0, 1}, number(math.MaxUint32)...)...),
		"an endless number":     with(bytes.Repeat([]byte{0xff}, 11)...),
	} {
		if n, err := decodeNews(b, nil); err == nil {
			t.Errorf("%s: decoded as %+v", what, n)
		}
	}
}

func FuzzDecodeNews(f *testing.F) {
	f.Add(appendNews(nil, someNews))
	f.Add(appendNews(nil, News{To: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNews(b, nil)
		if err != nil {
			return
		}
		size := 0
		for i := range n.Words {
			size += n.Words[i].Size()
		}
		if size > 40*len(b) {
			t.Fatalf("%d bytes decoded from %d", size, len(b))
		}
		again, err := decodeNews(appendNews(nil, n), nil)
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Fatalf("%+v came back as %+v, %v", n, again, err)
		}
	})
}

// testTeller has changes that are counted: group i changed at count i+1, in pieces of a few.
type testTeller struct {
	mu      sync.Mutex
	changes []Word
	piece   int
	asked   []uint64
}

func (l *testTeller) Since(count uint64, words []Word) News {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, count)
	n := News{From: count, To: max(count, 1), Words: words}
	for i := int(max(count, 1)) - 1; i < len(l.changes) && len(n.Words) < l.piece; i++ {
		n.Words = append(n.Words, l.changes[i])
		n.To = uint64(i) + 2
	}
	n.Last = int(n.To) == len(l.changes)+1
	return n
}

func (l *testTeller) change(groups ...id.Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range groups {
		l.changes = append(l.changes, Word{Group: g, Leader: 2, Term: 1, Led: true, InSync: []id.Node{2}})
	}
}

// told is what a listener has heard.
type told struct {
	mu      sync.Mutex
	session uint64
	at      uint64
	groups  []id.Group
	anew    int
	deaf    bool // it says that it missed something
	problem string
}

func (h *told) news(from id.Node, session uint64, n News) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case n.From == 0:
		h.anew++
		h.groups = nil
	case n.From != h.at || session != h.session:
		h.problem = "news that do not follow"
	}
	if session < h.session || from != 2 {
		h.problem = "news of an old lane, or of nobody"
	}
	h.session, h.at = session, n.To
	for _, w := range n.Words {
		h.groups = append(h.groups, w.Group)
	}
	return !h.deaf
}

func (h *told) is(groups ...id.Group) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Equal(h.groups, groups)
}

// TestPeersTell: a node hears everything when the lane opens, then what changes, in order, and everything again on the next lane.
func TestPeersTell(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var h told
	peer := newTestPeer(hello(1), nil)
	peer.news = h.news
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	teller := &testTeller{piece: 2}
	teller.change(11, 12, 13, 14, 15)
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Teller: teller})
	defer p.Close()
	p.Reset(1)
	eventually(t, 10*time.Second, "everything is told", func() bool { return h.is(11, 12, 13, 14, 15) })
	teller.change(11, 16)
	p.Tell()
	eventually(t, 10*time.Second, "what changed is told", func() bool { return h.is(11, 12, 13, 14, 15, 11, 16) })
	(*p.byNode.Load())[1].ctl.breakNow()
	eventually(t, 10*time.Second, "everything is told again", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.anew == 2 && h.at == 8
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.problem != "" {
		t.Error(h.problem)
	}
}

// TestTaleAnew: who says with a pong that it missed something is told everything again, but not all the time. What there is to tell waits
// for the gap; nothing is asked for while nothing changes.
func TestTaleAnew(t *testing.T) {
	teller := &testTeller{piece: 10}
	teller.change(11)
	l := newTale(teller, LaneCtl)
	defer l.end()
	l.begin()
	if b := l.next(testVersion); b == nil {
		t.Fatal("nothing is told at the beginning")
	}
	if b := l.next(testVersion); b != nil {
		t.Fatalf("told something that did not change: %x", b)
	}
	l.missed.Store(true)
	if l.look(); l.waits {
		t.Error("everything is told again at once")
	}
	l.began = l.began.Add(-2 * newsAgain)
	if l.look(); !l.waits || l.count != 0 {
		t.Error("what was missed is not told again")
	}
	if b := l.next(testVersion); b == nil {
		t.Error("nothing is told again")
	}
	if l.began = l.began.Add(-2 * newsAgain); l.waits {
		t.Error("told again for no reason")
	}
	l.began = l.began.Add(-2 * newsRefresh)
	if l.look(); !l.waits || l.count != 0 {
		t.Error("nothing is ever refreshed")
	}
}

// TestNewsAreRefused: what is no news ends the lane, and so do news on a bulk lane.
func TestNewsAreRefused(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for what, c := range map[string]struct {
		lane    Lane
		message []byte
	}{
		"garbage":      {LaneCtl, testVersion.seal(append(make([]byte, trainHead), "garbage"...), trainNews)},
		"on bulk lane": {1, testVersion.news(someNews)},
	} {
		peer := newTestPeer(hello(1), nil)
		peer.news = func(id.Node, uint64, News) bool {
			t.Errorf("%s: was taken", what)
			return true
		}
		s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
		h := hello(2)
		h.Target, h.Lane, h.ping = 1, c.lane, time.Second
		d := &Dialer{}
		k, err := d.open(t.Context(), target{s.Addr().String(), id.NoNode}, rpcLane, appendHello(nil, h), 10*time.Second, func([]byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := k.out.write([][]byte{c.message}); err != nil {
			t.Fatal(err)
		}
		if err := receive(k.conn, k.st, borrowed(func([]byte) error { return nil })); err == nil {
			t.Errorf("%s: the lane goes on", what)
		}
		k.close()
		k.join()
		_ = d.Close()
		closeServer(t, s)
	}
}
