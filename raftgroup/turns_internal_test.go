package raftgroup

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestTurnsFollowTheModel: a claim is for one, a refused one is for another turn, and the last turn gives the claim back.
func TestTurnsFollowTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var turns turns
		taken, asked := false, false
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			switch op := rapid.IntRange(0, 2).Draw(t, "op"); {
			case op == 0:
				if got := turns.claim(); got == taken {
					t.Fatalf("claim says %v, taken is %v", got, taken)
				}
				taken, asked = true, taken
			case op == 1 && taken:
				if got := turns.again(); got != asked {
					t.Fatalf("again says %v, asked is %v", got, asked)
				}
				taken, asked = asked, false
			case op == 2 && taken:
				turns.ask()
				asked = true
			}
		}
	})
}

// TestOneWorksAndNothingIsLost has many goroutines bring something at once and work for a few turns or none, as visitors and nudges do,
// beside one that works whatever is handed over to it. What is plain here belongs to whoever has the claim: the race detector sees two.
func TestOneWorksAndNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds, visitors, each = 400, 6, 4
		var (
			turns   turns
			waiting atomic.Int64 // brought, and not taken
			working atomic.Int64
			wake    = make(chan struct{}, 1)
			done    int64 // so much was taken
			count   int
			owed    bool // a turn asked for another one
		)
		turn := func() {
			if n := working.Add(1); n != 1 {
				t.Errorf("%d work at once", n)
			}
			owed = false
			done += waiting.Swap(0)
			runtime.Gosched() // what comes now is for another turn
			if count++; count%7 == 0 {
				turns.ask()
				owed = true
			}
			working.Add(-1)
		}
		handOver := func() {
			select {
			case wake <- struct{}{}:
			default:
				t.Error("two claims are handed over")
			}
		}
		visit := func(most int) {
			for range most {
				turn()
				if !turns.again() {
					return
				}
			}
			handOver()
		}
		go func() {
			for range wake {
				for again := true; again; again = turns.again() {
					turn()
				}
			}
		}()
		for round := range rounds { // what one loses the next would find: everything must be done after each
			var all sync.WaitGroup
			for v := range visitors {
				all.Go(func() {
					for i := range each {
						waiting.Add(1)
						if turns.claim() {
							visit((i + v) % 4)
						}
					}
				})
			}
			all.Wait()
			synctest.Wait()
			require.EqualValues(t, turnIdle, turns.state.Load(), "the claim was not given back")
			require.EqualValues(t, (round+1)*visitors*each, done, "something is left")
			require.False(t, owed, "a turn that was asked for was not taken")
		}
		close(wake)
	})
}

// TestInboxKnowsWhatWaits puts something in at the moment at which everything is taken out, again and again: what is left is known to wait,
// or nobody would come for it.
func TestInboxKnowsWhatWaits(t *testing.T) {
	const rounds = 20_000
	var in inbox
	var at [2]atomic.Int64 // how far both are
	meet := func(who int, round int64) {
		at[who].Store(round)
		for at[1-who].Load() < round {
			runtime.Gosched()
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for i := range int64(rounds) {
			meet(0, 2*i+1)
			for range i % 50 {
				at[0].Load() // a little later each time
			}
			in.post(event{})
			meet(0, 2*i+2)
		}
	})
	var d delivery
	for i := range int64(rounds) {
		meet(1, 2*i+1)
		in.take(&d)
		meet(1, 2*i+2)
		if len(in.urgent) > 0 && !in.waiting.Load() {
			t.Errorf("round %d: %d wait, and nobody knows", i, len(in.urgent))
			break
		}
	}
	at[1].Store(2*rounds + 2)
	all.Wait()
}
