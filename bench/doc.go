// Package bench measures and verifies: it starts clusters of real processes, loads them, and compares what was acknowledged
// with what can be read back. A figure without that comparison is not worth printing.
package bench
