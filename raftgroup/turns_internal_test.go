package raftgroup

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// TestOneOfTwoClaims has two claim at the same moment, again and again.
func TestOneOfTwoClaims(t *testing.T) {
	const rounds = 20_000
	var turns turns
	var at [2]atomic.Int64 // how far both are
	var claimed [2]bool
	meet := func(who int, step int64) {
		at[who].Store(step)
		for n := 1; at[1-who].Load() < step; n++ {
			if n%1000 == 0 {
				runtime.Gosched()
			}
		}
	}
	run := func(who int) {
		for i := range int64(rounds) {
			meet(who, 3*i+1)
			for range (i >> (4 * who)) % 16 { // now one is a little later, now the other
				at[who].Load()
			}
			claimed[who] = turns.claim()
			meet(who, 3*i+2)
			if who == 0 {
				if claimed[0] == claimed[1] {
					t.Errorf("round %d: both claims say %v", i, claimed[0])
				}
				if !turns.again() || turns.again() {
					t.Errorf("round %d: the one that was refused is not heard", i)
				}
			}
			meet(who, 3*i+3)
		}
	}
	var other sync.WaitGroup
	other.Go(func() { run(1) })
	run(0)
	other.Wait()
}

// TestWaitingIsClearedBeforeTheLook: what is put in after somebody has looked is known to wait, also if he has not said so before: he says
// that nothing waits first.
func TestWaitingIsClearedBeforeTheLook(t *testing.T) {
	var in inbox
	require.True(t, in.post(event{}))
	require.True(t, in.waiting.Load())
	in.mu.Lock()
	var d delivery
	taken := make(chan struct{})
	go func() {
		in.take(&d)
		close(taken)
	}()
	for deadline := time.Now().Add(time.Second); in.waiting.Load() && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	require.False(t, in.waiting.Load(), "it is cleared after the look")
	in.mu.Unlock()
	<-taken
	require.Len(t, d.urgent, 1)
}
