package rpc

import (
	"context"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// TestFailEndsRecv: a stream that the server fails is over for its handler, though the client neither reads why nor hangs up, and goes
// on sending.
func TestFailEndsRecv(t *testing.T) {
	done := make(chan error, 1)
	requests := 0
	s := startServer(t, ServerOptions{Services: Services{Produce: func(p *ProduceStream) error {
		err := serve(p, func(ProduceRequest) {
			requests++
			p.Fail(kerr.Errorf(kerr.PolicyViolation, "enough"))
		})
		done <- err
		return err
	}}})
	d := &Dialer{}
	defer d.Close()
	c, err := d.DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Send(ProduceRequest{Batch: make([]byte, 100)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	within(t, 5*time.Second, "Recv returned", done)
	if requests != 1 {
		t.Errorf("%d requests were delivered", requests)
	}
}

// TestCloseWithIdleClients: a server closes although clients never receive and say nothing.
func TestCloseWithIdleClients(t *testing.T) {
	s := startServer(t, ServerOptions{Services: Services{
		Produce: func(p *ProduceStream) error { return serve(p, func(ProduceRequest) {}) },
		Fetch:   func(f *FetchStream) error { return f.Recv(func(FetchCommand) error { return nil }) },
	}})
	d := &Dialer{}
	defer d.Close()
	produce, err := d.DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer produce.Close()
	fetch, err := d.DialFetch(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer fetch.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
