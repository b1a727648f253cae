package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
)

// A node may have several data directories. The first is its home: it says which node of which cluster this is, has the metadata, and the
// list of the others. Each has an identity with a store id of its own, names its home's, and has a store with a journal of its own; in which
// order the others are given does not matter.
//
// A replica that voted must never be made anew, and a node cannot tell a replica that it never had from one that was in a directory which is
// not there. So a start without one of the directories in the list is refused. A directory comes into the list in these steps, each of which is
// durable before the next:
//
//  1. Its identity is written, with the store id of its home.
//  2. Its store notes the same id.
//  3. The home's list has it. From now on it cannot be missing, nor its store.
//  4. Replicas are made in it.
//
// A crash in between leaves a directory that is empty and not in the list, and that the next start takes up where it was left.
type directory struct {
	path        string
	files       disk.FS
	pebbleFiles vfs.FS // nil: the operating system's
	lock        io.Closer
	identity    identity
	listed      bool // in the home's list
	store       *wal.Store
}

// checkDirectories compares what the directories beside the first say with what that one says, before anything is written. found are their
// identities, the zero one where there is none.
func checkDirectories(homePath string, home identity, paths []string, found []identity) error {
	if home.Home != "" {
		first := slices.IndexFunc(found, func(i identity) bool { return i.StoreID == home.Home })
		if first < 0 {
			return fmt.Errorf("%s is not the first data directory of node %d, but one beside that of store %s: name that one first with --data-dir, and this one too",
				homePath, home.NodeID, home.Home)
		}
		return fmt.Errorf("%s is the first data directory of node %d, and %s is one beside it: name %s first with --data-dir",
			paths[first], home.NodeID, homePath, paths[first])
	}
	at := map[string]string{home.StoreID: homePath}
	var empty []string
	for i, ident := range found {
		path := paths[i]
		switch {
		case ident.StoreID == "":
			empty = append(empty, path)
			continue
		case home.StoreID == "":
			return fmt.Errorf("%s is in use by node %d, and %s, which is named first, is empty: name the node's first data directory first; is its disk mounted?",
				path, ident.NodeID, homePath)
		case at[ident.StoreID] != "":
			return fmt.Errorf("%s and %s have the same store id %s: one is a copy of the other, or the same directory under another name: "+
				"name the one that the node wrote last, once", at[ident.StoreID], path, ident.StoreID)
		case ident.Home == "":
			return fmt.Errorf("%s is the first data directory of node %d, store %s: give this node directories of its own with --data-dir",
				path, ident.NodeID, ident.StoreID)
		case ident.Home != home.StoreID || ident.NodeID != home.NodeID:
			return fmt.Errorf("%s belongs to another first data directory (store %s of node %d) than %s (store %s of node %d): name those together that "+
				"were written together", path, ident.Home, ident.NodeID, homePath, home.StoreID, home.NodeID)
		}
		at[ident.StoreID] = path
	}
	missing := slices.DeleteFunc(slices.Clone(home.More), func(store string) bool { return at[store] != "" })
	if len(missing) == 0 {
		return nil
	}
	hint := ""
	if len(empty) > 0 {
		hint = fmt.Sprintf(" (%s: empty; is the disk mounted?)", strings.Join(empty, ", "))
	}
	return fmt.Errorf("%d of the data directories that %s lists are not there: store %s%s: name all directories of the node with --data-dir; "+
		"if one is lost, its replicas have forgotten what they voted for: start this node with empty directories and an unused node id",
		len(missing), homePath, strings.Join(missing, ", "), hint)
}

// peek returns the identity of a directory, the zero one if it has none.
func (n *Node) peek(files disk.FS, dir string) (identity, error) {
	ident, err := loadIdentity(files, dir, n.logger)
	if errors.Is(err, errNoIdentity) {
		return identity{}, nil
	}
	return ident, err
}

// enlist has the first directory know of the others, whose stores are open.
func (n *Node) enlist() error {
	more := slices.Clone(n.identity.More)
	for _, d := range n.more {
		if d.listed {
			continue
		}
		if held := len(d.store.Logs()) + len(d.store.Refused()); held > 0 {
			return fmt.Errorf("%s has %d replicas, and %s does not know of it, so that is of an earlier time: restore both as they were, "+
				"or start this node with empty directories and an unused node id", d.path, held, n.options.DataDir)
		}
		more = append(more, d.identity.StoreID)
	}
	if len(more) == len(n.identity.More) {
		return nil
	}
	n.identity.More = more
	if err := n.identity.store(n.files, n.options.DataDir); err != nil {
		return err
	}
	for _, d := range n.more {
		d.listed = true
	}
	return nil
}

// failedDirectories says which of the directories beside the first failed, and why; nil: none.
func (n *Node) failedDirectories() error {
	var list []string
	for _, d := range n.more {
		if err := d.store.Err(); err != nil {
			list = append(list, fmt.Sprintf("data directory %s failed: %v", d.path, err))
		}
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d replicas are offline; see to the disk and start the node again", strings.Join(list, "; "), n.replicas.OfflineCount())
}

// watchDirectories stops the replicas of directories that fail.
func (n *Node) watchDirectories(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-n.failed:
			stopped := n.replicas.StoreFailed(d.store)
			n.logger.Error("a data directory failed: its replicas are offline, and those of the others go on; see to the disk and start the node again",
				"data_dir", d.path, "replicas", stopped, "reason", d.store.Err())
		}
	}
}
