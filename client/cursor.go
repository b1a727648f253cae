package client

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// cursor is the place in one assigned partition. It is guarded by the consumer's mutex. Assigning a partition anew makes a new
// cursor: what is left of the old one is told from it by its address.
type cursor struct {
	tp   id.TopicPartition
	born time.Time // when it was assigned
	next id.Offset // of the next record to arrive; Beginning, End or AtTime: to be resolved
	time int64     // with AtTime: which

	assigned     id.Offset // Beginning, End or AtTime, if that was assigned and nothing has been delivered since
	resolving    bool      // a goroutine asks what Beginning or End is
	stream       *fetchStream
	subscription uint32
	epoch        id.Epoch  // of the leader that stream goes to
	topicID      id.Topic  // as subscribed
	heard        time.Time // last event

	allotment

	notBefore time.Time // no new subscription before, unless a newer leader is known
	delay     time.Duration
	firm      bool // not before for a newer leader either
	damaged   int  // answers in a row that could not be used

	caughtUp bool // the last delivery said so
	failed   bool // an error is on its way to Poll
}

// allotment is a cursor's part of the budget.
type allotment struct {
	granted  int64 // credit that the node has left, as far as is known: it may be less than nothing by a piece
	piece    int64 // the most that it sends at a time, lately
	reserved int64 // of the budget
	admitted bool  // may subscribe, reserved for that
	queued   bool  // in the list of those that wait for room
}

// delivery is what one event brought.
type delivery struct {
	cursor       *cursor
	subscription uint32
	batches      []byte // from the consumer's spare buffers
	from, next   id.Offset
	hw, start    id.Offset
	err          error
	goesOn       bool // with err: the partition stays assigned
}

func (d *delivery) fetch() Fetch {
	return Fetch{
		TopicPartition: d.cursor.tp, HighWatermark: d.hw, LogStart: d.start, Next: d.next,
		CaughtUp: d.next >= d.hw, batches: d.batches, from: d.from,
	}
}

// deliverLocked puts something into the list of Poll.
func (c *Consumer) deliverLocked(d *delivery) {
	c.mu.deliveries = append(c.mu.deliveries, d)
	c.mu.held += int64(len(d.batches))
	poke(c.news)
}

func (cur *cursor) nextDelay() time.Duration {
	cur.delay = retryAfter(cur.delay)
	return cur.delay
}
