package broker

import (
	"net/netip"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Principal is who somebody has shown to be: with a certificate, or a password. In the form of Kafka's KafkaPrincipal.
type Principal struct {
	Type string // "User"
	Name string
}

// UserType is the type of all principals that people make rules for.
const UserType = "User"

// Anonymous is who has shown nothing.
var Anonymous = Principal{UserType, "ANONYMOUS"}

// String returns the principal as rules name it: User:alice.
func (p Principal) String() string { return p.Type + ":" + p.Name }

// Caller is who is at the other end of a connection. It is made when the connection has authenticated and does not change: all
// calls of the connection share it.
type Caller struct {
	Principal Principal
	Host      netip.Addr // where the connection comes from
	ClientID  string     // what the client calls itself, for quotas and logs; nothing is to be believed for it
	// Peer says that the principal is a node of the cluster, by its certificate, or that nodes have no certificates here. Calls among
	// nodes are for peers alone.
	Peer bool
	// Node is which node a peer is, by its certificate. id.NoNode: there is no certificate that says so.
	Node id.Node
}

// MayBe tells whether the caller may act as a node of the cluster: it shows that node's certificate, or nodes have none here.
func (c *Caller) MayBe(node id.Node) bool { return c.Peer && (c.Node == id.NoNode || c.Node == node) }
