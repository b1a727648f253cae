package rpc

import (
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TestCloseInTheMiddleOfAnAnswer closes the server in the moment when Flush has left a message half written and nobody has completed it
// yet. The client must see whole answers and then why the stream ended, not the reason for the rest of an answer.
func TestCloseInTheMiddleOfAnAnswer(t *testing.T) {
	half := make(chan struct{})
	answer := ProduceResponse{Leader: 7, Epoch: 9, Message: "abc"}
	s := startServer(t, ServerOptions{Node: 1, Services: Services{Produce: func(p *ProduceStream) error {
		go func() {
			defer close(half)
			for small := true; small; small = p.writeSmall() { // Flush would wake the sending goroutine at the end
				for range 200 {
					answer.Correlation++
					answer.BaseOffset = id.Offset(answer.Correlation)
					p.Send(answer)
				}
			}
		}()
		return serve(p, func(ProduceRequest) {})
	}}})
	c, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	<-half
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		closeServer(t, s)
	}()
	<-s.closing.Done()
	last := uint64(0)
	err = c.Recv(func(r ProduceResponse) {
		last++
		if r.Correlation != last || r.BaseOffset != id.Offset(last) || r.Leader != 7 || r.Epoch != 9 || r.Message != "abc" {
			t.Errorf("answer %d: %+v", last, r)
		}
	})
	if CodeOf(err) != CodeBrokerNotAvailable {
		t.Errorf("after %d answers the client sees: %v", last, err)
	}
	<-closed
}
