package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Pair is a certificate and its private key, as PEM.
type Pair struct{ Certificate, Key []byte }

// Authority makes certificates. It is for a first cluster and for tests: whoever has a certificate authority uses that, and needs from here
// only what a node's certificate must say (NodeURI).
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// skew is by how much clocks may differ: a certificate is valid since that long before it was made.
const skew = time.Hour

// NewAuthority makes an authority that is valid for lifetime, and returns what it is made of.
func NewAuthority(name string, lifetime time.Duration) (*Authority, Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, Pair{}, err
	}
	a := &Authority{key: key}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	pair, err := a.sign(template, template, key, lifetime)
	if err != nil {
		return nil, Pair{}, err
	}
	a, err = OpenAuthority(pair)
	return a, pair, err
}

// OpenAuthority takes up an authority again.
func OpenAuthority(p Pair) (*Authority, error) {
	certs, err := parseCertificates(p.Certificate)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, errors.New("there is no private key in PEM form")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	switch public, same := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); {
	case !ok || !same || !public.Equal(signer.Public()):
		return nil, errors.New("the private key is not that of the certificate")
	case !certs[0].IsCA:
		return nil, errors.New("the certificate is not that of an authority")
	}
	return &Authority{cert: certs[0], key: signer}, nil
}

// Node makes the certificate of a node, as a server at the hosts (names and addresses) and as a client of other nodes.
func (a *Authority) Node(cluster string, node id.Node, hosts []string, lifetime time.Duration) (Pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: fmt.Sprintf("node-%d", node), Organization: []string{cluster}},
		URIs:        []*url.URL{NodeURI(cluster, node)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.Unmap().AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.leaf(template, lifetime)
}

// Client makes the certificate of a client: of the principal User:CN=name.
func (a *Authority) Client(name string, lifetime time.Duration) (Pair, error) {
	return a.leaf(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, lifetime)
}

func (a *Authority) leaf(template *x509.Certificate, lifetime time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return a.sign(template, a.cert, key, lifetime)
}

func (a *Authority) sign(template, parent *x509.Certificate, key crypto.Signer, lifetime time.Duration) (Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, err
	}
	now := time.Now()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-skew), now.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}, nil
}

func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("a certificate cannot be read: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in PEM form")
	}
	return certs, nil
}
