package budget

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
)

// greedy takes pieces until it gets no more, and returns how much it has.
func greedy(s *Share, piece int64) int64 {
	for s.Take(piece) == nil {
	}
	return s.Held()
}

func TestWhoWantsAllLeavesRoom(t *testing.T) {
	const total = 1 << 20
	for _, k := range []int{1, 2, 7, 100} {
		f := NewFair(total, 0)
		shares := make([]*Share, k)
		for i := range shares {
			shares[i] = f.Share(total)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 1000 * k { // what somebody has in flight is answered, and he sends again
			s := shares[rng.IntN(k)]
			s.Give(s.Held())
			greedy(s, 512)
		}
		fair := int64(total / (k + 1))
		if free := total - f.Used(); free < fair/2 {
			t.Errorf("%d greedy ones leave %d bytes, %d would be fair", k, free, fair)
		}
		for i, s := range shares {
			if s.Held() < fair/4 {
				t.Errorf("of %d, number %d has %d bytes, %d would be fair", k, i, s.Held(), fair)
			}
		}
		if err := f.Share(total).Take(fair / 2); err != nil {
			t.Errorf("beside %d greedy ones a new connection gets nothing: %v", k, err)
		}
	}
}

func TestOwnBoundAndFloor(t *testing.T) {
	f := NewFair(1000, 10)
	one := f.Share(100)
	if got := greedy(one, 10); got != 100 || !errors.Is(one.Take(1), ErrOwn) {
		t.Errorf("a connection has %d of its 100", got)
	}
	if err := f.Share(100).Take(150); err != nil { // what is larger than a share goes alone, or it would never go
		t.Error(err)
	}
	if err := f.Share(1000).Take(700); err != nil {
		t.Error(err)
	}
	late := f.Share(100)
	if err := late.Take(51); !errors.Is(err, ErrFull) {
		t.Errorf("more than there is: %v", err)
	}
	if err := late.Take(50); err != nil {
		t.Error(err)
	}
	for range 5 {
		small := f.Share(100)
		if err := small.Take(10); err != nil {
			t.Errorf("the floor: %v", err)
		}
		if err := small.Take(1); !errors.Is(err, ErrFull) {
			t.Errorf("above the floor: %v", err)
		}
	}
	if f.Used() != 1050 || f.Refused() == 0 {
		t.Errorf("used %d, refused %d", f.Used(), f.Refused())
	}
}

func TestNothingIsLost(t *testing.T) {
	f := NewFair(10_000, 100)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			s := f.Share(5000)
			for range 2000 {
				if rng.IntN(2) == 0 {
					_ = s.Take(rng.Int64N(500))
				} else if held := s.Held(); held > 0 {
					s.Give(rng.Int64N(held) + 1)
				}
			}
			s.Give(s.Held())
		})
	}
	all.Wait()
	if f.Used() != 0 {
		t.Errorf("%d bytes are held by nobody", f.Used())
	}
}
