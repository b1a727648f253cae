// Package pb holds the protobuf messages of the administrative calls and their drpc stubs, generated from admin.proto.
// Nothing on the data path is protobuf: see package rpc.
package pb

//go:generate go run ./gen admin.proto
