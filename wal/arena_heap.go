//go:build !linux || race

package wal

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
)

const arenaBytes = 16 * mib // this memory is zeroed when it is taken

// mapArena takes memory of the Go heap, which the race detector can see.
func mapArena(n int) ([]byte, error) { return disk.AlignedBytes(n), nil }

func populate([]byte, func(time.Duration)) {}

func unmapArena([]byte) {}
