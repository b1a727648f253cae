package raftgroup

import (
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

type eventKind uint8

const (
	evMessage  eventKind = iota // message from another node
	evAppended                  // the store completed an append: job
	evRead                      // a read for a lagging follower is done: read
	evCall                      // call runs on the worker
	evCut                       // the store wants a cut
)

// event is one thing for a worker to do.
type event struct {
	kind    eventKind
	group   *group
	from    id.Node
	message *raftpb.Message
	bytes   int64 // of a MsgApp
	data    Loan  // what keeps the data of message's entries; may be nil. Released when the turn ends
	job     *appendJob
	read    *readWindow
	call    func()
}

// inbox is a worker's queue, filled by anyone and emptied in turns: whoever puts something in sees to it that there is one, but for a
// follower's completions, which can wait for the next. MsgApps and proposals have queues of their own, so that votes, heartbeats and responses
// never wait behind them. Completions and calls are never dropped: there are no more of them than submissions in flight and callers waiting.
type inbox struct {
	waiting atomic.Bool // something is in it

	mu            sync.Mutex
	closed        bool
	urgent        []event
	bulk          []event // MsgApps
	proposals     []brought
	smallBytes    int64
	bulkBytes     int64
	proposalBytes int64
	called        bool // a call is among the urgent: it may be for all groups
	maxBytes      int64
}

// brought is a proposal for a group.
type brought struct {
	group    *group
	proposal *Proposal
}

// delivery is everything that waited; its slices go back with the next take.
type delivery struct {
	urgent    []event
	bulk      []event
	proposals []brought
}

// What a turn may find in the inbox to be done by whoever came with it: the more there is, the longer that one's connection is not read,
// and the less a wake-up matters.
const (
	lightBytes  = 64 << 10
	lightEvents = 64
)

// light tells whether there is little in it.
func (in *inbox) light() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.called && in.bulkBytes+in.proposalBytes <= lightBytes && len(in.urgent)+len(in.bulk)+len(in.proposals) <= lightEvents
}

// post queues an event that must not be lost. False: the worker has ended.
func (in *inbox) post(ev event) bool {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return false
	}
	in.urgent = append(in.urgent, ev)
	in.called = in.called || ev.kind == evCall
	in.mu.Unlock()
	in.waiting.Store(true)
	return true
}

// completed queues the completions of a round.
func (in *inbox) completed(jobs []*appendJob) {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return
	}
	for _, j := range jobs {
		in.urgent = append(in.urgent, event{kind: evAppended, group: j.group, job: j})
	}
	in.mu.Unlock()
	in.waiting.Store(true)
}

// message queues a message from another node: a MsgApp when it weighs bytes. False: no room. Each group has room for one
// MsgApp however full the inbox is, or a full inbox could keep out the entry that would commit the rest.
func (in *inbox) message(ev event, bytes int64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	if bytes == 0 {
		if in.smallBytes+smallMessageBytes > in.maxBytes {
			return false
		}
		in.smallBytes += smallMessageBytes
		in.urgent = append(in.urgent, ev)
	} else {
		if in.bulkBytes+bytes > in.maxBytes && ev.group.bulkQueued > 0 {
			return false
		}
		ev.group.bulkQueued++
		in.bulkBytes += bytes
		ev.bytes = bytes
		in.bulk = append(in.bulk, ev)
	}
	in.waiting.Store(true)
	return true
}

// propose queues a proposal. False: the worker has ended. Proposals are bounded by their group's and the host's limits.
func (in *inbox) propose(g *group, p *Proposal) bool {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		return false
	}
	in.proposals = append(in.proposals, brought{g, p})
	in.proposalBytes += int64(len(p.Batch))
	in.mu.Unlock()
	in.waiting.Store(true)
	return true
}

// turnBulk bounds the MsgApps of one turn: all that a turn takes for a group becomes one append, which a commit round cannot divide, and a
// round should fit into a file of the journal several times. A larger message is taken alone.
const turnBulk = 4 * mib

// take swaps d's slices, whose contents have been dealt with, for what waits, and returns the bytes of entries in that. More tells that
// MsgApps were left for the next turn.
func (in *inbox) take(d *delivery) (bytes int64, more bool) {
	clear(d.urgent)
	clear(d.bulk)
	clear(d.proposals)
	in.waiting.Store(false) // before the look: what comes after it sets it again
	in.mu.Lock()
	d.urgent, in.urgent = in.urgent, d.urgent[:0]
	d.bulk, in.bulk = in.bulk, d.bulk[:0]
	d.proposals, in.proposals = in.proposals, d.proposals[:0]
	bytes = in.bulkBytes + in.proposalBytes
	in.smallBytes, in.bulkBytes, in.proposalBytes, in.called = 0, 0, 0, false
	taken := int64(0)
	for i := range d.bulk {
		if taken += d.bulk[i].bytes; taken > turnBulk && i > 0 {
			in.bulk = append(in.bulk, d.bulk[i:]...)
			clear(d.bulk[i:])
			d.bulk = d.bulk[:i]
			break
		}
		d.bulk[i].group.bulkQueued--
	}
	for i := range in.bulk {
		in.bulkBytes += in.bulk[i].bytes
	}
	bytes -= in.bulkBytes
	if more = len(in.bulk) > 0; more {
		in.waiting.Store(true)
	}
	in.mu.Unlock()
	return bytes, more
}

// close lets nothing more in.
func (in *inbox) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
}
