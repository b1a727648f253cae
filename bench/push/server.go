package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"storj.io/drpc"
	"storj.io/drpc/drpcserver"
	"storj.io/drpc/drpcwire"
)

// RunServer keeps what it is sent, and pushes it to whoever asks, until the context ends.
func RunServer(ctx context.Context, ready func(address string)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ready(listener.Addr().String())
	return drpcserver.NewWithOptions(&server{}, drpcserver.Options{Manager: managerOptions()}).Serve(ctx, listener)
}

// server holds messages, in the order in which they came.
type server struct {
	mu       sync.Mutex
	messages [][]byte
}

// HandleRPC implements drpc.Handler.
func (s *server) HandleRPC(st drpc.Stream, rpc string) error {
	raw, ok := st.(rawStream)
	switch {
	case ok && rpc == rpcStore:
		return s.store(raw)
	case ok && rpc == rpcPush:
		return s.push(raw)
	}
	return fmt.Errorf("push: there is no call %q", rpc)
}

func (s *server) store(st rawStream) error {
	for {
		if err := receive(st, s.keep); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := transmit(st, nil); err != nil {
			return err
		}
	}
}

func (s *server) keep(message []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, bytes.Clone(message))
	return nil
}

func (s *server) push(st rawStream) error {
	s.mu.Lock()
	messages := s.messages
	s.mu.Unlock()
	for _, m := range messages {
		if err := st.RawWrite(drpcwire.KindMessage, m); err != nil {
			return err
		}
	}
	return st.RawFlush()
}
