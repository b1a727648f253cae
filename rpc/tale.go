package rpc

import (
	"sync/atomic"
	"time"
)

const (
	// newsGap is how long a control lane gathers changes between two messages of news.
	newsGap = 20 * time.Millisecond
	// newsAgain is how soon everything is told again to a node that says that it missed something, or has no room.
	newsAgain = time.Second
	// newsRefresh is how often everything is told again to everybody: what was lost, or dropped, for whatever reason, is mended by that.
	newsRefresh = 5 * time.Minute
)

// tale is what a control lane has told of its node's news, and when it tells more. Nothing is queued: the lane asks the Teller for what
// has changed since, when it is time. So it takes no memory, however slow a peer is, and what a lane that broke has lost is told again on
// the next stream, from the beginning.
type tale struct {
	teller Teller
	woken  chan struct{} // capacity 1: there may be news
	missed atomic.Bool   // the other side says so

	// Of the lane's writer only:
	due   *time.Timer
	waits bool      // due is set
	count uint64    // told up to; 0: nothing
	began time.Time // the last time that everything was told
	last  time.Time // that something was
	words []Word    // scratch
}

func newTale(t Teller, number Lane) *tale {
	l := &tale{woken: make(chan struct{}, 1), due: time.NewTimer(time.Hour)}
	l.due.Stop()
	if number == LaneCtl {
		l.teller = t
	}
	return l
}

// wake says that there may be something new. Any goroutine.
func (l *tale) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// awake is where the writer hears of news, unless it is going to look anyway.
func (l *tale) awake() <-chan struct{} {
	if l.waits || l.teller == nil {
		return nil
	}
	return l.woken
}

// begin has everything told: the stream is new.
func (l *tale) begin() {
	l.missed.Store(false)
	l.anew()
}

func (l *tale) end() {
	l.due.Stop()
	l.waits = false
}

func (l *tale) anew() {
	if l.teller == nil {
		return
	}
	l.count, l.began = 0, time.Now()
	l.schedule()
}

// look is called with each ping.
func (l *tale) look() {
	since := time.Since(l.began)
	if l.missed.Load() && since > newsAgain || since > newsRefresh {
		l.missed.Store(false)
		l.anew()
	}
}

// schedule has the writer tell news as soon as the last ones are old enough.
func (l *tale) schedule() {
	if !l.waits {
		l.waits = true
		l.due.Reset(max(0, newsGap-time.Since(l.last)))
	}
}

// next returns the message with what there is to tell now; nil: nothing.
func (l *tale) next(v trainVersion) []byte {
	l.waits = false
	n := l.teller.Since(l.count, l.words[:0])
	if n.From > 0 && n.To == l.count {
		return nil
	}
	message := v.news(n)
	l.words = clearWords(n.Words)
	l.count, l.last = n.To, time.Now()
	if !n.Last {
		l.schedule()
	}
	return message
}
