package wal

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/lni/goutils/leaktest"
)

// The crash tests let a store with tiny files, caches and checkpoints work, crash at any operation on the disk (also in the
// middle of recovery), and compare what it recovers with a model: see crash_model_test.go for what is allowed. Goroutines make
// the runs differ a little even with the same seed; repeat one to find a rare failure again:
//
//	QUORUMLOG_CRASH_SEED=17 go test ./wal -run TestCrashes -count=20 -v
//	QUORUMLOG_CRASH_SEEDS=5000 go test ./wal -run TestCrashes -timeout=0

// crashSeeds returns the seeds to run: of the environment, or the first n.
func crashSeeds(t testing.TB, n int) (from, to uint64) {
	number := func(name string) (uint64, bool) {
		v, ok := os.LookupEnv(name)
		if !ok {
			return 0, false
		}
		x, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("%s=%s: %v", name, v, err)
		}
		return x, true
	}
	if seed, ok := number("QUORUMLOG_CRASH_SEED"); ok {
		return seed, seed + 1
	}
	if seeds, ok := number("QUORUMLOG_CRASH_SEEDS"); ok {
		n = int(seeds)
	}
	from, _ = number("QUORUMLOG_CRASH_FROM")
	return from, from + uint64(n)
}

func replay(t testing.TB, seed uint64) string {
	return fmt.Sprintf("replay: QUORUMLOG_CRASH_SEED=%d go test ./wal -run '^%s$' -count=20", seed, t.Name())
}

// crashTest runs seeds until one fails, a third of them with -short: the race detector, which is run so, makes them five times slower.
func crashTest(t *testing.T, n int, config func(seed uint64) crashConfig) {
	defer leaktest.AfterTest(t)()
	if testing.Short() {
		n = (n + 2) / 3
	}
	from, to := crashSeeds(t, n)
	for seed := from; seed < to && !t.Failed(); seed++ {
		c := config(seed)
		c.seed, c.trace = seed, testing.Verbose()
		r := newCrashRun(c)
		if err := r.run(); err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, replay(t, seed))
			for _, line := range r.lines {
				fmt.Println(line)
			}
		}
		if seed%100 == 99 {
			t.Logf("seeds to %d", seed)
		}
	}
}

func TestCrashes(t *testing.T) {
	crashTest(t, 40, func(seed uint64) crashConfig { return crashConfig{boots: 8, ops: 60, full: seed%4 == 3} })
}
