package bench

import (
	"slices"
	"sort"
)

// ranges is a set of numbers, kept as disjoint half-open intervals in ascending order. What arrives in order costs one interval
// in all, whatever its size: tens of millions of records are checked in a few bytes.
type ranges struct {
	spans []span
}

type span struct{ from, to uint64 } // to is exclusive, from < to; neighbours never touch

// add puts [from, to) into the set and returns how many of these numbers were in it already.
func (r *ranges) add(from, to uint64) (present uint64) {
	if from >= to {
		return 0
	}
	if n := len(r.spans); n == 0 || r.spans[n-1].to < from {
		r.spans = append(r.spans, span{from, to})
		return 0
	} else if last := &r.spans[n-1]; last.to == from {
		last.to = to
		return 0
	}
	lo := sort.Search(len(r.spans), func(i int) bool { return r.spans[i].to >= from }) // the first that touches or lies behind
	hi := lo
	merged := span{from, to}
	for ; hi < len(r.spans) && r.spans[hi].from <= to; hi++ {
		s := r.spans[hi]
		present += min(s.to, to) - min(max(s.from, from), min(s.to, to))
		merged.from, merged.to = min(merged.from, s.from), max(merged.to, s.to)
	}
	r.spans = slices.Replace(r.spans, lo, hi, merged)
	return present
}

// has tells whether n is in the set.
func (r *ranges) has(n uint64) bool {
	i := sort.Search(len(r.spans), func(i int) bool { return r.spans[i].to > n })
	return i < len(r.spans) && r.spans[i].from <= n
}

// count is the size of the set.
func (r *ranges) count() (n uint64) {
	for _, s := range r.spans {
		n += s.to - s.from
	}
	return n
}

// without returns the numbers of r that are not in other.
func (r *ranges) without(other *ranges) (rest ranges) {
	i := 0
	for _, s := range r.spans {
		for at := s.from; at < s.to; {
			for i < len(other.spans) && other.spans[i].to <= at {
				i++
			}
			if i == len(other.spans) || other.spans[i].from >= s.to {
				rest.spans = append(rest.spans, span{at, s.to})
				break
			}
			if o := other.spans[i]; o.from > at {
				rest.spans = append(rest.spans, span{at, o.from})
				at = o.to
			} else {
				at = o.to
			}
		}
	}
	return rest
}
