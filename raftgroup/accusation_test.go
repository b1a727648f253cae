package raftgroup

import (
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

// An accusation is believed when the same member repeats it, in the same term, for long enough.
func TestAccusation(t *testing.T) {
	type word struct {
		by   id.Replica
		term id.Term
		tick int
	}
	const patience = 30
	for name, c := range map[string]struct {
		words []word
		want  bool // of the last one
	}{
		"once":                 {[]word{{1, 5, 100}}, false},
		"three times at once":  {[]word{{1, 5, 100}, {1, 5, 100}, {1, 5, 101}}, false},
		"a leader":             {[]word{{1, 5, 100}, {1, 5, 105}, {1, 5, 110}, {1, 5, 115}, {1, 5, 120}, {1, 5, 125}, {1, 5, 130}}, true},
		"a slow one":           {[]word{{1, 5, 100}, {1, 5, 120}, {1, 5, 140}}, true},
		"two words, far apart": {[]word{{1, 5, 100}, {1, 5, 130}}, false},
		"a pause":              {[]word{{1, 5, 100}, {1, 5, 120}, {1, 5, 151}, {1, 5, 160}}, false},
		"two members":          {[]word{{1, 5, 100}, {2, 5, 115}, {1, 5, 130}, {2, 5, 145}}, false},
		"two terms":            {[]word{{1, 5, 100}, {1, 6, 115}, {1, 5, 130}, {1, 6, 145}}, false},
	} {
		var a accusation
		got := false
		for _, w := range c.words {
			got = a.hear(w.by, w.term, w.tick, patience)
		}
		if got != c.want {
			t.Errorf("%s: believed is %t", name, got)
		}
		last := c.words[len(c.words)-1].tick
		if !a.stands(last+patience, patience) || a.stands(last+patience+1, patience) || (&accusation{}).stands(0, patience) {
			t.Errorf("%s: it stands for another time than an election timeout", name)
		}
	}
}
