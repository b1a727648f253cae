package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TLSFiles are PEM files for TLS. The zero value: none, the connections are not secured.
type TLSFiles struct {
	CA          string // of the authorities that have made the nodes' certificates; empty: those that the operating system believes
	Certificate string // that this client shows: its subject is who the client is, User:CN=alice. Empty: none
	Key         string // of Certificate
}

func (o Options) validateTLS() error {
	switch f := o.TLSFiles; {
	case o.TLS != nil && f != TLSFiles{}:
		return errors.New("client: TLS and TLSFiles are both set: choose one")
	case (f.Certificate == "") != (f.Key == ""):
		return errors.New("client: a certificate needs its key, and a key its certificate: name both files, or neither")
	}
	return nil
}

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
