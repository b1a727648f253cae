package push

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"storj.io/drpc/drpcconn"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// link is the client's end of one stream, on a connection of its own.
type link struct {
	conn   *drpcconn.Conn
	stream rawStream
}

// dial opens a stream, which ends with the context.
func dial(ctx context.Context, address, rpc string) (*link, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := drpcconn.NewWithOptions(c, drpcconn.Options{Manager: managerOptions()})
	st, err := conn.NewStream(ctx, rpc, callback{})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &link{conn, st.(rawStream)}, nil
}

// dialAll opens a stream to each server.
func dialAll(ctx context.Context, addresses []string, rpc string) (links []*link, err error) {
	for _, a := range addresses {
		l, err := dial(ctx, a, rpc)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("push: cannot reach a server: %w", err), closeAll(links))
		}
		links = append(links, l)
	}
	return links, nil
}

func closeAll(links []*link) (err error) {
	for _, l := range links {
		err = errors.Join(err, l.conn.Close())
	}
	return err
}

// serverOf spreads the partitions over the servers, as leaders are spread over nodes.
func serverOf(partition, servers int) int { return partition % servers }

// producer fills the servers, which is not measured: it sends one message at a time and waits for its answer.
type producer struct {
	links []*link
	open  []batch.Builder // by partition
	next  []int64         // offset of the first record in it
	limit int             // bytes of a batch
	ended func(bench.Outcome)

	message []byte // the last one's memory
}

func newProducer(ctx context.Context, addresses []string, w bench.Workload, partitions int, ended func(bench.Outcome)) (*producer, error) {
	links, err := dialAll(ctx, addresses, rpcStore)
	if err != nil {
		return nil, err
	}
	return &producer{
		links: links, open: make([]batch.Builder, partitions), next: make([]int64, partitions),
		limit: min(int(w.Batch), messageBytes-messageHead), ended: ended,
	}, nil
}

// Send implements bench.Producer.
func (p *producer) Send(_ context.Context, partition int, key, value []byte) error {
	r := batch.Record{Timestamp: time.Now().UnixMilli(), Key: key, Value: value}
	b := &p.open[partition]
	if b.Count() > 0 && b.LenWith(r) > p.limit {
		if err := p.store(partition); err != nil {
			return err
		}
	}
	b.Append(r)
	return nil
}

// store sends the open batch of a partition, stamped as a leader would.
func (p *producer) store(partition int) error {
	b := &p.open[partition]
	p.message = slices.Grow(appendHead(p.message[:0], partition), b.Len())
	one, err := b.Finish(p.message, batch.Plain(batch.None)) // in the memory behind the head
	if err != nil {
		return err
	}
	one.Stamp(id.Offset(p.next[partition]), 1)
	st := p.links[serverOf(partition, len(p.links))].stream
	if err := transmit(st, p.message[:messageHead+len(one)]); err != nil {
		return fmt.Errorf("push: a server is gone: %w", err)
	}
	if err := receive(st, func([]byte) error { return nil }); err != nil {
		return fmt.Errorf("push: a server does not answer: %w", err)
	}
	first := p.next[partition]
	p.next[partition] += int64(b.Count())
	p.ended(bench.Outcome{Partition: partition, First: uint64(first), Count: b.Count(), Offset: first})
	b.Reset()
	return nil
}

// Flush implements bench.Producer.
func (p *producer) Flush(context.Context) error {
	for partition := range p.open {
		if p.open[partition].Count() == 0 {
			continue
		}
		if err := p.store(partition); err != nil {
			return err
		}
	}
	return nil
}

// Close implements bench.Producer.
func (p *producer) Close() error { return closeAll(p.links) }
