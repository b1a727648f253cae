package insync

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	in, out, both = Incoming, Outgoing, Incoming | Outgoing
	learner       = Seat(0)
)

func tally(yes, no []Seat) (t Tally) {
	for _, s := range yes {
		t.For(s)
	}
	for _, s := range no {
		t.Against(s)
	}
	return t
}

func TestMajority(t *testing.T) {
	for name, c := range map[string]struct {
		yes, no []Seat
		want    bool
	}{
		"nobody":              {nil, nil, false},
		"one of one":          {[]Seat{in}, nil, true},
		"one of two":          {[]Seat{in}, []Seat{in}, false},
		"two of three":        {[]Seat{in, in}, []Seat{in}, true},
		"two of four":         {[]Seat{in, in}, []Seat{in, in}, false},
		"learners count not":  {[]Seat{in, learner, learner}, []Seat{in}, false},
		"and take no seat":    {[]Seat{in, in}, []Seat{in, learner, learner}, true},
		"both halves":         {[]Seat{both, in, out}, []Seat{in, out}, true},
		"the new half alone":  {[]Seat{in, in, in}, []Seat{out, out, out}, false},
		"the old half alone":  {[]Seat{both, out}, []Seat{in, in}, false},
		"a replacement, dead": {[]Seat{both, both}, []Seat{in, out}, true},
	} {
		got := tally(c.yes, c.no)
		require.Equal(t, c.want, got.Majority(), name)
	}
}

func TestMajorityHas(t *testing.T) {
	for name, c := range map[string]struct {
		members []Seat
		most    int
	}{
		"one":                         {[]Seat{in}, 1},
		"three":                       {[]Seat{in, in, in}, 2},
		"three and learners":          {[]Seat{in, in, in, learner, learner}, 2},
		"five":                        {[]Seat{in, in, in, in, in}, 3},
		"from three to five":          {[]Seat{both, both, both, in, in}, 2},
		"from five to one":            {[]Seat{both, out, out, out, out}, 1},
		"two that are replaced whole": {[]Seat{in, in, out, out}, 2},
	} {
		got := tally(nil, c.members)
		require.True(t, got.MajorityHas(c.most), name)
		require.False(t, got.MajorityHas(c.most+1), name)
	}
}

func TestMatches(t *testing.T) {
	type match struct {
		seat Seat
		at   id.Index
	}
	for name, c := range map[string]struct {
		matches []match
		want    []id.Index // on 1, 2, 3, ... voters
	}{
		"three":         {[]match{{in, 9}, {in, 7}, {in, 8}}, []id.Index{9, 8, 7, 0}},
		"not a learner": {[]match{{in, 9}, {learner, 8}, {in, 7}}, []id.Index{9, 7, 0}},
		"joint":         {[]match{{both, 9}, {in, 8}, {out, 5}, {out, 4}}, []id.Index{9, 5, 0, 0}},
		"many": {[]match{{in, 1}, {in, 2}, {in, 3}, {in, 4}, {in, 5}, {in, 6}, {in, 7}, {in, 8}, {in, 9}, {in, 10}, {in, 11}, {in, 12}, {in, 13},
			{in, 14}, {in, 15}, {in, 16}, {in, 17}, {in, 18}}, []id.Index{18, 17}},
	} {
		var m Matches
		var count Tally
		for _, x := range c.matches {
			m.Add(x.seat, x.at)
			count.Against(x.seat)
		}
		for n, want := range c.want {
			require.Equal(t, want, m.On(n+1, count), "%s: on %d", name, n+1)
		}
	}
	var unknown Matches
	unknown.Add(in, 9)
	require.Zero(t, unknown.On(1, tally(nil, []Seat{in, out})), "nothing is known of the old half")
}

// What a sample says that was taken every 10, of a log that grows by one each time.
func TestSamples(t *testing.T) {
	var s Samples
	require.Zero(t, s.Before(1000), "there is none")
	for now := int64(100); now < 200; now++ {
		s.Add(now, id.Index(now), 10)
	}
	for then, want := range map[int64]id.Index{159: 0, 160: 160, 169: 160, 170: 170, 189: 180, 190: 190, 1000: 190} {
		require.Equal(t, want, s.Before(then), "before %d", then)
	}
}

func TestLag(t *testing.T) {
	l := Lag{Now: 1000, Max: 30, Must: 50, Last: 90}
	for ack, want := range map[int64]bool{0: false, 970: false, 971: true, 1000: true} {
		require.Equal(t, want, l.Heard(ack), "heard at %d", ack)
	}
	for match, want := range map[id.Index]bool{0: false, 49: false, 50: true, 90: true} {
		require.Equal(t, want, l.Reached(match), "has %d", match)
	}
	l.Last = 40 // a leader whose log ends below what was committed cannot ask for more than it has
	require.True(t, l.Reached(40))
	require.False(t, l.Reached(39))
}
