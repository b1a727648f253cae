package partition

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The log keeps commands in memory, and each of its cuts holds all of them, until the segment that they stand in is let go of. So no caller,
// and no crowd of callers, may write many: one is under way at a time, those of DeleteRecords are trimInterval apart, and each is for all who
// wait, since the largest start is what everybody wants. Who comes first is not kept waiting.

// trimInterval is how far apart the commands of DeleteRecords are.
const trimInterval = 500 * time.Millisecond

// trimming is the commands of the log start that this replica proposes.
type trimming struct {
	mu     sync.Mutex
	now    *trimCommand // under way; nil: there is none
	next   time.Time    // before which DeleteRecords proposes none
	wanted id.Offset    // the largest that somebody waits for
}

// trimCommand is one of them.
type trimCommand struct {
	to    id.Offset
	ended chan struct{} // closed when it is not under way any more
	err   error         // why it failed; set before that
}

// begin returns a command that the caller has to propose, nil if one is under way.
func (t *trimming) begin(to id.Offset) *trimCommand {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now != nil {
		return nil
	}
	t.now = &trimCommand{to: to, ended: make(chan struct{})}
	return t.now
}

// join returns the command that somebody who wants the log start to be at to has to wait for, which he has to propose if it is his; nil: he
// may try again after a while.
func (t *trimming) join(to id.Offset) (c *trimCommand, his bool, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted = max(t.wanted, to)
	if t.now != nil {
		return t.now, false, 0
	}
	now := time.Now()
	if after = t.next.Sub(now); after > 0 {
		return nil, false, after
	}
	t.now = &trimCommand{to: t.wanted, ended: make(chan struct{})}
	t.next, t.wanted = now.Add(trimInterval), 0
	return t.now, true, 0
}

func (t *trimming) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.err = err
	close(t.now.ended)
	t.now = nil
}

// moveStart moves the log start to a committed offset at least, and returns where it is then.
func (p *Partition) moveStart(ctx context.Context, to id.Offset) (id.Offset, error) {
	for {
		if start := p.LogStart(); to <= start {
			return start, nil
		}
		if _, err := p.led(); err != nil {
			return 0, err
		}
		c, his, after := p.trimming.join(to)
		if c == nil {
			select {
			case <-time.After(after):
				continue
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		if his {
			deadline, _ := ctx.Deadline()
			p.proposeTrim(c, deadline, TrimRecords, func(error) {})
		}
		select {
		case <-c.ended:
			if c.err != nil && (his || c.speaksFor(to)) {
				return 0, c.err
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// speaksFor tells whether the failure of a command is that of another caller as well, unless it was the proposer's time that was over.
func (c *trimCommand) speaksFor(to id.Offset) bool {
	late := (*raftgroup.TimeoutError)(nil)
	return to <= c.to && !errors.As(c.err, &late)
}

// proposeTrim proposes a command, which ends with it.
func (p *Partition) proposeTrim(c *trimCommand, deadline time.Time, reason TrimReason, done func(error)) {
	start := p.LogStart()
	p.group.Propose(&raftgroup.Proposal{
		Command: trim(c.to, reason), Deadline: deadline,
		// Committed by a majority, as everything that is applied. It need not be on min.insync.replicas: that is a promise about records.
		Acks: raftgroup.AcksLeader, Wait: raftgroup.WaitApplied,
		Done: func(proposal *raftgroup.Proposal) {
			err := proposal.Result.Err
			p.trimming.end(err)
			p.limits.Trims.note(reason, err, c.to-start)
			done(err)
		},
	})
}
