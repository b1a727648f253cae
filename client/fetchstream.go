package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// frozenAfter is after how long without a sign of life from a node, which is asked for one twice a second, the consumer asks others
// whether it still leads.
const frozenAfter = time.Second

// fetchStream is one connection of a consumer to one node, from the dial to the first error. It has two goroutines: run dials
// and sends, the other one only receives.
type fetchStream struct {
	consumer *Consumer
	node     id.Node
	addr     string
	began    time.Time
	ctx      context.Context
	cancel   context.CancelFunc
	wake     chan struct{}
	conn     atomic.Pointer[rpc.FetchConn]

	subscriptions map[uint32]*cursor // guarded by the consumer's mutex

	mu struct {
		sync.Mutex
		commands []rpc.FetchCommand // to be sent
		events   int
		err      error
	}
}

func newFetchStream(c *Consumer, node id.Node, addr string) *fetchStream {
	s := &fetchStream{consumer: c, node: node, addr: addr, began: time.Now(), wake: make(chan struct{}, 1), subscriptions: make(map[uint32]*cursor)}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// command queues a command. There is at most one of each kind for a quarter of the credit, so the list stays short.
func (s *fetchStream) command(cmd rpc.FetchCommand) {
	s.mu.Lock()
	s.mu.commands = append(s.mu.commands, cmd)
	s.mu.Unlock()
	poke(s.wake)
}

// doubtful tells whether the node may be frozen or cut off: then others have to be asked who leads. It is not left for that alone, since it
// may be this process that was frozen, or there is nobody else.
func (s *fetchStream) doubtful(now time.Time) bool {
	conn := s.conn.Load()
	if conn == nil {
		return now.Sub(s.began) > dialDoubt
	}
	return conn.Silent() > frozenAfter || stale(conn.Age())
}
