//go:build !quorumlog_before

package partition

// knowsLogStart tells whether this release has the view of the log start.
const knowsLogStart = true
