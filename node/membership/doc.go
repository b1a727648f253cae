// Package membership finds the nodes of the cluster and notices when they come and go, by gossip (memberlist).
//
// What it says are hints: an address to try, a reason to look sooner. Who is a member, who leads and how many make a majority is
// decided by the metadata log and by Raft alone; a partition of the gossip, a lie in it or its silence costs time, not data.
//
// Each start of a node is a member of its own in the gossip, named "<node id>.<boot epoch>.<random>": so a restarted node is seen at once,
// on whatever address, and what is left of its former self dies alone. The table here keeps one Member for each node.
//
//	memberlist's goroutines ── callbacks copy ──▶ mailbox ──▶ deliver ──▶ table, Options.OnChange
//	                                                          rejoin  ──▶ seeds and Known that are not in the table
//	                                                          announce ─▶ SetClusterID
//
// deliver, rejoin and announce are the goroutines of a Membership; Close ends them and waits. Callbacks run under memberlist's lock, where
// calling memberlist deadlocks and blocking stops the gossip: they copy and return.
//
// The ports are open to anybody who can reach them. Package memberlist allocates what a header asks for, so the transport here reads
// first: bytes without the cluster's label, silent connections and messages that no node of this release sends end there, with at
// most one log line.
package membership
