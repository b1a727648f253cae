package client

import (
	"maps"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// shunTime is for how long a node that did not answer, or did not know enough, is asked after all others. It doubles, up to shunTimeMax, each time
// that the node fails again when it is asked again.
const (
	shunTime    = 2 * time.Second
	shunTimeMax = 32 * time.Second
)

// sources says whom to ask for metadata, in which order. It is guarded by the cache's mutex.
//
// A node that is cut off from its peers is the best source by all appearances: it is near, it answers at once, and what it says never
// changes. So no source is asked again only because it answered: a refresh that brought nothing new makes the next one begin with
// another node.
type sources struct {
	last    string               // gave the last answer that was up to date
	turn    int                  // grows with each refresh that brought nothing new
	stuck   bool                 // the last one did
	shunned map[string]time.Time // until when
	strikes map[string]int       // how often in a row
	foreign map[string]*WrongClusterError
}

// order lists the addresses of the known nodes and those that the user named, best first.
func (s *sources) order(nodes map[id.Node]string, named []string, now time.Time) []string {
	var all []string
	for _, n := range slices.Sorted(maps.Keys(nodes)) {
		all = append(all, nodes[n])
	}
	all = append(all, named...)
	if n := s.turn % max(len(all), 1); n > 0 {
		all = slices.Concat(all[n:], all[:n])
	}
	if s.last != "" && !s.stuck {
		all = slices.Insert(all, 0, s.last)
	}
	var out []string
	for _, address := range all {
		if address != "" && !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return s.rank(a, now) - s.rank(b, now) })
	return out
}

// rank is 0 for those to be asked first. The nodes of another cluster come last, but they come: addresses are used again.
func (s *sources) rank(address string, now time.Time) int {
	switch {
	case s.foreign[address] != nil:
		return 2
	case now.Before(s.shunned[address]):
		return 1
	}
	return 0
}

// good notes that a node is the one to ask first.
func (s *sources) good(address string) {
	s.last = address
	s.fresh(address)
}

// fresh notes that a node is up to date. While all are asked for what some of them do not know, that alone does not make it the best.
func (s *sources) fresh(address string) {
	delete(s.shunned, address)
	delete(s.strikes, address)
	delete(s.foreign, address)
}

func (s *sources) shun(address string, now time.Time) {
	if s.last == address {
		s.last = ""
	}
	if now.Before(s.shunned[address]) {
		return
	}
	for old, until := range s.shunned {
		if now.After(until) {
			delete(s.shunned, old)
		}
	}
	if s.strikes == nil {
		s.strikes = make(map[string]int)
	}
	s.shunned[address] = now.Add(min(shunTime<<min(s.strikes[address], 10), shunTimeMax))
	s.strikes[address]++
}

// wrongCluster notes that a node is of another cluster.
func (s *sources) wrongCluster(e *WrongClusterError) {
	if s.last == e.Server {
		s.last = ""
	}
	s.foreign[e.Server] = e
}

// refreshed notes whether a refresh has brought news.
func (s *sources) refreshed(news bool) {
	if s.stuck = !news; s.stuck {
		s.turn++
	}
}
