package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/wal/batch"
)

// consumer has one stream per server and a goroutine that receives from it. A message is visited where drpc received it: its
// receiver waits inside the callback until Poll is done with it, and no byte is copied.
type consumer struct {
	links      []*link
	partitions int
	reader     batch.Reader // Poll's
	closed     chan struct{}
	running    sync.WaitGroup

	arrived chan arrival // closed when all streams have ended
	failed  chan error
}

// arrival is a message of which the bytes are valid until something is sent to done.
type arrival struct {
	message []byte
	done    chan<- error
}

func newConsumer(ctx context.Context, addresses []string, partitions int) (*consumer, error) {
	links, err := dialAll(ctx, addresses, rpcPush)
	if err != nil {
		return nil, err
	}
	c := &consumer{
		links: links, partitions: partitions, closed: make(chan struct{}), arrived: make(chan arrival), failed: make(chan error, len(links)),
	}
	for _, l := range links {
		c.running.Go(func() { c.receive(l) })
	}
	go func() {
		c.running.Wait()
		close(c.arrived)
	}()
	return c, nil
}

// receive hands over the messages of one stream until it ends.
func (c *consumer) receive(l *link) {
	done := make(chan error, 1)
	handOver := func(message []byte) error {
		select {
		case c.arrived <- arrival{message, done}:
			return <-done
		case <-c.closed:
			return errClosed
		}
	}
	for {
		if err := receive(l.stream, handOver); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			c.failed <- err
			return
		}
	}
}

var errClosed = errors.New("push: the consumer is closed")

// Poll implements bench.Consumer: one message of whichever server has one. io.EOF says that the servers have sent everything.
func (c *consumer) Poll(ctx context.Context, visit func(bench.Message)) error {
	select {
	case a, ok := <-c.arrived:
		if !ok {
			return c.end()
		}
		err := visitMessage(a.message, &c.reader, c.partitions, visit)
		a.done <- err
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end says how the streams have ended.
func (c *consumer) end() error {
	select {
	case err := <-c.failed:
		return fmt.Errorf("push: a stream broke: %w", err)
	default:
		return io.EOF
	}
}

// Close implements bench.Consumer. It may be called twice.
func (c *consumer) Close() error {
	select {
	case <-c.closed:
		return nil
	default:
		close(c.closed) // a receiver may be waiting inside drpc, which then cannot close
	}
	err := closeAll(c.links)
	c.running.Wait()
	return err
}
