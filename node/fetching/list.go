package fetching

// list is a queue of subscriptions. A subscription is on one list at most, and knows on which.
type list struct {
	first, last *subscription
	len         int
}

// push puts s, which is on no list, behind all others.
func (l *list) push(s *subscription) {
	s.on, s.before, s.behind = l, l.last, nil
	if l.last != nil {
		l.last.behind = s
	} else {
		l.first = s
	}
	l.last = s
	l.len++
}

// leave takes s off the list that it is on, if any.
func (s *subscription) leave() {
	l := s.on
	if l == nil {
		return
	}
	if s.before != nil {
		s.before.behind = s.behind
	} else {
		l.first = s.behind
	}
	if s.behind != nil {
		s.behind.before = s.before
	} else {
		l.last = s.before
	}
	s.on, s.before, s.behind = nil, nil, nil
	l.len--
}

// moveTo moves everybody to the end of another list, in order.
func (l *list) moveTo(other *list) {
	for s := l.first; s != nil; s = l.first {
		s.leave()
		other.push(s)
	}
}
