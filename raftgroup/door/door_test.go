package door

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCut(t *testing.T) {
	const size = 100
	for name, c := range map[string]struct {
		entries []Entry
		used    int64 // of the allowance, before
		want    int
		after   int64
	}{
		"nothing":                    {nil, 0, 0, 0},
		"a new leader's first entry": {[]Entry{Free}, Allowed, 1, Allowed},
		"what the log has already":   {[]Entry{Free, Free, Free}, Allowed, 3, Allowed},
		"needed":                     {[]Entry{Needed, Needed, Free}, 0, 3, 2 * size},
		"its own":                    {[]Entry{Own, Own}, 0, 0, 0},
		"its own behind those":       {[]Entry{Free, Needed, Free, Own, Free}, 0, 3, size},
		"the allowance is used up":   {[]Entry{Free, Needed, Free}, Allowed, 1, Allowed},
		"all but for too little":     {[]Entry{Free, Needed, Needed}, Allowed - 2*size + 1, 1, Allowed - 2*size + 1},
		"the last of it":             {[]Entry{Free, Needed, Needed}, Allowed - 2*size, 3, Allowed},
	} {
		var a Allowance
		a.used.Store(c.used)
		var cut Cut
		for _, e := range c.entries {
			if !cut.Add(e, size) {
				break
			}
		}
		require.Equal(t, c.want, cut.Take(&a), name)
		require.Equal(t, c.after, a.used.Load(), name)
		a.Renew()
		require.True(t, a.Take(Allowed), name)
	}
}

func TestTrickle(t *testing.T) {
	var s Trickle
	begin := time.Now()
	for _, c := range []struct {
		after time.Duration
		bytes int64
		want  bool
	}{
		{0, TrickleBytes - 1, true},
		{0, 100, true}, // into what is not there any more
		{0, 1, false},
		{TrickleEvery - 1, 1, false},
		{TrickleEvery, 10 * TrickleBytes, true}, // one is always let through
		{TrickleEvery + 1, 1, false},
		{10 * TrickleEvery, 1, true}, // a debt is forgotten
	} {
		require.Equal(t, c.want, s.Spend(begin.Add(c.after), c.bytes), "after %v, %d bytes", c.after, c.bytes)
	}
}
