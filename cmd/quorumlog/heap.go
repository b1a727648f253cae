package main

import (
	"os"
	"runtime"
)

// heapFloor is what the Go heap may grow by, at least, between two collections. A node's live heap is a few megabytes, since its data
// lies outside of it: the collector would run several times a second, each time in front of records that wait for an answer.
const heapFloor = 48 << 20

// keepHeapFloor gives the collector memory to count that is never touched, and so takes none of the machine's. The function it returns
// ends that. Whoever sets GOGC or GOMEMLIMIT has decided for himself.
func keepHeapFloor() (end func()) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return func() {}
	}
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}
