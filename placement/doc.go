// Package placement decides who holds what: which nodes are in the cluster, which topics there are, which node keeps which
// replica of each partition, and what should move next.
//
// Everything in it is a pure function of its arguments: no clock, no goroutine, no file, no socket, no randomness. The
// metadata [Table] is a state machine that is fed with the committed commands of __cluster_metadata-0 in log order, on every
// node; two nodes that applied the same commands hold the same table, byte for byte of its snapshot. [Assign] spreads the
// replicas of a new topic. [PlanQuorum] and [PlanLeaders] say what to change next; others do it.
//
//	proposer ── PlanTopic, Check, Encode ──▶ metadata log ── Decode ──▶ Table.Fold ──▶ View (immutable)
//	                                                                                    ├──▶ reads: Topic, Node, Partition, ReplicasOn, Fate
//	                                                                                    ├──▶ Changes: what a node opens and closes
//	                                                                                    └──▶ Plan…: what the driver does next
//
// Nodes of two releases run side by side. So what a command does (apply.go) never depends on the release, the rules of which (rules.go)
// are asked before a proposal only; what came with a release has a feature level (level.go), and what a release does not know stops it.
//
// A [Table] has one writer, the worker of the metadata group. A [View] is never changed after it was published, so readers
// on any goroutine use it without a lock, for as long as they like.
package placement
