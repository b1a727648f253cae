package fetching

import (
	"testing"
)

// BenchmarkCommit is what a turn pays for those who read a partition when its high watermark moves. Their sessions do not get to look in
// between, but for those of "waiting", which do each time.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name            string
		sessions, each  int
		credit          int64
		looking, behind bool
	}{
		{name: "nobody"},
		{name: "idle=1x10000", sessions: 1, each: 10_000},
		{name: "idle=20x10000", sessions: 20, each: 10_000},
		{name: "ready=1x10000", sessions: 1, each: 10_000, credit: 1 << 40, behind: true},
		{name: "ready=20x500", sessions: 20, each: 500, credit: 1 << 40, behind: true},
		{name: "roused=1x10000", sessions: 1, each: 10_000, credit: 1 << 40},
		{name: "waiting=1x1", sessions: 1, each: 1, credit: 1 << 40, looking: true},
		{name: "waiting=1x10000", sessions: 1, each: 10_000, credit: 1 << 40, looking: true},
		{name: "waiting=100x1", sessions: 100, each: 1, credit: 1 << 40, looking: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newHub(b, Options{})
			p := newReplica(b, 10)
			var sessions []*Session
			for range c.sessions {
				s := h.NewSession()
				defer s.Close()
				for i := range ID(c.each) {
					if err := s.Subscribe(Subscription{ID: i, Partition: p, Credit: c.credit}); err != nil {
						b.Fatal(err)
					}
				}
				if !c.behind {
					drain(b, s)
				}
				sessions = append(sessions, s)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				p.commit(1)
				if !c.looking {
					continue
				}
				b.StopTimer()
				for _, s := range sessions {
					drain(b, s)
				}
				b.StartTimer()
			}
		})
	}
}
