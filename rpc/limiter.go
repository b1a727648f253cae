package rpc

import (
	"fmt"
	"runtime/debug"
)

// panicDetails returns what a recovered panic was about, and where. Called from the deferred function that recovered it.
func panicDetails(p any) (value, stack string) {
	if carried, ok := p.(*panicked); ok {
		return fmt.Sprint(carried.value), string(carried.stack)
	}
	return fmt.Sprint(p), string(debug.Stack())
}

// shorten bounds a text that came from outside, for logs and messages.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
