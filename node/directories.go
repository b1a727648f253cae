package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
)

// A node may have several data directories. The first is its home: it says which node of which cluster this is, has the metadata, and the
// list of the others. Each has an identity with a store id of its own, names its home's, and has a store with a journal of its own; in which
// order the others are given does not matter.
//
// A replica that voted must never be made anew, and a node cannot tell a replica that it never had from one that was in a directory which is
// not there. So a start without one of the directories in the list is refused, unless its operator allows it: mostly a disk is not mounted
// yet, or a name is wrong, and the next start has it. With --allow-missing-data-dirs what may be in that directory stays offline, and is
// made nowhere (replicas.Stores). The first directory cannot be missing. A directory comes into the list in these steps, each of which is
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
//
// missing are the directories that the home lists and that are not there, if that is all that is wrong.
func checkDirectories(homePath string, home identity, paths []string, found []identity) (missing missingError, err error) {
	if home.Home != "" {
		first := slices.IndexFunc(found, func(i identity) bool { return i.StoreID == home.Home })
		if first < 0 {
			return missing, fmt.Errorf("%s is not the first data directory of node %d, but one beside that of store %s: name that one first with --data-dir, and this one too",
				homePath, home.NodeID, home.Home)
		}
		return missing, fmt.Errorf("%s is the first data directory of node %d, and %s is one beside it: name %s first with --data-dir",
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
			return missing, fmt.Errorf("%s is in use by node %d, and %s, which is named first, is empty: name the node's first data directory first; is its disk mounted?",
				path, ident.NodeID, homePath)
		case at[ident.StoreID] != "":
			return missing, fmt.Errorf("%s and %s have the same store id %s: one is a copy of the other, or the same directory under another name: "+
				"name the one that the node wrote last, once", at[ident.StoreID], path, ident.StoreID)
		case ident.Home == "":
			return missing, fmt.Errorf("%s is the first data directory of node %d, store %s: give this node directories of its own with --data-dir",
				path, ident.NodeID, ident.StoreID)
		case ident.Home != home.StoreID || ident.NodeID != home.NodeID:
			return missing, fmt.Errorf("%s belongs to another first data directory (store %s of node %d) than %s (store %s of node %d): name those together that "+
				"were written together", path, ident.Home, ident.NodeID, homePath, home.StoreID, home.NodeID)
		}
		at[ident.StoreID] = path
	}
	missing = missingError{home: homePath, empty: empty}
	missing.stores = slices.DeleteFunc(slices.Clone(home.More), func(store string) bool { return at[store] != "" })
	return missing, nil
}

// missingError is a start without directories that the home lists.
type missingError struct {
	home   string
	stores []string
	empty  []string // directories that were named and have nothing in them
}

func (e missingError) Error() string {
	hint := ""
	if len(e.empty) > 0 {
		hint = fmt.Sprintf(" (%s: empty; is the disk mounted?)", strings.Join(e.empty, ", "))
	}
	return fmt.Sprintf("%d of the data directories that %s lists are not there: store %s%s: name all directories of the node with --data-dir; "+
		"if one is lost, its replicas have forgotten what they voted for: start this node with --allow-missing-data-dirs, which leaves them offline "+
		"and goes on with the others, or with empty directories and an unused node id",
		len(e.stores), e.home, strings.Join(e.stores, ", "), hint)
}

// absentDirectory is one that the home lists and that the node goes on without.
type absentDirectory struct {
	name string // the path, or the store id
	why  error
}

// failsDisk tells whether an error is one of the disk, not of what is on it: that is what a node may go on without.
func failsDisk(err error) bool {
	var errno syscall.Errno
	var locked *disk.LockedError
	return errors.As(err, &errno) && !errors.As(err, &locked) && !errors.Is(err, disk.ErrNoSpace) && !errors.Is(err, fs.ErrPermission)
}

