package rpc

import (
	"errors"

	"storj.io/drpc/drpcerr"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A drpc error is a 64-bit code and a text. Ours:
//
//	bits 0-15   the Kafka code, as uint16
//	bit  16     set: tells our codes from drpc's own (0 unknown, 12 unimplemented)
//	bits 32-63  leader + 1, so 0 is none
const ownCode = 1 << 16

// toWire makes err an error that drpc sends with code, text and leader.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	code, leader := kerr.CodeOf(err), id.NoNode
	var e *kerr.Error
	if errors.As(err, &e) {
		leader = e.Leader
	}
	return drpcerr.WithCode(errors.New(err.Error()), uint64(uint32(leader+1))<<32|ownCode|uint64(uint16(code)))
}

// fromWire turns an error that drpc received from the other side back into an *kerr.Error. False: err is something else.
func fromWire(err error) (*kerr.Error, bool) {
	code := drpcerr.Code(err)
	switch {
	case code&ownCode != 0:
		return &kerr.Error{Code: kerr.Code(uint16(code)), Message: err.Error(), Leader: id.Node(uint32(code>>32)) - 1}, true
	case code == drpcerr.Unimplemented:
		return &kerr.Error{Code: kerr.UnsupportedVersion, Message: err.Error(), Leader: id.NoNode}, true
	}
	return nil, false
}
