// Package controller is a node's part in the metadata of the cluster. The metadata is a log like every other,
// __cluster_metadata-0, whose committed batches build the placement.Table on every node:
//
//   - metadata.go: the group's machine; it feeds the table and tells who watches it (state);
//   - propose.go: brings commands into the log, on the node that leads the group (asks);
//   - reconciler.go: makes the replicas of this node what the table says they should be (acts);
//   - driver.go: runs on the leader and grows the metadata group with the cluster; absence.go: for how long it has watched a voter be away.
//
// Nothing here decides anything: decisions are pure functions of package placement.
package controller
