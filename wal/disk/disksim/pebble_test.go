package disksim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// fatal is a pebble.Logger that fails the test when Pebble would end the process.
type fatal struct{ t *testing.T }

func (fatal) Infof(string, ...any)                {}
func (fatal) Errorf(string, ...any)               {}
func (l fatal) Fatalf(format string, args ...any) { l.t.Errorf("pebble: "+format, args...) }

func openPebble(t *testing.T, d *Disk) (*pebble.DB, error) {
	return pebble.Open("/data/pebble", &pebble.Options{FS: d.Pebble(), Logger: fatal{t}, MemTableSize: 64 << 10})
}

// TestPebbleCrashesAtTheSameInstant writes numbers to Pebble and to a file in turns, stops anywhere, and checks that neither
// has lost what it acknowledged, that neither knows more than was begun, and that the dead Pebble can be closed.
func TestPebbleCrashesAtTheSameInstant(t *testing.T) {
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := New(Options{Seed: seed})
		next := 0 // the number to write; all below are acknowledged
		for boot := range 4 {
			if boot > 0 {
				d.CrashAt(1 + rng.Int64N(150))
			}
			db, err := openPebble(t, d)
			if d.Halted() {
				if err == nil {
					must(t, db.Close())
				}
				d = d.Crash(Kill)
				continue
			}
			must(t, err)
			have := readNumber(t, db)
			if have < next-1 || have > next {
				t.Fatalf("seed %d, boot %d: Pebble holds %d, %d was acknowledged", seed, boot, have, next-1)
			}
			for next = have + 1; next < 400 && !d.Halted(); {
				err := db.Set([]byte("n"), fmt.Appendf(nil, "%0400d", next), pebble.Sync)
				must(t, err)
				if !d.Halted() {
					next++
				}
			}
			must(t, db.Close())
			d = d.Crash(Kind(rng.IntN(2)))
		}
	}
}

func readNumber(t *testing.T, db *pebble.DB) int {
	v, closer, err := db.Get([]byte("n"))
	if errors.Is(err, pebble.ErrNotFound) {
		return -1
	}
	must(t, err)
	defer closer.Close()
	var n int
	if _, err := fmt.Sscanf(string(v), "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
