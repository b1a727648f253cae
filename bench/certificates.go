package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal/id"
)

// makeCertificates makes those of a run, below its directory, and returns the nodes' flags.
func (s *ownSystem) makeCertificates(nodes int) (flags []string, err error) {
	const lifetime = 7 * 24 * time.Hour
	dir := filepath.Join(s.setup.Dir, "certificates")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	authority, ca, err := auth.NewAuthority("bench", lifetime)
	if err != nil {
		return nil, err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	pairs := make(map[string]auth.Pair)
	for n := 1; n <= nodes; n++ {
		if pairs[fmt.Sprintf("node-%d", n)], err = authority.Node(clusterName(s.setup.Dir), id.Node(n), []string{"127.0.0.1", "localhost"}, lifetime); err != nil {
			return nil, err
		}
	}
	if pairs["client"], err = authority.Client("bench", lifetime); err != nil {
		return nil, err
	}
	if err := os.WriteFile(at("ca.crt"), ca.Certificate, 0o600); err != nil {
		return nil, err
	}
	for name, pair := range pairs {
		if err := os.WriteFile(at(name+".crt"), pair.Certificate, 0o600); err != nil {
			return nil, err
		}
		if err := os.WriteFile(at(name+".key"), pair.Key, 0o600); err != nil {
			return nil, err
		}
	}
	s.tls = client.TLSFiles{CA: at("ca.crt"), Certificate: at("client.crt"), Key: at("client.key")}
	return []string{"--tls-ca", at("ca.crt"), "--tls-cert", at("node-{node}.crt"), "--tls-key", at("node-{node}.key")}, nil
}
