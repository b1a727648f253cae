package node

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
)

// word is when this node last had word from a majority of the metadata group: from the leader, which leads only as long as a majority
// follows it, or, being the leader, from that majority. A node that is cut off knows nothing newer, answers clients as fast as ever, and so
// tells them the age of what it says.
type word struct {
	began time.Time
	last  atomic.Int64 // since began; 0: never
}

func (w *word) heard(at time.Time) {
	since := int64(max(at.Sub(w.began), 1))
	for {
		last := w.last.Load()
		if since <= last || w.last.CompareAndSwap(last, since) {
			return
		}
	}
}

// age returns how long ago that was, negative for "never since the start".
func (w *word) age() time.Duration {
	last := w.last.Load()
	if last == 0 {
		return -1
	}
	return max(time.Since(w.began)-time.Duration(last), 0)
}

// majoritySilence returns for how long the leader has not heard from the majority of the voters that it heard from last, itself included.
func majoritySilence(members []raftgroup.MemberStatus) (time.Duration, bool) {
	var silences []time.Duration
	voters := 0
	for _, m := range members {
		if m.Learner {
			continue
		}
		voters++
		if m.LastAck >= 0 {
			silences = append(silences, m.LastAck)
		}
	}
	majority := voters/2 + 1
	if voters == 0 || len(silences) < majority {
		return 0, false
	}
	slices.Sort(silences)
	return silences[majority-1], true
}
