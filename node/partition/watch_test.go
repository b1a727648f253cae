package partition

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type sleeper struct {
	Waiter
	awaits int32 // what it waits for, as the test sees it
	roused bool
}

func (s *sleeper) Rouse() { s.roused = true }

// TestWaiters checks the lists against a model: who is roused, and that it is once.
func TestWaiters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Waiters
		sleepers := make([]*sleeper, 5)
		for i := range sleepers {
			sleepers[i] = &sleeper{}
			sleepers[i].Rouser = sleepers[i]
		}
		which := func() *sleeper { return rapid.SampledFrom(sleepers).Draw(t, "waiter") }
		news := func(rouses func(awaits int32) bool) {
			for i, s := range sleepers {
				require.Equal(t, s.awaits != 0 && rouses(s.awaits), s.roused, "waiter %d, which awaits %d", i, s.awaits)
				if s.roused {
					s.roused, s.awaits = false, 0
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"await records": func(*rapid.T) {
				s := which()
				l.AwaitRecords(&s.Waiter, ToHighWatermark)
				s.awaits = onRecords(ToHighWatermark)
			},
			"await a move": func(*rapid.T) {
				s := which()
				l.AwaitMove(&s.Waiter)
				s.awaits = max(s.awaits, onMove)
			},
			"stop": func(*rapid.T) {
				s := which()
				l.StopWaiting(&s.Waiter)
				s.awaits = 0
			},
			"records": func(*rapid.T) {
				l.Advanced(ToHighWatermark)
				news(func(awaits int32) bool { return awaits == onRecords(ToHighWatermark) })
			},
			"a move": func(*rapid.T) {
				l.Moved()
				news(func(int32) bool { return true })
			},
			"": func(t *rapid.T) {
				for _, s := range sleepers {
					require.Equal(t, s.awaits, s.on.Load())
					require.False(t, s.roused)
				}
			},
		})
	})
}
