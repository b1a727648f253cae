package placement

import "github.com/quorumlog/quorumlog/wal/id"

// checkRemoved refuses a node that was unregistered and comes back with its old data. Its metadata log is that of a replica which is not
// in the group any more, and would be opened as one that is. A replica id is used once, so one that is gone is positive evidence.
func (v *View) checkRemoved(c RegisterNode) error {
	if !v.Removed(c.MetadataReplica) {
		return nil
	}
	return refuse(ErrRemovedNode,
		"node %d with store %s was removed from this cluster: start it with an empty data directory and an unused node id to make it a new node",
		c.Node, quote(c.StoreID))
}

// Removed tells whether a replica of the metadata group belonged to a node that was unregistered since.
func (v *View) Removed(r id.Replica) bool {
	return r != id.NoReplica && r < v.nextReplica && v.metadataFate(r) == FateDeleted
}
