package fetching

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// pieceBytes is how much of one partition is sent before the next one has its turn.
	pieceBytes = 256 << 10
	// confirmTimeout bounds the round of heartbeats that must precede OFFSET_OUT_OF_RANGE.
	confirmTimeout = 5 * time.Second
	// maxSubscriptions bounds the partitions of one connection: each costs memory, about 300 bytes.
	maxSubscriptions = 10_000
	// defaultMaxSubscriptions bounds those of all connections, which take 150 MB then.
	defaultMaxSubscriptions = 500_000
)

// Partition is what a consumer reads: *partition.Partition.
type Partition interface {
	// Closed tells whether the replica is gone, Leads whether it leads.
	Closed() bool
	Leads() bool
	// LogStart returns the first offset that there is, Limit the one before which a reader may read.
	LogStart() id.Offset
	// ShownStart is LogStart for consumers: id.NoOffset while only a quorum knows.
	ShownStart() id.Offset
	Limit(partition.ReadLimit) id.Offset
	HighWatermark() id.Offset
	// Read appends batches to dst, and ConfirmedHighWatermark asks a quorum: see partition.Partition.
	Read(dst []byte, from id.Offset, limit partition.ReadLimit, maxBytes int) ([]byte, id.Offset, error)
	ConfirmedHighWatermark(context.Context) (id.Offset, error)
	// A waiter is roused once. Who waits looks afterwards: see partition.Waiters.
	AwaitRecords(*partition.Waiter, partition.ReadLimit)
	AwaitMove(*partition.Waiter)
	StopWaiting(*partition.Waiter)
}

// Options are what a Hub needs. Zero values are replaced by defaults.
type Options struct {
	Node id.Node
	// MaxSubscriptions is how many there may be on this node. More are refused, one by one, and may be tried again.
	MaxSubscriptions int
}

// Hub is what the sessions of a node have in common: a budget of subscriptions, and the questions to quorums.
type Hub struct {
	o             Options
	subscriptions atomic.Int64

	ctx    context.Context // of the questions
	cancel context.CancelFunc
	asking sync.WaitGroup // a goroutine for each key of asked

	mu     sync.Mutex
	closed bool
	// asked has the partitions about which a quorum is being asked, with who has asked since that began.
	asked map[Partition][]*confirmation
}

// NewHub returns a Hub. Close it after its sessions.
func NewHub(o Options) *Hub {
	if o.MaxSubscriptions <= 0 {
		o.MaxSubscriptions = defaultMaxSubscriptions
	}
	h := &Hub{o: o, asked: make(map[Partition][]*confirmation)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Subscriptions is how many there are.
func (h *Hub) Subscriptions() int64 { return h.subscriptions.Load() }

// Close ends what is being asked.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.asking.Wait()
}

// admit counts one subscription more, if there may be.
func (h *Hub) admit() error {
	if most := int64(h.o.MaxSubscriptions); h.subscriptions.Add(1) > most {
		h.subscriptions.Add(-1)
		return kerr.Errorf(kerr.ThrottlingQuotaExceeded,
			"node %d has %d subscriptions, as many as it may: consumers have to end some", h.o.Node, most)
	}
	return nil
}

// confirmation is what a quorum says about a partition to those who have asked before it was asked.
type confirmation struct {
	place *place
	begun bool // a quorum is being asked: too late to join. Guarded by Hub.mu

	done atomic.Bool // the rest is set
	hw   id.Offset
	err  error
}

// errClosing is what is said to those who ask a quorum while the node stops.
var errClosing = &kerr.Error{Code: kerr.BrokerNotAvailable, Message: "the node is being stopped", Leader: id.NoNode}

// confirm has a quorum asked for the partition's high watermark, and the place roused when it has answered. It is asked once for all who
// want to know at the time, on this node: it costs a round of heartbeats, and a goroutine for as long as that takes. Whoever comes
// later needs another round. He may have seen records that another leader committed after this one was last vouched for.
func (h *Hub) confirm(p *place) *confirmation {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := p.asking; c != nil && !c.begun {
		return c
	}
	c := &confirmation{place: p}
	if h.closed {
		c.begun = true
		c.answer(0, errClosing)
		return c
	}
	p.asking = c
	waiting, running := h.asked[p.partition]
	h.asked[p.partition] = append(waiting, c)
	if !running {
		h.asking.Go(func() { h.ask(p.partition) })
	}
	return c
}

// ask asks a quorum until nobody wants to know any more.
func (h *Hub) ask(p Partition) {
	for {
		round := h.begin(p)
		if len(round) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(h.ctx, confirmTimeout)
		hw, err := p.ConfirmedHighWatermark(ctx)
		cancel()
		switch {
		case err != nil && h.ctx.Err() != nil:
			err = errClosing
		case errors.Is(err, context.DeadlineExceeded):
			err = kerr.Errorf(kerr.OffsetNotAvailable, "the leader could not confirm its high watermark within %v", confirmTimeout)
		}
		for _, c := range round {
			c.answer(hw, err)
		}
	}
}

// begin takes those who have asked so far.
func (h *Hub) begin(p Partition) []*confirmation {
	h.mu.Lock()
	defer h.mu.Unlock()
	round := h.asked[p]
	for _, c := range round {
		c.begun = true
	}
	if len(round) == 0 {
		delete(h.asked, p)
	} else {
		h.asked[p] = nil // it is being asked about
	}
	return round
}

func (c *confirmation) answer(hw id.Offset, err error) {
	c.hw, c.err = hw, err
	c.done.Store(true)
	c.place.Rouse()
}
