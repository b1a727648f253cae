// Package auth says who is at the other end of a connection: what a certificate says of its owner, which certificates are believed, and the
// files in which they stand, which are reread as they change. It makes certificates, too, for a first cluster and for tests.
//
// A certificate says two things:
//
//   - Its subject, as RFC 2253 writes it, is the principal, as with Kafka: User:CN=alice,O=example.
//   - A URI among its alternative names makes it a node's: quorumlog:/prod/node/3 is node 3 of the cluster with the name prod. The name is
//     escaped as in a URL. It is the cluster's name and not its id, which nobody knows before the cluster is founded.
//
// Nodes are known by that URI and nothing else: they move, and may have any address. A client knows a node by its host, as a browser would.
package auth
