package client

import (
	"errors"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// unreachableAfter is after how long without an answer of any node Poll says so. A cluster that is restarted as a whole is back before.
const unreachableAfter = 5 * time.Second

// reach is since when no node has answered. It is guarded by the cache's mutex.
type reach struct {
	heard time.Time // when a node answered last, with whatever
	since time.Time // when the first refresh began that nobody has answered, nor any one after it; zero: the last one was
	err   error     // what the last one failed with
}

func (r *reach) answered(now time.Time) { *r = reach{heard: now} }

// refreshed notes the end of a refresh that had no result.
func (r *reach) refreshed(began time.Time, err error) {
	if err == nil || r.heard.After(began) {
		return
	}
	r.err = err
	if r.since.IsZero() {
		r.since = began
	}
}

// isAnswer tells whether an error is what a node said, rather than that none was reached.
func isAnswer(err error) bool {
	var refused *kerr.Error
	if !errors.As(err, &refused) {
		return errors.Is(err, ErrWrongCluster)
	}
	switch refused.Code {
	case kerr.BrokerNotAvailable, kerr.NetworkException, kerr.RequestTimedOut:
		return false
	}
	return true
}