// lookAtMore takes the directories beside the first, and reads whose they are. Those whose disk fails are in unusable, if the node may go on
// without them.
func (n *Node) lookAtMore(ctx context.Context) (found []identity, paths []string, unusable []absentDirectory, err error) {
	for _, path := range n.options.MoreDataDirs {
		d, err := n.lockDirectory(ctx, path)
		if err == nil {
			d.identity, err = n.peek(d.files, path)
		}
		switch {
		case err == nil:
			found, paths = append(found, d.identity), append(paths, path)
			n.more = append(n.more, d)
		case failsDisk(err) && n.options.AllowMissingDataDirs:
			unusable = append(unusable, absentDirectory{path, err})
		case failsDisk(err):
			return nil, nil, nil, fmt.Errorf("%w; or start the node with --allow-missing-data-dirs, which leaves the replicas in it offline", err)
		default:
			return nil, nil, nil, err
		}
	}
	return found, paths, unusable, nil
}

// goWithout has the node go on without the directories that are missing, or refuses. Those that are empty are left alone: each may be the place
// where a missing one is mounted.
func (n *Node) goWithout(missing missingError, unusable []absentDirectory) error {
	if len(unusable) > len(missing.stores) {
		return fmt.Errorf("%w: it is not one that the node has used", unusable[0].why)
	}
	if len(missing.stores) == 0 {
		return nil
	}
	if !n.options.AllowMissingDataDirs {
		return missing
	}
	used := n.more[:0]
	for _, d := range n.more {
		if d.identity.StoreID != "" {
			used = append(used, d)
		} else {
			n.logger.Warn("an empty data directory is not used while one of the node's is missing: is the disk mounted?", "data_dir", d.path)
		}
	}
	n.more = used
	n.absent = append(n.absent, unusable...)
	for _, store := range missing.stores[len(unusable):] {
		n.absent = append(n.absent, absentDirectory{"of store " + store, errors.New("not there")})
	}
	return nil
}

// lose has the node go on without a directory that it lists, whose disk fails at the start; false: it may not.
func (n *Node) lose(d *directory, err error) bool {
	if !d.listed || !n.options.AllowMissingDataDirs || !failsDisk(err) {
		return false
	}
	n.absent = append(n.absent, absentDirectory{d.path, err})
	return true
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

// sayAbsent says what the node goes on without.
func (n *Node) sayAbsent() {
	var names []string
	for _, a := range n.absent {
		names = append(names, a.name)
		n.logger.Error("a data directory is missing: the replicas in it are offline, and are made nowhere else, until a start with it",
			"data_dir", a.name, "reason", a.why)
	}
	n.stores.Miss(names...)
}

// failedDirectories says which of the directories beside the first failed or are missing, and why; nil: none.
func (n *Node) failedDirectories() error {
	var list []string
	for _, d := range n.more {
		if err := d.store.Err(); err != nil {
			list = append(list, fmt.Sprintf("data directory %s failed: %v: %d replicas are offline", d.path, err, n.replicas.OfflineIn(d.path)))
		}
	}
	if len(n.absent) > 0 {
		var why []string
		for _, a := range n.absent {
			why = append(why, fmt.Sprintf("%s (%v)", a.name, a.why))
		}
		list = append(list, fmt.Sprintf("data directory missing since the start: %s: %d replicas are offline",
			strings.Join(why, ", "), n.replicas.OfflineIn(n.stores.Missing())))
	}
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%s; see to the disk and start the node again", strings.Join(list, "; "))
}

// watchDirectories stops the replicas of directories that fail.
func (n *Node) watchDirectories(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-n.failed:
			if !slices.Contains(n.more, d) { // it failed before it was open
				continue
			}
			stopped := n.replicas.StoreFailed(d.store)
			n.logger.Error("a data directory failed: its replicas are offline, and those of the others go on; see to the disk and start the node again",
				"data_dir", d.path, "replicas", stopped, "reason", d.store.Err())
		}
	}
}
