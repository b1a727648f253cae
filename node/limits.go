package node

const (
	// defaultOpenFiles is assumed where the limit cannot be asked for.
	defaultOpenFiles = 16384
	// reservedFiles is what a node needs besides its segments and its clients: journal, Pebble, gossip, metrics, lanes.
	reservedFiles = 256
	maxClients    = 4096
	minClients    = 16
)

// maxConnections bounds the connections of clients and peers, so that strangers cannot take the files that the storage needs: a node
// that cannot open a file has to stop.
func maxConnections(files uint64) int {
	if files < reservedFiles+2*minClients {
		return minClients
	}
	return int(min((files-reservedFiles)/2, maxClients))
}
