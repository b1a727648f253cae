// Package node is one quorumlog process: it opens the parts (wal, Raft groups, gossip, the RPC server, the controller), wires
// them to each other, and closes them in the opposite order. The parts do not know each other: raftgroup sends through a
// transport that this package implements over rpc's peer lanes, and rpc hands requests to the services that this package
// implements over partitions and the controller.
//
// A record's way through a node: produce.go takes it off the wire and hands it to its partition (node/partition), which
// proposes it to its Raft group; transport.go carries what Raft says between nodes; fetch.go pushes committed records to
// consumers; admin.go answers everything else from the metadata table (node/controller).
package node
