//go:build quorumlog_before

package partition

// The release before this one, for the test that upgrades a cluster (cmd/quorumlog): see package placement.

// knowsLogStart tells whether that release has the view of the log start. What it does not know stops it.
const knowsLogStart = false
