// Package native is quorumlog's own protocol over a broker: it translates what package rpc takes off the wire into what package broker asks,
// and back. It decides nothing: another protocol has its own such package beside it, over the same broker.
//
//   - produce.go is one producer's stream, fetch.go one consumer's.
package native
