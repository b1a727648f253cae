package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

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

	Home string   `json:"home,omitempty"` // the store id of the node's first directory; empty: this is it
	More []string `json:"more,omitempty"` // the store ids of the others, in the first one
	Err  error    `json:"-"`              // why it cannot be read
}

// LookAtIdentity reads both files and writes nothing.
func LookAtIdentity(files disk.FS, dir string) []IdentityCopy {
	var copies []IdentityCopy
	for _, name := range identityFiles {
		s := readIdentity(disk.ReadOnly(files), filepath.Join(dir, name))
		copies = append(copies, IdentityCopy{
			File: name, ClusterID: s.ClusterID, Cluster: s.Cluster, NodeID: s.NodeID, StoreID: s.StoreID, Boot: s.Boot, Unsynced: string(s.Mark),
			Revision: s.Revision, Home: s.Home, More: s.More, Err: s.err,
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
		return again(a, b)
	case b.Err != nil:
		return again(b, a)
	case a.StoreID != b.StoreID || a.NodeID != b.NodeID:
		return fmt.Sprintf("%s is of store %s of node %d, %s of store %s of node %d", a.File, a.StoreID, a.NodeID, b.File, b.StoreID, b.NodeID), false
	case a.Home != b.Home:
		return fmt.Sprintf("%s is of a directory beside store %q, %s beside %q: one of them was not written here", a.File, a.Home, b.File, b.Home), false
	case a.ClusterID != b.ClusterID && a.ClusterID != "" && b.ClusterID != "":
		return fmt.Sprintf("%s is of cluster %s (%s), %s of %s (%s): one of them was not written here", a.File, a.Cluster, a.ClusterID, b.File, b.Cluster, b.ClusterID), false
	case a.Revision != b.Revision: // a node joins a cluster, and takes directories up, by writing both
		return fmt.Sprintf("%s has revision %d, %s %d: the next start makes them equal", a.File, a.Revision, b.File, b.Revision),
			a.Revision-b.Revision == 1 || b.Revision-a.Revision == 1
	case a.ClusterID != b.ClusterID || a.Cluster != b.Cluster || !slices.Equal(a.More, b.More) || a.Boot != b.Boot || a.Unsynced != b.Unsynced:
		return fmt.Sprintf("%s and %s have the same revision %d, and are not equal: one of them was not written here", a.File, b.File, a.Revision), false
	}
	return "", false
}

// again says that the next start makes a bad copy again. A write in its place may have been torn.
func again(bad, good IdentityCopy) (text string, crash bool) {
	crash = errors.Is(bad.Err, errIdentityDamaged)
	text = fmt.Sprintf("%v: the next start makes it again from %s", bad.Err, good.File)
	if crash {
		text += "; a crash in the middle of a start leaves that"
	}
	return text, crash
}
