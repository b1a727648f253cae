package kafka

import (
	"crypto/tls"
	"log/slog"
	"net"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Options are what a Server needs. Listener, Broker, Address and Logger have no default.
type Options struct {
	Listener  net.Listener
	Broker    broker.Broker
	Node      id.Node
	ClusterID string
	TLS       *tls.Config // nil: connections are plain
	Logger    *slog.Logger
	// MaxConnections and ConnectionsPerAddress bound the connections. Default: 4096, and no bound of its own.
	MaxConnections, ConnectionsPerAddress int
	// RequestBytes bounds one request. Default: 100 MiB, as Kafka's socket.request.max.bytes.
	RequestBytes int
}

// Server serves Kafka's protocol on one listener.
type Server struct {
	options Options
	apis    []api
}

// apiOf returns the row of a key; nil: it is not served.
func (s *Server) apiOf(key int16) *api {
	for i := range s.apis {
		if s.apis[i].key.Int16() == key {
			return &s.apis[i]
		}
	}
	return nil
}
