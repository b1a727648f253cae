package rpc

import (
	"sync"
	"testing"
)

// TestTakeSmallIsSmall has others fill the train that somebody is about to take because it is small.
func TestTakeSmallIsSmall(t *testing.T) {
	q := newTrains(1<<30, testVersion)
	put := func(bytes int) {
		m := appendOf(1, make([]byte, bytes))
		n, _ := messageSize(m)
		q.put(n, 1, m, nil)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 3000 {
				put(100 << 10)
				for range 3 {
					if t := q.take(); t != nil {
						q.done(t)
					}
				}
			}
		})
	}
	for range 10_000 {
		put(100)
		if small := q.takeSmall(smallTrain); small != nil {
			if small.size > smallTrain {
				t.Fatalf("a train of %d bytes was taken, %d are small", small.size, smallTrain)
			}
			q.done(small)
		}
	}
	wg.Wait()
}
