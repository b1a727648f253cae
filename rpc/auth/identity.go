package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Identity is who a certificate says that its owner is.
type Identity struct {
	Principal broker.Principal
	Cluster   string  // the name of the cluster that Node is of
	Node      id.Node // id.NoNode: it is no node's certificate
}

// IsNode tells whether it is a node of the cluster with this name.
func (i Identity) IsNode(cluster string) bool { return i.Node != id.NoNode && i.Cluster == cluster }

// String says it to people.
func (i Identity) String() string {
	if i.Node == id.NoNode {
		return i.Principal.String()
	}
	return fmt.Sprintf("node %d of cluster %q", i.Node, i.Cluster)
}

const scheme = "quorumlog"

// NodeURI is what makes a certificate that of a node.
func NodeURI(cluster string, node id.Node) *url.URL {
	return &url.URL{
		Scheme: scheme, OmitHost: true, Path: fmt.Sprintf("/%s/node/%d", cluster, node), RawPath: fmt.Sprintf("/%s/node/%d", url.PathEscape(cluster), node),
	}
}

func parseNodeURI(u *url.URL) (cluster string, node id.Node, err error) {
	bad := fmt.Errorf("%q is no name of a node: it would be %s:/CLUSTER/node/ID", u, scheme)
	parts := strings.Split(u.EscapedPath(), "/")
	if u.Host != "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(parts) != 4 || parts[0] != "" || parts[2] != "node" {
		return "", id.NoNode, bad
	}
	cluster, err = url.PathUnescape(parts[1])
	number, err2 := strconv.ParseInt(parts[3], 10, 32)
	if err != nil || err2 != nil || cluster == "" || number < 0 || strconv.FormatInt(number, 10) != parts[3] {
		return "", id.NoNode, bad
	}
	return cluster, id.Node(number), nil
}

// Of returns who a certificate, which has been verified, says that its owner is. One that cannot be understood is nobody's: what it tries to
// say may be a restriction.
func Of(cert *x509.Certificate) (Identity, error) {
	who := Identity{Node: id.NoNode}
	var uri *url.URL
	for _, u := range cert.URIs {
		if u.Scheme != scheme {
			continue
		}
		if uri != nil {
			return who, fmt.Errorf("the certificate is that of two nodes, %q and %q", uri, u)
		}
		uri = u
		var err error
		if who.Cluster, who.Node, err = parseNodeURI(u); err != nil {
			return who, fmt.Errorf("the certificate says what cannot be: %w", err)
		}
	}
	var subject pkix.RDNSequence
	if rest, err := asn1.Unmarshal(cert.RawSubject, &subject); err != nil || len(rest) > 0 {
		return who, errors.New("the subject of the certificate cannot be read")
	}
	name := subject.String() // RFC 2253: the last part first
	if name == "" && uri != nil {
		name = uri.String()
	}
	if name == "" {
		return who, errors.New("the certificate has no subject, and so names nobody")
	}
	who.Principal = broker.Principal{Type: broker.UserType, Name: name}
	return who, nil
}
