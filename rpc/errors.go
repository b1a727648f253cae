package rpc

import (
	"errors"
	"fmt"

	"storj.io/drpc/drpcerr"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Error is a refusal as it travels: a Kafka code, one sentence that says why and what to do, and who leads the partition
// if that is the point (id.NoNode otherwise).
type Error struct {
	Code    Code
	Message string
	Leader  id.Node
}

// Errorf makes an Error that names no leader.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Leader: id.NoNode}
}

// Error returns the message, or the name of the code when there is none.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code.String()
	}
	return e.Message
}

// Is reports whether target is an *Error of the same code: errors.Is(err, &rpc.Error{Code: rpc.CodeNotController}).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf returns the code of an error: CodeNone for nil, CodeUnknown for one that carries none.
func CodeOf(err error) Code {
	if err == nil {
		return CodeNone
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeUnknown
}

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
	code, leader := CodeOf(err), id.NoNode
	var e *Error
	if errors.As(err, &e) {
		leader = e.Leader
	}
	return drpcerr.WithCode(errors.New(err.Error()), uint64(uint32(leader+1))<<32|ownCode|uint64(uint16(code)))
}

// fromWire turns an error that drpc received from the other side back into an *Error. False: err is something else.
func fromWire(err error) (*Error, bool) {
	code := drpcerr.Code(err)
	switch {
	case code&ownCode != 0:
		return &Error{Code: Code(uint16(code)), Message: err.Error(), Leader: id.Node(uint32(code>>32)) - 1}, true
	case code == drpcerr.Unimplemented:
		return &Error{Code: CodeUnsupportedVersion, Message: err.Error(), Leader: id.NoNode}, true
	}
	return nil, false
}
