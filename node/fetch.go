package node

import (
	"context"

	"github.com/quorumlog/quorumlog/node/fetching"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fetchSession is one consumer's connection: a session that waits for records, on a stream on which they are pushed for as long as the
// consumer grants credit. Two goroutines: the stream's receiver takes commands (never blocking, never sending), and push sends.
type fetchSession struct {
	node    *Node
	stream  *rpc.FetchStream
	waiting *fetching.Session
}

// fetch serves one consumer until its stream ends.
func (n *Node) fetch(stream *rpc.FetchStream) error {
	s := &fetchSession{node: n, stream: stream, waiting: n.fetching.NewSession()}
	defer s.waiting.Close()
	ctx, cancel := context.WithCancel(stream.Context())
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		defer cancel()
		s.push(ctx)
	}()
	err := stream.Recv(s.receive)
	cancel()
	<-pushed
	return err
}

func (s *fetchSession) receive(c rpc.FetchCommand) error {
	subscription := fetching.ID(c.Subscription)
	switch c.Kind {
	case rpc.Subscribe:
		want := fetching.Subscription{ID: subscription, Limit: partition.ToHighWatermark, Offset: c.Offset, Credit: c.Credit}
		if p := s.node.replicas.find(c.Topic, c.Partition); p != nil {
			want.Partition = p
		}
		return s.waiting.Subscribe(want)
	case rpc.Credit:
		return s.waiting.Credit(subscription, c.Credit)
	case rpc.Unsubscribe:
		s.waiting.Unsubscribe(subscription)
	}
	return nil
}

// push sends what there is to send, and sleeps when there is nothing.
func (s *fetchSession) push(ctx context.Context) {
	for {
		for served := true; served; {
			var err error
			if served, err = s.waiting.Serve(s); err != nil {
				return // the stream is gone
			}
		}
		if s.stream.Flush() != nil || s.waiting.Wait(ctx) != nil {
			return
		}
	}
}

// Append implements fetching.Sink.
func (s *fetchSession) Append(e fetching.Event) error { return s.stream.Append(eventOf(e)) }

// AppendRead implements fetching.Sink.
func (s *fetchSession) AppendRead(e fetching.Event, read func(dst []byte) ([]byte, error)) error {
	return s.stream.AppendRead(eventOf(e), read)
}

func eventOf(e fetching.Event) rpc.FetchEvent {
	event := rpc.FetchEvent{Subscription: uint32(e.Subscription), HighWatermark: e.Limit, LogStart: e.LogStart, Leader: id.NoNode}
	if e.Err == nil {
		return event
	}
	why := toRPC(e.Err)
	event.Code, event.Message = why.Code, why.Message
	event.Leader, event.Epoch = leaderOfRefusal(why, groupOf(e.Partition))
	return event
}

// groupOf returns the Raft group of a partition that has one, else nil.
func groupOf(p fetching.Partition) *raftgroup.Group {
	if p, ok := p.(*partition.Partition); ok {
		return p.Group()
	}
	return nil
}
