package budget

import (
	"errors"
	"sync/atomic"
)

// Why a share was not given more.
var (
	ErrOwn  = errors.New("the connection holds as much as one may")
	ErrFull = errors.New("the node holds nearly as much as it may, and the connection has its share of that")
)

// Fair is a bound over all shares, for what must not wait: who gets no more is refused at once. It is the dynamic threshold of switches
// with a shared buffer (Choudhury and Hahne): a share may grow while it is no larger than what is free. So k connections that want all get
// one of k+1 parts each, and as much is always left for the next one that comes; while there is room nobody notices.
//
// A share may always have as much as the floor: a connection that asks for little makes progress whatever the others do. So the bound may
// be passed by one floor for each connection.
type Fair struct {
	total, floor int64
	used         atomic.Int64
	refused      atomic.Uint64
}

// NewFair returns a budget of total bytes.
func NewFair(total, floor int64) *Fair { return &Fair{total: total, floor: floor} }

// Used returns how much is held now.
func (f *Fair) Used() int64 { return f.used.Load() }

// Refused counts what was not given for want of room, or because a connection held its most.
func (f *Fair) Refused() uint64 { return f.refused.Load() }

// Share is what one connection holds of a budget. One goroutine at a time takes, any gives back. A nil budget's share has its own bound
// only.
type Share struct {
	of   *Fair
	most int64
	held atomic.Int64
}

// Share returns a new connection's share, which is never larger than most.
func (f *Fair) Share(most int64) *Share { return &Share{of: f, most: most} }

// Held returns how much the connection holds.
func (s *Share) Held() int64 { return s.held.Load() }

// Take takes n bytes more, or says why not: ErrOwn or ErrFull.
func (s *Share) Take(n int64) error {
	held, f := s.held.Load(), s.of
	if held+n > s.most && held > 0 {
		if f != nil {
			f.refused.Add(1)
		}
		return ErrOwn
	}
	for f != nil {
		used := f.used.Load()
		free := f.total - used
		if (n > free || held > 0 && held+n > free) && held+n > f.floor {
			f.refused.Add(1)
			return ErrFull
		}
		if f.used.CompareAndSwap(used, used+n) {
			break
		}
	}
	s.held.Add(n)
	return nil
}

// Give gives n bytes back.
func (s *Share) Give(n int64) {
	if s.held.Add(-n) < 0 {
		panic("budget: more was given back than was taken")
	}
	if s.of != nil {
		s.of.used.Add(-n)
	}
}
