package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal/id"
)

// SecurityOptions say who is believed. Without them everybody is who reaches the ports, and a node listens on loopback only.
type SecurityOptions struct {
	// TLS are the files of the rpc port: all three, or none. The certificate must be this node's: see rpc/auth.
	TLS auth.Files
	// Clients says whether clients need a certificate, too.
	Clients auth.Clients
	// GossipKeyFile holds the keys that encrypt the gossip, one a line as base64 of 16, 24 or 32 bytes: the first is used, the others are
	// understood. The file is reread as it changes.
	GossipKeyFile string
	// AllowPlaintext lets the node listen without TLS, or without a gossip key, where others than this host reach it.
	AllowPlaintext bool
}

func (s SecurityOptions) validate() error {
	f := s.TLS
	if !f.None() && (f.CA == "" || f.Certificate == "" || f.Key == "") {
		return errors.New("TLS needs three files: --tls-ca, --tls-cert and --tls-key; 'quorumlog cert' makes them for a first cluster")
	}
	return nil
}

// checkExposed refuses to listen where others than this host reach the node, and everybody who does is believed, unless that is wanted.
func (o Options) checkExposed(flag, address string) error {
	s := o.Security
	host, _, err := splitAddress(address)
	if err != nil || s.AllowPlaintext || !s.TLS.None() || !isExposed(host) {
		return nil // with TLS, gossip without a key is a warning: nothing is decided by what it says
	}
	return fmt.Errorf("%s %s is open to other hosts, and without TLS everybody who reaches it is believed: "+
		"give the node certificates (--tls-ca, --tls-cert, --tls-key; 'quorumlog cert' makes them), or, where the whole network is trusted, say --allow-plaintext",
		flag, address)
}

// isExposed tells whether others reach what listens on a host. Of a name nothing is known.
func isExposed(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && !ip.Unmap().IsLoopback()
}

// openSecurity reads the certificates before anything else: what is wrong with them is the operator's to mend.
func (n *Node) openSecurity(context.Context) error {
	s := n.options.Security
	if s.TLS.None() {
		return nil
	}
	credentials, err := auth.Load(auth.Options{
		Files: s.TLS, Check: n.checkCertificate, Uses: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, Logger: n.logger,
	})
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	n.credentials = credentials
	n.logger.Info("TLS is on", "certificate", credentials.Own().Subject.String(), "expires", credentials.Expires())
	return nil
}

// checkCertificate refuses a certificate that no other node would take for this node's.
func (n *Node) checkCertificate(who auth.Identity, _ *x509.Certificate) error {
	if !who.IsNode(n.options.ClusterName) || who.Node != n.options.NodeID {
		return fmt.Errorf("the certificate is that of %s, this is node %d of cluster %q: make one with 'quorumlog cert node', or with the URI %s among its names",
			who, n.options.NodeID, n.options.ClusterName, auth.NodeURI(n.options.ClusterName, n.options.NodeID))
	}
	return nil
}

// serverTLS is how the rpc port shows who this node is; nil: without TLS.
func (n *Node) serverTLS() *tls.Config {
	if n.credentials == nil {
		return nil
	}
	return n.credentials.Server(n.options.Security.Clients)
}

// dialTLS is how this node shows other nodes who it is, and has them show it; nil: without TLS.
func (n *Node) dialTLS() func(string, id.Node) *tls.Config {
	if n.credentials == nil {
		return nil
	}
	return func(address string, node id.Node) *tls.Config {
		return n.credentials.Node(address, n.options.ClusterName, node)
	}
}

// sayWhoIsBelieved is the start's word about the network.
func (n *Node) sayWhoIsBelieved() {
	host, _, _ := splitAddress(n.listener.Addr().String())
	advertised, _, _ := splitAddress(n.advertised())
	switch s := n.options.Security; {
	case n.credentials == nil && isExposed(host):
		n.logger.Warn("no TLS, trusted network only: whoever reaches this node is believed, as a client and as a node", "rpc", n.listener.Addr().String())
	case n.credentials == nil:
		n.logger.Info("no TLS, trusted network only: whoever reaches this node is believed; it listens on this host alone", "rpc", n.listener.Addr().String())
	case s.GossipKeyFile == "":
		n.logger.Warn("gossip has no key: whoever reaches its port can keep new nodes from finding the others; give all nodes one (--gossip-key-file)")
	}
	if n.credentials != nil {
		if err := n.credentials.Own().VerifyHostname(advertised); err != nil {
			n.logger.Warn("clients will not believe this node's certificate: it is not for the host of its advertised address", "advertised", n.advertised(), "reason", err)
		}
	}
}

// watchFiles has certificates and keys used that are put into the place of those from before.
func (n *Node) watchFiles(ctx context.Context) {
	said := seldom{logger: n.logger}
	keys := func() {
		if err := n.rereadGossipKeys(); err != nil {
			said.warn("gossip keys: the file cannot be used, those from before stay in use", "reason", err)
		}
	}
	if n.credentials == nil {
		for n.options.Security.GossipKeyFile != "" && sleep(ctx, auth.LookInterval) {
			keys()
		}
		return
	}
	n.credentials.Watch(ctx, func(changed bool) {
		keys()
		if changed {
			n.judgeAgain()
		}
	})
}

// Reload rereads the files of certificates and keys now. Node does so by itself, too, soon after they have changed.
func (n *Node) Reload() error {
	var errs []error
	if n.credentials != nil {
		changed, err := n.credentials.Reload()
		errs = append(errs, err)
		if changed {
			n.judgeAgain()
		}
	}
	return errors.Join(append(errs, n.rereadGossipKeys())...)
}

// judgeAgain closes the connections that would not be believed any more. A certificate that merely expires closes nothing: a cluster whose
// operator has forgotten it goes on until its connections end, and complains meanwhile.
func (n *Node) judgeAgain() {
	closed := n.server.CloseUnbelieved(func(chain []*x509.Certificate) error {
		return n.credentials.StillBelieved(chain, x509.ExtKeyUsageClientAuth)
	})
	closed += n.peers.CloseUnbelieved(func(chain []*x509.Certificate) error {
		return n.credentials.StillBelieved(chain, x509.ExtKeyUsageServerAuth)
	})
	if closed > 0 {
		n.logger.Warn("closed connections whose certificates are not believed any more", "connections", closed)
	}
}

// gossipKeys reads the file of gossip keys.
func (n *Node) gossipKeys() ([][]byte, error) {
	file := n.options.Security.GossipKeyFile
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("the gossip key: %w", err)
	}
	var keys [][]byte
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(key) != 16 && len(key) != 24 && len(key) != 32 {
			return nil, fmt.Errorf("%s: a line is not the base64 of 16, 24 or 32 bytes: 'quorumlog cert gossip-key' makes one", file)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s holds no key: 'quorumlog cert gossip-key' makes one", file)
	}
	return keys, nil
}

func (n *Node) rereadGossipKeys() error {
	keys, err := n.gossipKeys()
	if err != nil || len(keys) == 0 {
		return err
	}
	return n.membership.SetKeys(keys)
}
