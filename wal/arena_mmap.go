//go:build linux && !race

package wal

import "golang.org/x/sys/unix"

const arenaBytes = 16 * mib

// mapArena takes memory outside of the Go heap: the collector neither scans nor counts it.
func mapArena(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // fewer page faults, and fewer pages to pin for direct I/O
	}
	return b, err
}

// populate puts the pages of a mapping in place, a huge page at a time: each call holds a lock that other mappings of the process
// wait for. A kernel that does not know how (before Linux 5.14) does it at the first touch.
func populate(b []byte) {
	const step = 2 * mib
	for ; len(b) > 0; b = b[min(step, len(b)):] {
		if unix.Madvise(b[:min(step, len(b))], unix.MADV_POPULATE_WRITE) != nil {
			return
		}
	}
}

func unmapArena(b []byte) { _ = unix.Munmap(b) }
