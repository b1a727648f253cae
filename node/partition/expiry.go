package partition

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/id"
)

// How producers are forgotten. All replicas of a partition must forget the same, and their clocks differ; a clock made of the batches'
// timestamps is the producers' to set. So the leader decides, by its own clock, and says so in the log: a command names an entry, and
// producers whose last batch is that entry or one before are forgotten where the command stands.
//
// What it may name is what has been in the log for long enough. Each replica notes now and then how far the log is committed: all of that
// was there at that time, by this replica's clock, which only has to run and not to be right. Such a note that is old enough says which
// entries are. Who begins to lead has notes of his own; one that was started since has none of what came before, and counts it from then
// on. Either way a producer is remembered longer than it has to be, and never shorter.

// expirySteps is how many notes there are to an expiry. The more, the less later than it has to a producer is forgotten; and the more
// commands there may be, which stay in the log.
const expirySteps = 8

// notes are how far the log was committed at a few moments of the past, oldest first.
type notes struct{ list []note }

type note struct {
	at     time.Time
	commit id.Index
}

// oldEnough notes that everything up to commit is in the log now, and returns the last entry that has been for at least as long as after;
// 0: none.
func (n *notes) oldEnough(now time.Time, commit id.Index, after time.Duration) (through id.Index) {
	if k := len(n.list); k == 0 || now.Sub(n.list[k-1].at) >= after/expirySteps {
		n.list = append(n.list, note{now, commit})
	}
	old := 0
	for old < len(n.list) && now.Sub(n.list[old].at) >= after {
		through = n.list[old].commit
		old++
	}
	if old > 1 { // the newest of the old ones says it all
		n.list = append(n.list[:0], n.list[old-1:]...)
	}
	return through
}

// Expire has producers forgotten that have been silent for after, if this replica leads. It is called now and then, by one goroutine. A
// partition of which nothing is to be forgotten is not woken.
func (p *Partition) Expire(after time.Duration) {
	oldest := id.Index(p.producers.oldest.Load())
	if oldest == 0 {
		p.notes.list = p.notes.list[:0]
		return
	}
	commit := p.group.Commit() // before the time is taken: what is committed in between must not count as older than it is
	through := p.notes.oldEnough(time.Now(), commit, after)
	if through < oldest || !p.group.IsLeader() || p.forgetting.Swap(true) {
		return
	}
	// One at a time: without a majority it waits until that is there, or another leads.
	p.group.Propose(&raftgroup.Proposal{
		Command: forget(through), Acks: raftgroup.AcksAll,
		Done: func(*raftgroup.Proposal) { p.forgetting.Store(false) }, // if it failed, the next call tries again
	})
}

// forget is the entry by which producers silent since through are forgotten.
func forget(through id.Index) []byte {
	c := command.Command{Kind: commandForget, Version: forgetVersion, Body: binary.AppendUvarint(nil, uint64(through))}
	return c.Append(nil)
}

func parseForget(body []byte) (through id.Index, err error) {
	v, n := binary.Uvarint(body)
	if n != len(body) || n == 0 || v > math.MaxInt64 {
		return 0, fmt.Errorf("%w: index of entries to forget: %x", command.ErrInvalid, body)
	}
	return id.Index(v), nil
}
