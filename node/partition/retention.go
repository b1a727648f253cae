package partition

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/node/retention"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// How the log start moves by itself. Package retention has the rules. They look at the segments of the replica that leads, and what they come to
// is proposed as any other log start: the others have segments of their own, and let go of those that are below it.
//
// That a segment gives way to another by segment.ms is each replica's own business, and changes nothing but where its segments begin.
//
// A node has 10,000 replicas of which nothing is to be done for days. So a look at the segments notes when the next one is worth while, and
// until then a replica costs two comparisons a second.

const (
	trimTimeout = 10 * time.Second // for a command to be committed
	trimRetry   = 5 * time.Second  // after one that failed
	mostTrims   = 256              // commands under way at a time, of all partitions of a node: many expire in the same second
	never       = math.MaxInt64    // a time that does not come, in milliseconds
)

// Trims is what the partitions of a node share about log starts that they move.
type Trims struct {
	moved    [TrimSize + 1]atomic.Uint64 // by reason
	records  atomic.Uint64
	failed   atomic.Uint64
	early    atomic.Uint64
	underway atomic.Int64 // of Retain's
}

// Trims returns what the partition shares about log starts.
func (p *Partition) Trims() *Trims { return p.limits.Trims }

// Moved returns how often this node, as a leader, moved a log start for a reason.
func (t *Trims) Moved(reason TrimReason) uint64 { return t.moved[reason].Load() }

// Records returns how many records are below the log start since, together.
func (t *Trims) Records() uint64 { return t.records.Load() }

// Failed returns how many attempts failed, or were not known to succeed in time.
func (t *Trims) Failed() uint64 { return t.failed.Load() }

// Early returns how often retention found something to let go of, and the cluster's feature level was not there yet.
func (t *Trims) Early() uint64 { return t.early.Load() }

// room tells whether another one may be under way.
func (t *Trims) room() bool { return t.underway.Load() < mostTrims }

// note counts an attempt to move a log start over so many records.
func (t *Trims) note(reason TrimReason, err error, records id.Offset) {
	if err != nil {
		t.failed.Add(1)
		return
	}
	t.moved[reason].Add(1)
	t.records.Add(uint64(max(0, records)))
}

// keeping is what Retain notes. Times are milliseconds.
type keeping struct {
	config *Config   // that the rest was decided by
	trim   look      // whether the log start moves; only a leader looks
	start  id.Offset // as it was then: one that somebody else has moved may have uncovered a segment that is to go
	roll   look      // whether the segment that is written to gives way
	bare   id.Index  // the first entry of the last segment that was seen without records
	came   time.Time // when it was seen with some; zero: not yet

	underway atomic.Bool  // a command is
	retry    atomic.Int64 // not before
}

// look is when to look at something again.
type look struct {
	at    int64
	moves bool // or when the high watermark is not hw any more
	hw    id.Offset
}

func (l *look) due(now int64, hw id.Offset) bool { return now >= l.at || l.moves && hw != l.hw }

// Retain lets go of what the topic's configuration does not want to be kept, if this replica leads, and has its log begin another segment by
// segment.ms. It is called now and then, by one goroutine, and does not wait.
func (p *Partition) Retain(now time.Time) {
	k, config, ms := &p.keeping, p.config.Load(), now.UnixMilli()
	if k.config != config {
		k.config, k.trim, k.roll = config, look{}, look{}
	}
	hw := p.HighWatermark() // before the segments are looked at: it is not above their end
	trim := (k.trim.due(ms, hw) || k.start != id.Offset(p.start.shown.Load())) && !k.underway.Load() && ms >= k.retry.Load() && p.limits.Trims.room() && p.Leads() && !p.internal()
	roll := k.roll.due(ms, hw)
	if !trim && !roll {
		return
	}
	segments := p.log.Segments()
	if roll {
		p.rollByTime(now, hw, segments)
	}
	if trim {
		p.trimByRules(now, hw, segments)
	}
}

// trimByRules proposes the log start that the rules come to.
func (p *Partition) trimByRules(now time.Time, hw id.Offset, segments []wal.SegmentInfo) {
	k := &p.keeping
	start := p.LogStart()
	d := retention.Decide(now, start, hw, segments, k.config.Retention)
	if d.Reason == retention.None {
		k.trim, k.start = look{at: never, moves: d.Moves, hw: hw}, start
		if !d.Next.IsZero() {
			k.trim.at = d.Next.UnixMilli()
		}
		return
	}
	k.trim = look{} // again when this has ended
	if p.mayTrim() != nil {
		p.limits.Trims.early.Add(1)
		k.retry.Store(now.Add(trimRetry).UnixMilli())
		return
	}
	command := p.trimming.begin(d.Start)
	if command == nil { // somebody deletes records
		return
	}
	trims := p.limits.Trims
	trims.underway.Add(1)
	k.underway.Store(true)
	p.proposeTrim(command, now.Add(trimTimeout), reasonOf(d.Reason), func(err error) {
		if err != nil {
			k.retry.Store(time.Now().Add(trimRetry).UnixMilli())
		}
		trims.underway.Add(-1)
		k.underway.Store(false)
	})
}

func reasonOf(r retention.Reason) TrimReason {
	if r == retention.Time {
		return TrimTime
	}
	return TrimSize
}

// rollByTime has the log begin another segment with its next entry, if the one that is written to is old enough. It is asked once for each
// segment, and again only if an entry came that did not begin one.
func (p *Partition) rollByTime(now time.Time, hw id.Offset, segments []wal.SegmentInfo) {
	k := &p.keeping
	k.roll = look{at: never, moves: true, hw: hw}
	if len(segments) == 0 {
		return
	}
	active := segments[len(segments)-1]
	switch { // commands may stand in it for long before the first record comes
	case active.Bytes == 0:
		k.bare, k.came = active.First, time.Time{}
	case active.First == k.bare && k.came.IsZero():
		k.came = now
	}
	if active.First == k.bare {
		active.Created = k.came
	}
	at, due := retention.Roll(active, k.config.SegmentMS)
	switch {
	case !due:
	case now.Before(at):
		k.roll = look{at: at.UnixMilli()}
	default:
		p.group.Roll()
	}
}
