// Package node is one quorumlog process: it opens the parts (wal, Raft groups, gossip, the RPC server, the controller), wires
// them to each other, and closes them in the opposite order. The parts do not know each other: raftgroup sends through a
// transport that this package implements over rpc's peer lanes, and what a protocol asks of a broker (rpc/broker) is answered by
// node/serving, over partitions, leaders and the controller.
//
// A record's way through a node: rpc/native takes it off the wire, node/serving hands it to its partition (node/partition), which
// proposes it to its Raft group; transport.go carries what Raft says between nodes; node/serving gives committed records to
// consumers, and answers everything else from the metadata table (node/controller).
//
// What is here besides, is a node among nodes: how it finds, founds or joins its cluster (look.go, found.go, join.go), what nodes ask each
// other (peercalls.go, reach.go), who it is (identity.go, incarnation.go), how it is (condition.go, standing.go, word.go, status.go),
// and what it does by itself (leadership.go, condemned.go, expiry.go).
package node
