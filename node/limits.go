package node

import (
	"fmt"
	"log/slog"

	"github.com/quorumlog/quorumlog/wal"
)

// How the files and sockets that the process may have open are shared, so that nobody takes those that the storage needs: a node that
// cannot open a file has to stop.
//
//	own        24          standard streams, locks, listeners, pollers, a directory that is being read
//	outbound   24 to 512   lanes to other nodes                                             a sixteenth
//	gossip     8 to 128    TCP streams                                                      a sixteenth
//	console    8 to 64     /metrics and its like                                            a sixteenth
//	clients    16 to 4096  connections of clients                                           a third, with peers
//	peers      16 to 512   connections of other nodes                                       a sixteenth
//	storage    the rest    segments, two files each, Pebble and journal (wal.Options.MaxOpenFiles)
const (
	// defaultOpenFiles is assumed where the limit cannot be asked for.
	defaultOpenFiles = 16384
	// leastOpenFiles is where the smallest shares leave enough for the storage.
	leastOpenFiles = ownFiles + leastOutbound + leastGossip + leastConsole + leastClients + leastPeers + wal.LeastOpenFiles

	ownFiles                     = 24
	leastOutbound, mostOutbound  = 24, 512
	leastGossip, mostGossip      = 8, 128
	leastConsole, mostConsole    = 8, 64
	leastClients, mostClients    = 16, 4096
	leastPeers, mostPeers        = 16, 512
	mostStorage                  = 1 << 16
	smallPart, clientsPart       = 16, 3
	filesOfReplica, filesOfStore = 2, wal.LeastOpenFiles
)

// fileShares says how many files each part of a node may have open.
type fileShares struct {
	limit                                    uint64
	storage, clients, peers, gossip, console int
}

// shareFiles shares what the limit of the process allows, or says that it is too low for a node.
func shareFiles(limit uint64) (fileShares, error) {
	if limit < leastOpenFiles {
		return fileShares{}, fmt.Errorf("this process may have %d files open, a node needs at least %d: "+
			"raise the limit (ulimit -n %d, or LimitNOFILE=%d in its systemd unit)", limit, leastOpenFiles, defaultOpenFiles, defaultOpenFiles)
	}
	rest := int(min(limit, 1<<20)) - ownFiles
	s := fileShares{
		limit: limit, peers: within(rest/smallPart, leastPeers, mostPeers), gossip: within(rest/smallPart, leastGossip, mostGossip),
		console: within(rest/smallPart, leastConsole, mostConsole),
	}
	s.clients = within(rest/clientsPart-s.peers, leastClients, mostClients)
	s.storage = min(rest-within(rest/smallPart, leastOutbound, mostOutbound)-s.clients-s.peers-s.gossip-s.console, mostStorage)
	if short := wal.LeastOpenFiles - s.storage; short > 0 { // little is left beside the least shares: these are what others get
		s = fileShares{limit: limit, clients: leastClients, peers: leastPeers, gossip: leastGossip, console: leastConsole}
		s.storage = rest - leastOutbound - leastClients - leastPeers - leastGossip - leastConsole
	}
	return s, nil
}

func within(n, least, most int) int { return min(max(n, least), most) }

// warnOfFewFiles says at start when the files of all replicas cannot be open at once: they are closed and opened again all the time then.
func (s fileShares) warnOfFewFiles(logger *slog.Logger, replicas int) {
	wanted := filesOfStore + filesOfReplica*replicas
	if s.storage >= min(wanted, mostStorage) {
		return
	}
	advice := uint64(defaultOpenFiles)
	for better, err := shareFiles(advice); err == nil && better.storage < min(wanted, mostStorage); better, err = shareFiles(advice) {
		advice *= 2
	}
	logger.Warn("the limit of open files is low for what this node holds: files are closed and opened again all the time; "+
		"raise it (ulimit -n, or LimitNOFILE= in its systemd unit)",
		"limit", s.limit, "replicas", replicas, "files_for_storage", s.storage, "files_wanted", wanted, "advised_limit", advice)
}
