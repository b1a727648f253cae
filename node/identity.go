package node

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// formatVersion is the version of everything below the data directory. A directory of a later one is refused.
const formatVersion = 2

// severalVersion is that of the directories of a node that has several: a release that knows of one alone must open none of them, or it would
// make the replicas anew that are in the others.
const severalVersion = 3

// identity says whose data a directory holds. It is checked before anything else is read: a copied or mounted-over directory
// under the wrong node would break every promise that its replicas made.
type identity struct {
	ClusterID string  // empty until the node belongs to a cluster
	Cluster   string  // the name of that cluster, as of then
	NodeID    id.Node // the operator's
	StoreID   string  // made with the directory: tells a wiped disk from the one before
	Founder   bool    // this directory's node founded the cluster: it may create the metadata log
	Boot      uint64  // counts starts; fences messages of earlier ones
	Mark      mark    // whether all that the directory holds has been synced
	Revision  uint64  // counts the writes of this file

	Home string   // the store id of the node's first directory; empty: this is it
	More []string // of the first directory: the store ids of the others. Durable before there is a replica in any
}

func (i *identity) version() int {
	if i.Home != "" || len(i.More) > 0 {
		return severalVersion
	}
	return formatVersion
}

// openIdentity reads the identity of dir, or makes one of what a new directory begins with, counts this start, and marks the directory if the
// node is not going to sync.
func openIdentity(files disk.FS, dir string, fresh identity, cluster string, class wal.FsyncClass, logger *slog.Logger) (identity, error) {
	ident, err := loadIdentity(files, dir, logger)
	if errors.Is(err, errNoIdentity) {
		ident = fresh
		ident.StoreID = uuid.NewString()
	} else if err != nil {
		return identity{}, err
	} else if err := ident.check(dir, fresh.NodeID, cluster); err != nil {
		return identity{}, err
	}
	if ident.Mark, err = ident.Mark.atStart(dir, class); err != nil {
		return identity{}, err
	}
	ident.Boot++
	return ident, ident.store(files, dir)
}

// check returns an error unless the directory is that node's, in that cluster.
func (i identity) check(dir string, node id.Node, cluster string) error {
	if i.NodeID != node {
		return fmt.Errorf("%s belongs to node %d, this is node %d: start it with --node-id %d, or give this node a data directory of its own",
			dir, i.NodeID, node, i.NodeID)
	}
	if i.ClusterID != "" && i.Cluster != cluster {
		return fmt.Errorf("%s belongs to cluster %q, this node is configured for cluster %q: start it with --cluster-name %s, or give it a data directory of its own",
			dir, i.Cluster, cluster, i.Cluster)
	}
	return nil
}

// text is the identity as it is stored, without what vouches for it.
func (i *identity) text() []byte {
	b := fmt.Appendf(nil, "# The identity of this data directory. Written by quorumlog; do not edit.\nversion=%d\ncluster.id=%s\ncluster.name=%s\nnode.id=%d\nstore.id=%s\nfounder=%t\nboot=%d\n",
		i.version(), i.ClusterID, i.Cluster, i.NodeID, i.StoreID, i.Founder, i.Boot)
	if i.Mark != unmarked {
		b = fmt.Appendf(b, "%s=%s\n", markKey, i.Mark)
	}
	if i.Home != "" {
		b = fmt.Appendf(b, "home.store.id=%s\n", i.Home)
	}
	if len(i.More) > 0 {
		b = fmt.Appendf(b, "more.store.ids=%s\n", strings.Join(i.More, ","))
	}
	return fmt.Appendf(b, "revision=%d\n", i.Revision)
}

// versionError is an identity of another format.
type versionError struct{ version int }

func (e versionError) Error() string {
	return fmt.Sprintf("data format %d, this release reads format %d, and %d of several directories: start the release that wrote it, or a later one",
		e.version, formatVersion, severalVersion)
}

// parseIdentity reads a file. It is damaged, or whole, or of another format, for which its checksum may be another one, too.
func parseIdentity(data []byte) (identity, error) {
	text, damaged := checkedText(data)
	if damaged != nil {
		text = data
	}
	values := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			values[key] = value
		}
	}
	if version, err := strconv.Atoi(values["version"]); err == nil && version != formatVersion && version != severalVersion {
		return identity{}, versionError{version}
	}
	if damaged != nil {
		return identity{}, damaged
	}
	ident, err := identityOf(values)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", errIdentityDamaged, err)
	}
	return ident, nil
}

func identityOf(values map[string]string) (identity, error) {
	ident := identity{ClusterID: values["cluster.id"], Cluster: values["cluster.name"], StoreID: values["store.id"], Founder: values["founder"] == "true",
		Home: values["home.store.id"]}
	if more := values["more.store.ids"]; more != "" {
		ident.More = strings.Split(more, ",")
	}
	node, err := strconv.ParseInt(values["node.id"], 10, 32)
	if err != nil {
		return identity{}, fmt.Errorf("node.id %q is not a number", values["node.id"])
	}
	ident.NodeID = id.Node(node)
	for key, to := range map[string]*uint64{"boot": &ident.Boot, "revision": &ident.Revision} {
		if *to, err = strconv.ParseUint(values[key], 10, 64); err != nil {
			return identity{}, fmt.Errorf("%s %q is not a number", key, values[key])
		}
	}
	if values["version"] == "" {
		return identity{}, errors.New("version is missing")
	}
	if ident.StoreID == "" {
		return identity{}, errors.New("store.id is missing")
	}
	ident.Mark, err = parseMark(values[markKey])
	return ident, err
}

// newClusterID returns a fresh cluster id: 22 characters of URL-safe base64, as Kafka's.
func newClusterID() string {
	var b id.Topic
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return b.String()
}

// storeIDKey holds the store id a second time, in Pebble.
const storeIDKey = "node/store-id"

// checkStore makes sure that identity and storage are of the same age. A directory of which one part was lost must not begin
// anew under the old name: its replicas would have forgotten what they voted for and acknowledged.
func checkStore(store *wal.Store, dir string, ident *identity, isNew bool) error {
	stored, err := store.Get(storeIDKey)
	switch {
	case errors.Is(err, wal.ErrNotFound) && isNew:
		return store.Set(storeIDKey, []byte(ident.StoreID)) // before the directory can belong to a cluster, or hold a replica
	case errors.Is(err, wal.ErrNotFound):
		return fmt.Errorf("%s is node %d's (cluster %q, id %s), but the storage's own records (meta/) are gone: restore the directory as a whole, or start this node with an empty one and an unused node id",
			dir, ident.NodeID, ident.Cluster, ident.ClusterID)
	case err != nil:
		return fmt.Errorf("cannot read the storage's identity: %w", err)
	case string(stored) != ident.StoreID:
		return fmt.Errorf("%s holds the data of store %s, but %s says store %s: restore the directory as a whole, or start this node with an empty one and an unused node id",
			dir, stored, identityFile, ident.StoreID)
	}
	return nil
}
