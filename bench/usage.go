package bench

import "time"

// usage is what a process has used so far.
type usage struct {
	cpu      time.Duration // user and system
	rss      int64         // bytes, now
	written  int64         // bytes handed to the block layer, or made dirty in the page cache
	syscalls int64         // read and write calls
}

// account follows processes, of which some may end and others begin meanwhile.
type account struct {
	first, last map[int]usage // by process id
}

func newAccount(pids []int) *account {
	a := &account{first: make(map[int]usage), last: make(map[int]usage)}
	for _, pid := range pids {
		a.first[pid], _ = usageOf(pid)
	}
	return a
}

// look notes what the processes have used. What one uses after the last look before its end is not counted.
func (a *account) look(pids []int) {
	for _, pid := range pids {
		if u, ok := usageOf(pid); ok {
			a.last[pid] = u
		}
	}
}

// used is what all of them have used since the beginning; rss is that of the ones that are alive.
func (a *account) used(alive []int) (sum usage) {
	for pid, last := range a.last {
		first := a.first[pid]
		sum.cpu += last.cpu - first.cpu
		sum.written += last.written - first.written
		sum.syscalls += last.syscalls - first.syscalls
	}
	sum.rss = a.rss(alive)
	return sum
}

// rss is the memory that processes held at the last look.
func (a *account) rss(alive []int) (sum int64) {
	for _, pid := range alive {
		sum += a.last[pid].rss
	}
	return sum
}

// processorTime is what one processor has done, in seconds.
type processorTime struct {
	busy   float64
	stolen float64 // wanted to work, but the host of the virtual machine had none to give
	all    float64 // idle included
}

// processorsUsed returns how busy each processor was between two looks, and how much of all of them was stolen, in percent.
func processorsUsed(before, after []processorTime) (busy []float64, stolen float64) {
	if len(before) != len(after) || len(after) == 0 {
		return nil, 0
	}
	var sum processorTime
	for i, b := range after {
		a := before[i]
		sum.stolen += b.stolen - a.stolen
		sum.all += b.all - a.all
		busy = append(busy, percentOf(b.busy-a.busy, b.all-a.all))
	}
	return busy, percentOf(sum.stolen, sum.all)
}

func percentOf(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
}
