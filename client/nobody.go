package client

import (
	"errors"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// An idempotent producer needs an id, and nodes give one to whoever may write to some topic. Who may not is refused before his first batch is
// sent, so no partition can say so.

// identityPause is for how long no id is asked for after nodes have refused to give one. Records that are produced meanwhile wait for that.
const identityPause = 100 * time.Millisecond

// identityRefused ends what waits for a producer id, if it is refused rather than not to be had now. The next record has it asked for again: it may
// be allowed by then.
func (p *Producer) identityRefused(err error) {
	var refused *kerr.Error
	if !errors.As(err, &refused) || refused.Code.Retriable() || errors.Is(err, ErrWrongCluster) {
		return
	}
	for _, q := range p.allQueues() {
		q.identityRefused(refused)
	}
}

// needsIdentity tells whether something cannot be sent without a producer id.
func (q *queue) needsIdentity() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.identity == noIdentity && q.hasWorkLocked()
}

// identityRefused ends all batches. None of them is in doubt: those that had been sent under an id of before have ended with it (restartLocked),
// but for one that is being written at the moment, which keeps its place and those behind it theirs.
func (q *queue) identityRefused(cause *kerr.Error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil || q.identity != noIdentity || q.sending != nil {
		return
	}
	if q.open != nil {
		q.closeOpenLocked()
	}
	for b := q.waiting.head; b != nil; b = b.next {
		if !b.done {
			b.cause = cause
			b.endLocked(id.NoOffset, q.refusal(b))
		}
	}
	q.advanceLocked()
	q.signalLocked()
	q.calledLocked()
}
