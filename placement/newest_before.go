//go:build quorumlog_before

package placement

// The release before this one, for the test that upgrades a cluster (cmd/quorumlog). node/partition lacks what came with the level, too.

// newestLevel is the last level of that release.
const newestLevel = LogStartLevel - 1
