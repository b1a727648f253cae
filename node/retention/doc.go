// Package retention decides how much of a partition's log time and size let go of, by Kafka's rules (retention.ms, retention.bytes). It is
// pure: what there is and what time it is go in, and where the log is to begin comes out. Who asks, and makes it so, is node/partition.
package retention
