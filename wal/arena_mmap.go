//go:build unix && !race

package wal

import "golang.org/x/sys/unix"

// mapArena takes memory outside of the Go heap: the collector neither scans nor counts it.
func mapArena(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

func unmapArena(b []byte) { _ = unix.Munmap(b) }
