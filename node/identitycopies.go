package node

import (
	"fmt"
	"path/filepath"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// IdentityCopy is one of the two files that say whose a data directory is, as it is found there.
type IdentityCopy struct {
	File      string  `json:"file"`
	ClusterID string  `json:"clusterId,omitempty"`
	Cluster   string  `json:"cluster,omitempty"`
	NodeID    id.Node `json:"nodeId"`
	StoreID   string  `json:"storeId,omitempty"`
	Boot      uint64  `json:"boot"`
	Unsynced  string  `json:"unsynced,omitempty"` // the mark of a directory that was written without syncs
	Revision  uint64  `json:"revision"`
	Err       error   `json:"-"` // why it cannot be read
}

// LookAtIdentity reads both files and writes nothing.
func LookAtIdentity(files disk.FS, dir string) []IdentityCopy {
	var copies []IdentityCopy
	for _, name := range identityFiles {
		s := readIdentity(disk.ReadOnly(files), filepath.Join(dir, name))
		copies = append(copies, IdentityCopy{
			File: name, ClusterID: s.ClusterID, Cluster: s.Cluster, NodeID: s.NodeID, StoreID: s.StoreID, Boot: s.Boot, Unsynced: string(s.Mark),
			Revision: s.Revision, Err: s.err,
		})
	}
	return copies
}

// Disagree says in what way two copies of an identity are not what they should be, and whether a crash in the middle of a start leaves that.
func Disagree(copies []IdentityCopy) (text string, crash bool) {
	a, b := copies[0], copies[1]
	switch {
	case a.Err != nil && b.Err != nil:
		return fmt.Sprintf("both copies are bad: %v; %v", a.Err, b.Err), false
	case a.Err != nil:
		return fmt.Sprintf("%v: the next start makes it again from %s", a.Err, b.File), false
	case b.Err != nil:
		return fmt.Sprintf("%v: the next start makes it again from %s", b.Err, a.File), false
	case a.StoreID != b.StoreID || a.NodeID != b.NodeID:
		return fmt.Sprintf("%s is of store %s of node %d, %s of store %s of node %d", a.File, a.StoreID, a.NodeID, b.File, b.StoreID, b.NodeID), false
	case a.Revision != b.Revision:
		return fmt.Sprintf("%s has revision %d, %s %d: the next start makes them equal", a.File, a.Revision, b.File, b.Revision), true
	}
	return "", false
}
