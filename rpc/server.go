package rpc

import (
	"context"
	"log/slog"
	"net"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Services is what a server serves. A nil one is refused to clients with CodeUnsupportedVersion.
type Services struct {
	Admin pb.DRPCAdminServer
	Peer  PeerHandler
	// Produce and Fetch serve one stream each call, and return when its Recv has. Their error is sent to the client.
	Produce func(*ProduceStream) error
	Fetch   func(*FetchStream) error
}

// PeerHandler is the receiving end of the lanes of other nodes. Its methods are called from many goroutines and must
// not block.
type PeerHandler interface {
	// Hello decides whether a lane may open, and returns this node's own hello. CheckHello knows the usual reasons to refuse.
	Hello(peer PeerHello) (self PeerHello, err error)
	// Step takes ownership of m and all it points to.
	Step(from id.Node, g id.Group, m *raftpb.Message)
	// PeerClosed says that the newest control lane of a node has ended. The node passes it on to Peers.Lost.
	PeerClosed(from id.Node)
}

// ServerOptions are the settings of a server.
type ServerOptions struct {
	Listener net.Listener // the server closes it. Make it with Listen, so that the sockets have their timeouts
	Services Services
	Node     id.Node // told to producers
	Logger   *slog.Logger
	// MaxConnections, 4096 by default: more are closed at once.
	MaxConnections int
	// WrapConn, when not nil, is applied to each accepted connection before anything is read (TLS).
	WrapConn func(net.Conn) (net.Conn, error)
}

// Server serves one listener.
type Server struct{}

// Listen opens a TCP listener whose connections have keepalive and TCP_USER_TIMEOUT set.
func Listen(ctx context.Context, addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

// NewServer starts to serve.
func NewServer(o ServerOptions) (*Server, error) { return nil, errStub }

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return nil }

// Close stops accepting, ends the streams with CodeBrokerNotAvailable, lets administrative calls finish until ctx ends, and
// waits for every goroutine.
func (s *Server) Close(ctx context.Context) error { return nil }
