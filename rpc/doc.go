// Package rpc is every byte in or out of a node except gossip: the server, the streams of producers and consumers, the
// lanes between nodes, and the administrative calls.
//
// Everything runs on drpc, which carries one stream at a time on a connection. So a stream here is a TCP connection with
// a name, long-lived, and drpc's unit of cost is the message, not the byte: all the traffic of a stream is packed into
// frames of ours, many to a drpc message of up to 256 KiB. Protobuf is for administrative calls only (rpc/pb).
//
//	/quorumlog.Peer/Lane     node to node; one control lane and a few bulk lanes each way   peers.go, lane.go, inbound.go
//	/quorumlog.Log/Produce   pipelined batches in, answers out                              produce.go
//	/quorumlog.Log/Fetch     subscriptions and byte credit in, batches pushed out           fetch.go
//	/quorumlog.Admin/…       protobuf, unary                                                admin.go
//
// Every stream begins with a hello and its answer, whose first bytes never change (opening.go): they agree on a protocol version, or one
// side learns from the other who has to be upgraded. Hellos of lanes say more (hello.go): which node they mean, and which start of which
// node speaks. A lane is refused before it changes anything, and nobody takes the lanes over from a process that lives and is registered.
//
// drpc opens, names and ends the streams. The messages in between are in its wire format, but do not pass through it: a tap takes
// them inside conn.Read, straight into memory that the receiver may keep (tap.go, package memory), and a framer writes them from where
// their pieces lie (framer.go). Of a lane's messages the batches are lent by the log until they are written (trains.go).
//
// Rules that hold for all of them: one goroutine per stream does nothing but receive, and never sends on it (two sides
// that both send from their receive goroutine wait for each other for ever; and with a message unread drpc does not see
// a broken connection). Lengths are checked before anything is allocated for them. What a callback is given aliases the
// receive buffer and ends with the callback, unless it takes a reference of the Loan that comes with it. Every queue has a bound in
// bytes. A silent connection is closed.
package rpc
