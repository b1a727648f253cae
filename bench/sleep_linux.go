package bench

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// newSleeper returns a sleep that wakes within microseconds: the runtime's own rounds up to a millisecond when nothing else
// runs, which is more than the latency that is to be measured. It belongs to the goroutine that calls it, until done.
func newSleeper() (sleep func(time.Duration), done func()) {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0) // ns; without it 50 µs
	sleep = func(d time.Duration) {
		t := unix.NsecToTimespec(d.Nanoseconds())
		_ = unix.Nanosleep(&t, nil) // the caller looks at the clock anyway
	}
	done = func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default
		runtime.UnlockOSThread()
	}
	return sleep, done
}
