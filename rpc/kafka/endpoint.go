package kafka

import (
	"net"
	"strconv"

	"github.com/quorumlog/quorumlog/rpc/broker"
)

// endpoint returns where a node serves clients of this protocol; false: nowhere, as far as is known.
func endpoint(n *broker.Node) (host string, port int32, ok bool) {
	host, text, err := net.SplitHostPort(n.KafkaAddress)
	if err != nil {
		return "", 0, false
	}
	number, err := strconv.ParseUint(text, 10, 16)
	return host, int32(number), err == nil
}
