package client

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal/id"
)

// dialTLS returns how connections are secured; nil: they are not.
func (o Options) dialTLS() (func(address string, node id.Node) *tls.Config, error) {
	if o.TLS != nil {
		return func(address string, _ id.Node) *tls.Config {
			config := o.TLS.Clone()
			if config.ServerName == "" {
				config.ServerName, _, _ = net.SplitHostPort(address)
			}
			if len(config.NextProtos) == 0 {
				config.NextProtos = []string{auth.Protocol}
			}
			return config
		}, nil
	}
	if o.TLSFiles == (TLSFiles{}) {
		return nil, nil
	}
	credentials, err := auth.Load(auth.Options{Files: auth.Files(o.TLSFiles), Logger: o.Logger})
	if err != nil {
		return nil, fmt.Errorf("client: certificates: %w", err)
	}
	return func(address string, _ id.Node) *tls.Config {
		if _, err := credentials.Reload(); err != nil { // three small files are little beside a handshake
			o.Logger.Warn("certificates: the files have changed and cannot be used: those from before stay in use", slog.Any("reason", err))
		}
		return credentials.Client(address)
	}, nil
}
