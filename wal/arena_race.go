//go:build race

package wal

// Builds with the race detector are tests: whoever reads what was freed is to find garbage.
func init() { poisonFreed = true }
