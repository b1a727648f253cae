package node

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// unreachedFor is how long it is believed that a node is not reached, before it is dialled again for a new topic.
	unreachedFor = 5 * time.Second
	// dialBacks bounds how many calls back are made at once to addresses that nobody is registered with: anybody may ask for one. As many
	// more wait for their turn; whoever comes beyond that is refused at once. They all hold places among the calls of nodes (rpc/gate.go),
	// which are not for them alone.
	dialBacks = 16
)

// reach is what the controller knows of the nodes that it has dialled.
type reach struct {
	asking   chan struct{}      // as many tokens as addresses of strangers are dialled, or wait for that
	dialling chan struct{}      // as many as are dialled
	asked    singleflight.Group // by address and node: who answers there

	mu    sync.Mutex
	known map[id.Node]dialled
}

// dialled is the last word about one start of a node at one address.
type dialled struct {
	boot    uint64
	address string
	err     error // nil: it was reached
	when    time.Time
}

func newReach() reach {
	return reach{asking: make(chan struct{}, 2*dialBacks), dialling: make(chan struct{}, dialBacks), known: make(map[id.Node]dialled)}
}

func (r *reach) get(node *placement.Node) (dialled, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.known[node.ID]
	ok = ok && d.boot == node.BootEpoch && d.address == node.RPCAddress
	return d, ok && (d.err == nil || time.Since(d.when) < unreachedFor)
}

func (r *reach) put(node *placement.Node, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[node.ID] = dialled{node.BootEpoch, node.RPCAddress, err, time.Now()}
}

// forget has a node dialled anew where it matters: a start of it was not reached, so the word about the one before may be over.
func (r *reach) forget(node id.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, node)
}
