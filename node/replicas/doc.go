// Package replicas is which partitions a node holds: it finds them for whoever serves them, opens and deletes them as the metadata says, and
// knows which of them are refused for good.
package replicas
