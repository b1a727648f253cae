package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// call is one request on its way: what every API's function is given.
type call struct {
	ctx     context.Context // ends with the connection, or with the server
	server  *Server
	caller  *broker.Caller
	version int16
}

// broker is who answers.
func (c *call) broker() broker.Broker { return c.server.options.Broker }

// api is one row of the table: the versions served and who answers. A function that returns nil has refused the request as a whole, in a way
// that the API has no words for: the connection is closed.
type api struct {
	key      kmsg.Key
	min, max int16
	answer   func(c *call, req kmsg.Request) kmsg.Response // nil for Produce and Fetch, which carry batches
}

// refusal is an error as responses carry it: its code, and its message; None and nil for no error.
func refusal(err error) (code int16, message *string) {
	if err == nil {
		return int16(kerr.None), nil
	}
	text := err.Error()
	return int16(kerr.CodeOf(err)), &text
}

// codeOf is the code of a broker's error, which may be nil.
func codeOf(err *kerr.Error) int16 {
	if err == nil {
		return int16(kerr.None)
	}
	return int16(err.Code)
}
