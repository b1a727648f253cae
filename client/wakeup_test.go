package client

import (
	"context"
	"testing"

	"github.com/quorumlog/quorumlog/rpc"
)

// TestSenderIsWokenByAnswersThatCameInBetween plays the sender by hand: it finds the window full, and before it has put its queues
// back all answers arrive.
func TestSenderIsWokenByAnswersThatCameInBetween(t *testing.T) {
	q := newTestQueue(t)
	s := newStream(q.producer, 1, "x")
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.window = 1
	q.stream = s
	q.addForTest(t, 1)
	q.mu.Lock()
	if q.open != nil {
		q.open.due = true
	}
	q.signalLocked()
	q.mu.Unlock()
	<-s.wake
	ready := s.takeReady()
	if len(ready) != 1 {
		t.Fatal(len(ready))
	}
	// What sendOne does with the first batch.
	q.mu.Lock()
	q.listed = false
	b := q.takeLocked()
	b.wire = []byte("0123456789")
	corr, ok := s.registerLocked(q, b)
	q.mu.Unlock()
	if !ok {
		t.Fatal("register")
	}
	// Another batch, listed again.
	q.addForTest(t, 1)
	q.mu.Lock()
	if q.open != nil {
		q.open.due = true
	}
	q.signalLocked()
	q.mu.Unlock()
	<-s.wake
	queues := s.takeReady()
	if len(queues) != 1 || !s.full() {
		t.Fatal(len(queues), s.full())
	}
	// The sender is descheduled here; the answer comes.
	s.answer(rpc.ProduceResponse{Correlation: corr, BaseOffset: 0})
	// And it goes on.
	s.putBack(queues)
	select {
	case <-s.wake:
	default:
		t.Fatalf("asleep for ever: ready=%d full=%v listed=%v", len(s.mu.ready), s.full(), q.listed)
	}
}
