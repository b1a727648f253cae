package node

import "testing"

func TestMaxConnections(t *testing.T) {
	t.Parallel()
	for files, want := range map[uint64]int{0: 16, 256: 16, 288: 16, 400: 72, 1024: 384, 4096: 1920, 16384: 4096, 1 << 40: 4096, ^uint64(0): 4096} {
		if got := maxConnections(files); got != want {
			t.Errorf("%d files: %d connections, want %d", files, got, want)
		}
	}
}
