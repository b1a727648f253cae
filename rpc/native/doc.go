// Package native is quorumlog's own protocol over a broker: it translates what package rpc takes off the wire into what package broker asks,
// and back. It decides nothing: another protocol has its own such package beside it, over the same broker.
//
//   - produce.go is one producer's stream, fetch.go one consumer's, admin.go the administrative calls.
//   - remote.go is another node as a broker sees it that passes a call on. translate.go has protobuf's words for what is said.
//
// What nodes ask each other about themselves ([Peers]) goes past the broker: it is no client's business.
package native
