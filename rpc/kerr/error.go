package kerr

import (
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Error is a refusal as it travels: a Kafka code, one sentence that says why and what to do, and who leads the partition
// if that is the point (id.NoNode otherwise).
type Error struct {
	Code    Code
	Message string
	Leader  id.Node
	// Oldest is, with InvalidTimestamp, the oldest timestamp that is taken, if it is the first record of the batch that is older; 0: what is
	// refused is the largest timestamp. Milliseconds since 1970.
	Oldest int64
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

// Is reports whether target is an *Error of the same code, errors.Is(err, &kerr.Error{Code: kerr.NotController}), or a *Class that has it.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case *Error:
		return t.Code == e.Code
	case *Class:
		return t.Has(e.Code)
	}
	return false
}

// CodeOf returns the code of an error: None for nil, Unknown for one that carries none.
func CodeOf(err error) Code {
	if err == nil {
		return None
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Unknown
}
