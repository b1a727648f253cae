package retention

import (
	"math"
	"time"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Limits are how much a partition keeps.
type Limits struct {
	MS    int64 // retention.ms; negative: for ever
	Bytes int64 // retention.bytes; negative: any number
}

// Reason is what lets go of segments.
type Reason uint8

// The reasons.
const (
	None Reason = iota
	Time        // retention.ms
	Size        // retention.bytes
)

// Decision is where a log is to begin, and when to look again.
type Decision struct {
	Start  id.Offset // the log start as it is, if nothing goes
	Reason Reason    // of the last segment that goes; None: nothing goes
	// Next is when time may let go of more; zero: not as things are.
	Next time.Time
	// Moves tells that more may go, or earlier than Next, once the high watermark is another one.
	Moves bool
}

// Decide applies Kafka's rules (UnifiedLog.deleteOldSegments) to the segments of a log, the first one first, the last one being the one that
// is written to.
//
// Only whole segments go, from the front, and none that reaches beyond the high watermark, so the last one only when all of it is committed.
// What is below the log start is gone already, and counts for nothing. Then, in this order:
//
//   - Size: while what is left, the last segment counted, is at least retention.bytes without the first one, that goes. So no less than
//     retention.bytes stay.
//   - Time: while the first one is older than retention.ms, it goes.
//
// The age is where Kafka's rule is not enough. There it is that of the largest timestamp, and one from the future keeps a segment, and all
// behind it, for ever. Here, as long as that timestamp is in the future, or if there is none, a segment is as old as its last append, by this
// node's clock at that time. A timestamp that is not in the future counts alone: the clock may have been far behind when the node caught up.
// One of which neither is known is kept. One without records has nothing to keep, and stops nothing.
func Decide(now time.Time, start, hw id.Offset, segments []wal.SegmentInfo, l Limits) Decision {
	d := Decision{Start: start}
	for len(segments) > 0 && segments[0].Next <= start {
		segments = segments[1:]
	}
	if l.Bytes >= 0 {
		over := -l.Bytes
		for i := range segments {
			over += segments[i].Bytes
		}
		for len(segments) > 0 && segments[0].Next <= hw && over-segments[0].Bytes >= 0 {
			over -= segments[0].Bytes
			segments = d.goes(segments, Size)
		}
		d.Moves = true
	}
	if l.MS < 0 {
		return d
	}
	for len(segments) > 0 {
		s := &segments[0]
		since, known := age(s, now.UnixMilli())
		switch {
		case s.Bytes > 0 && !known:
			d.Moves = d.Moves || len(segments) == 1
			return d
		case s.Bytes > 0 && now.UnixMilli()-since <= l.MS:
			if since < math.MaxInt64-l.MS {
				d.Next = time.UnixMilli(since + l.MS + 1)
			}
			// A batch without a timestamp is as old as its append; one that comes behind it may be older.
			d.Moves = d.Moves || len(segments) == 1 && s.MaxTimestamp < 0
			return d
		case s.Next > hw:
			d.Moves = true
			return d
		}
		segments = d.goes(segments, Time)
	}
	d.Moves = true // there are no records
	return d
}

// goes lets go of the first segment.
func (d *Decision) goes(segments []wal.SegmentInfo, reason Reason) (rest []wal.SegmentInfo) {
	if next := segments[0].Next; next > d.Start {
		d.Start, d.Reason = next, reason
	}
	return segments[1:]
}

// age returns since when a segment ages, in milliseconds since 1970; false if that is not known.
func age(s *wal.SegmentInfo, now int64) (since int64, known bool) {
	since = s.MaxTimestamp
	switch appended := s.Appended.UnixMilli(); {
	case appended <= 0: // the zero time is before 1970
	case since < 0:
		since = appended
	case since > now:
		since = min(since, appended)
	}
	return since, since >= 0
}

// Roll returns when the segment that is written to has to give way to another one by segment.ms; false: not as things are, because there are no
// records in it, or no clock comes that far. Kafka has the timestamps of records for that; here it is the time at which the first one came.
func Roll(active wal.SegmentInfo, ms int64) (at time.Time, due bool) {
	created := active.Created.UnixMilli()
	if active.Bytes == 0 || created <= 0 || created > math.MaxInt64-ms {
		return time.Time{}, false
	}
	return time.UnixMilli(created + ms), true
}
