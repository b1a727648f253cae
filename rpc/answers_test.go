package rpc

import (
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/id"
)

// producing opens a produce stream whose sockets hold as little as they may, and returns both ends. What the client asks is ignored: the
// answers are the test's.
func producing(t *testing.T) (*Server, *ProduceStream, *ProduceConn) {
	t.Helper()
	const few = 32 << 10
	streams := make(chan *ProduceStream, 1)
	s := startServer(t, ServerOptions{
		WrapConn: func(c net.Conn) net.Conn {
			_ = c.(*net.TCPConn).SetWriteBuffer(few)
			return c
		},
		Services: Services{Produce: func(p *ProduceStream) error {
			streams <- p
			return serve(p, func(ProduceRequest) {})
		}},
	})
	d := &Dialer{WrapConn: func(c net.Conn) (net.Conn, error) { return c, c.(*net.TCPConn).SetReadBuffer(few) }}
	c, err := d.DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, within(t, time.Second, "the stream is served", streams), c
}

// stutter has the socket take only some bytes of each small message, as when it is nearly full.
func stutter(p *ProduceStream, some func(n int) int) {
	p.writing.Lock()
	defer p.writing.Unlock()
	f := p.writing.framer
	f.try = func(fd uintptr) bool {
		f.tried.n, f.tried.err = writeSome(fd, f.small[:some(len(f.small))])
		return true
	}
}

// sizeOf is how long the n-th answer is: most are short, some too long for Flush to write them itself.
func sizeOf(n uint64) int {
	if n%50 == 49 {
		return smallAnswers + int(n%5000)
	}
	return 20 + int(n*7%301)
}

func textOf(n uint64) string { return strings.Repeat(string(rune('a'+n%26)), sizeOf(n)) }

// answer sends the n-th answer.
func answer(p *ProduceStream, n uint64) {
	p.Send(ProduceResponse{Correlation: n, BaseOffset: id.Offset(n) + 5, Leader: 3, Message: textOf(n)})
}

// reader is a client that expects answers 0, 1, 2 and so on, each whole.
type reader struct {
	t     *testing.T
	next  uint64
	total uint64 // close the stream after so many; 0: never
	c     *ProduceConn
}

// run receives until the stream ends, and returns why.
func (r *reader) run() error {
	return r.c.Recv(func(got ProduceResponse) {
		want := ProduceResponse{Correlation: r.next, BaseOffset: id.Offset(r.next) + 5, Leader: 3, Message: textOf(r.next)}
		if got != want {
			r.t.Errorf("answer %d of %d bytes, offset %d; %d of %d bytes was expected",
				got.Correlation, len(got.Message), got.BaseOffset, want.Correlation, len(want.Message))
			_ = r.c.Close()
		}
		if r.next++; r.next == r.total {
			_ = r.c.Close()
		}
	})
}

// queuedBytes is what waits to be written.
func queuedBytes(p *ProduceStream) int {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	return p.out.mu.bytes
}

// fill sends and flushes more answers than the sockets hold, and returns how many.
func fill(p *ProduceStream) (sent uint64) {
	for bytes := 0; bytes < 1<<20; sent++ {
		answer(p, sent)
		p.Flush()
		bytes += answerHead + sizeOf(sent)
	}
	return sent
}

// halfWritten tells whether there is a message of which the socket has taken a part.
func halfWritten(p *ProduceStream) bool {
	p.writing.Lock()
	defer p.writing.Unlock()
	f := p.writing.framer
	return len(f.rest) > 0 && len(f.rest) < len(f.small)
}

// TestAnswersArriveWholeAndInOrder has many goroutines send and flush at once to a client that at first does not read, and then does
// while they go on.
func TestAnswersArriveWholeAndInOrder(t *testing.T) {
	for _, tc := range []string{"as the socket takes them", "in part"} {
		t.Run(tc, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			s, p, c := producing(t)
			defer closeServer(t, s)
			if tc == "in part" {
				rng := rand.New(rand.NewPCG(1, 2))
				stutter(p, func(n int) int { return rng.IntN(n + 1) })
			}
			const senders, each = 4, 600
			var order sync.Mutex // of the answers, not of the flushes
			next := uint64(0)
			send := func() {
				var all sync.WaitGroup
				for g := range senders {
					all.Go(func() {
						rng := rand.New(rand.NewPCG(3, uint64(g)))
						for range each {
							order.Lock()
							answer(p, next)
							next++
							order.Unlock()
							if rng.IntN(3) == 0 {
								p.Flush()
							}
						}
						p.Flush()
					})
				}
				all.Wait()
			}
			send()
			if queuedBytes(p) == 0 {
				t.Fatal("the socket is not full")
			}
			r := &reader{t: t, total: 2 * senders * each, c: c}
			done := make(chan error, 1)
			go func() { done <- r.run() }()
			send()
			within(t, 5*time.Second, "all answers came", done)
			if r.next != r.total {
				t.Errorf("%d of %d answers came", r.next, r.total)
			}
		})
	}
}

// TestSentGoesWithTheNextFlush: what was sent without Flush, and by whomever, is written with the next Flush, before what was sent later.
func TestSentGoesWithTheNextFlush(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s, p, c := producing(t)
	defer closeServer(t, s)
	r := &reader{t: t, c: c, total: 12}
	done := make(chan error, 1)
	for n := uint64(0); n < r.total; n++ {
		answer(p, n)
		if n%4 == 3 {
			p.Flush()
		}
		if queued := queuedBytes(p); n%4 != 3 && queued == 0 {
			t.Errorf("answer %d did not wait for its Flush", n) // nor must it, but then there is nothing to test
		}
	}
	go func() { done <- r.run() }()
	within(t, 2*time.Second, "all answers came", done)
	if r.next != r.total {
		t.Errorf("%d of %d answers came", r.next, r.total)
	}
}

