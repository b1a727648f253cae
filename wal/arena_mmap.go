//go:build linux && !race

package wal

import (
	"time"

	"golang.org/x/sys/unix"
)

const arenaBytes = 16 * mib

// mapArena takes memory outside of the Go heap: the collector neither scans nor counts it. Huge pages would save nothing that shows at
// full rate, but to make one is a step of milliseconds.
func mapArena(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_NOHUGEPAGE)
	}
	return b, err
}

// populate puts the pages of a mapping in place, a few at a time: each call holds a lock that other mappings of the process wait for, and
// a processor. A kernel that does not know how (before Linux 5.14) does it at the first touch. pause is told how long each step took.
func populate(b []byte, pause func(took time.Duration)) {
	const step = 256 * kib
	for ; len(b) > 0; b = b[min(step, len(b)):] {
		begin := time.Now()
		if unix.Madvise(b[:min(step, len(b))], unix.MADV_POPULATE_WRITE) != nil {
			return
		}
		pause(time.Since(begin))
	}
}

func unmapArena(b []byte) { _ = unix.Munmap(b) }
