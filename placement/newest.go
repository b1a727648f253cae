//go:build !quorumlog_before

package placement

// newestLevel is the last level of this release.
const newestLevel = LogStartLevel