// TestFlushIsEnough: what Flush does not write itself is written all the same, and Flush does not wait for it.
func TestFlushIsEnough(t *testing.T) {
	for _, tc := range []struct {
		name  string
		first uint64
		flush func(p *ProduceStream)
	}{
		{"all of it", 0, (*ProduceStream).Flush},
		{"too much", 49, (*ProduceStream).Flush},
		{"half of it", 0, func(p *ProduceStream) {
			stutter(p, func(n int) int { return n / 2 })
			p.Flush()
		}},
		{"nothing of it", 0, func(p *ProduceStream) {
			stutter(p, func(int) int { return 0 })
			p.Flush()
		}},
		{"somebody writes", 0, func(p *ProduceStream) {
			p.writing.Lock()
			defer p.writing.Unlock()
			p.Flush()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			s, p, c := producing(t)
			defer closeServer(t, s)
			answer(p, tc.first)
			tc.flush(p)
			r := &reader{t: t, c: c, next: tc.first, total: tc.first + 1}
			done := make(chan error, 1)
			go func() { done <- r.run() }()
			within(t, 2*time.Second, "the answer came", done)
		})
	}
}

// TestSmallDoesNotOvertake: who writes little writes nothing while there is something before it.
func TestSmallDoesNotOvertake(t *testing.T) {
	o := newOutbox(answersBound, budget.NewFair(2*answersBound, firstTrain).Share(2*answersBound))
	put := func(b string) {
		if !o.begin(len(b)) {
			t.Fatal("no room")
		}
		o.end(append(o.train(), b...))
	}
	large := strings.Repeat("l", trainBytes)
	put(large)
	put("small")
	if train := o.takeSmall(smallAnswers); train != nil {
		t.Errorf("%d bytes were taken, %d wait before them", len(train.Bytes), trainBytes)
	}
	if train := o.take(); string(train.Bytes) != large {
		t.Errorf("%d bytes were taken", len(train.Bytes))
	}
	if train := o.takeSmall(smallAnswers); string(train.Bytes) != "small" {
		t.Errorf("%q was taken", train.Bytes)
	}
	put(strings.Repeat("m", smallAnswers+1))
	if train := o.takeSmall(smallAnswers); train != nil {
		t.Errorf("%d bytes are little", len(train.Bytes))
	}
}

// TestFailCompletesWhatIsHalfWritten fails a stream in the middle of a message: the client gets all that was sent before, whole, and then
// the reason.
func TestFailCompletesWhatIsHalfWritten(t *testing.T) {
	reason := &kerr.Error{Code: kerr.PolicyViolation, Message: "enough", Leader: 2}
	fails := func(t *testing.T, p *ProduceStream, c *ProduceConn, sent uint64) {
		t.Helper()
		p.Fail(reason)
		r := &reader{t: t, c: c}
		done := make(chan error, 1)
		go func() { done <- r.run() }()
		var e *kerr.Error
		if err := within(t, 3*time.Second, "the stream ended", done); !errors.As(err, &e) || *e != *reason {
			t.Errorf("the stream ended with %v", err)
		}
		if r.next != sent {
			t.Errorf("%d of %d answers came", r.next, sent)
		}
	}
	t.Run("before anybody completes it", func(t *testing.T) {
		defer leaktest.AfterTest(t)()
		s, p, c := producing(t)
		defer closeServer(t, s)
		halve(t, p)
		answer(p, 1)
		fails(t, p, c, 2)
	})
	t.Run("with a full socket", func(t *testing.T) {
		defer leaktest.AfterTest(t)()
		s, p, c := producing(t)
		defer closeServer(t, s)
		fails(t, p, c, fill(p))
	})
}

// halve sends answer 0, of which the socket takes a half. Nobody is told to complete it: as when the sending goroutine waits for a
// processor.
func halve(t *testing.T, p *ProduceStream) {
	t.Helper()
	stutter(p, func(n int) int { return n / 2 })
	answer(p, 0)
	if p.writeSmall() || !halfWritten(p) {
		t.Fatal("the message is not half written")
	}
}

// TestFailOfAClientThatDoesNotRead: when it reads after all it finds whole answers, in order, and then a connection that is gone. What
// could not be completed is followed by nothing.
func TestFailOfAClientThatDoesNotRead(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s, p, c := producing(t)
	defer closeServer(t, s)
	sent := fill(p)
	p.Fail(kerr.Errorf(kerr.PolicyViolation, "enough"))
	eventually(t, 3*time.Second, "the server gave up", func() bool { return s.Metrics().Connections == 0 })
	r := &reader{t: t, c: c}
	done := make(chan error, 1)
	go func() { done <- r.run() }()
	if err := within(t, 3*time.Second, "the stream ended", done); kerr.CodeOf(err) != kerr.NetworkException {
		t.Errorf("the stream ended with %v", err)
	}
	if r.next == 0 || r.next == sent {
		t.Errorf("%d of %d answers came", r.next, sent)
	}
}

// TestClosingServerCompletesWhatIsHalfWritten: the server's last word does not come in the middle of an answer either.
func TestClosingServerCompletesWhatIsHalfWritten(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s, p, c := producing(t)
	halve(t, p)
	r := &reader{t: t, c: c}
	done := make(chan error, 1)
	go func() { done <- r.run() }()
	closeServer(t, s)
	if err := within(t, 3*time.Second, "the stream ended", done); kerr.CodeOf(err) != kerr.BrokerNotAvailable {
		t.Errorf("the stream ended with %v", err)
	}
	if r.next != 1 {
		t.Errorf("%d answers came", r.next)
	}
}
