package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Protocol is what TLS is asked to carry (ALPN).
const Protocol = "quorumlog/1"

// Files are where certificates stand, as PEM.
type Files struct {
	CA          string // of the authorities that are believed; empty, for clients: those of the operating system
	Certificate string // that this process shows, with what leads to the authority, if something does
	Key         string // of Certificate
}

// None tells whether no file is named.
func (f Files) None() bool { return f == Files{} }

// Options say what Credentials are for.
type Options struct {
	Files Files
	// Check looks at the certificate that this process is to show; what it refuses is not taken. nil: any will do.
	Check func(Identity, *x509.Certificate) error
	// Uses are what the authorities of CA must have made that certificate for.
	Uses   []x509.ExtKeyUsage
	Logger *slog.Logger // nil: silent
}

// Credentials are what a process shows, and whom it believes. They change as the files do, for connections that are made from then on.
// All methods may be called by any goroutine.
type Credentials struct {
	o       Options
	current atomic.Pointer[loaded]

	mu struct {
		sync.Mutex            // held while the files are read
		refused    *[3][]byte // what the files held when they were last refused
		complaint  string     // what was last logged of that
		warned     time.Time  // of expiry
	}
}

// loaded is what the files held at one time.
type loaded struct {
	content [3][]byte
	roots   *x509.CertPool // nil: the operating system's
	trusted []*x509.Certificate
	pair    *tls.Certificate // nil: this process shows nothing
}

// Load reads the files.
func Load(o Options) (*Credentials, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if (o.Files.Certificate == "") != (o.Files.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate: name both files, or neither")
	}
	c := &Credentials{o: o}
	content, err := c.read()
	if err != nil {
		return nil, err
	}
	l, err := c.parse(content)
	if err != nil {
		return nil, err
	}
	c.current.Store(l)
	return c, nil
}

func (c *Credentials) names() [3]string {
	return [3]string{c.o.Files.CA, c.o.Files.Certificate, c.o.Files.Key}
}

func (c *Credentials) read() (content [3][]byte, err error) {
	for i, name := range c.names() {
		if name == "" {
			continue
		}
		if content[i], err = os.ReadFile(name); err != nil {
			return content, err
		}
	}
	return content, nil
}

func (c *Credentials) parse(content [3][]byte) (*loaded, error) {
	l := &loaded{content: content}
	names := c.names()
	if names[0] != "" {
		var err error
		if l.trusted, err = parseCertificates(content[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", names[0], err)
		}
		l.roots = x509.NewCertPool()
		for _, cert := range l.trusted {
			l.roots.AddCert(cert)
		}
	}
	if names[1] == "" {
		return l, nil
	}
	pair, err := tls.X509KeyPair(content[1], content[2])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", names[1], names[2], err)
	}
	who, err := Of(pair.Leaf)
	if err == nil && c.o.Check != nil {
		err = c.o.Check(who, pair.Leaf)
	}
	if err == nil && time.Now().After(pair.Leaf.NotAfter) {
		err = fmt.Errorf("the certificate has expired, on %s", pair.Leaf.NotAfter.Format(time.DateTime))
	}
	for _, use := range c.o.Uses {
		if err == nil {
			err = l.verifyOwn(pair, use)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", names[1], err)
	}
	l.pair = &pair
	return l, nil
}

// verifyOwn tells whether others that have the same authorities believe the certificate.
func (l *loaded) verifyOwn(pair tls.Certificate, use x509.ExtKeyUsage) error {
	chain := []*x509.Certificate{pair.Leaf}
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("a certificate cannot be read: %w", err)
		}
		chain = append(chain, cert)
	}
	return verify(chain, l.roots, use)
}

// Reload reads the files again. What cannot be used changes nothing, and is the error. changed tells whether something else is used now.
func (c *Credentials) Reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reloadLocked()
}

func (c *Credentials) reloadLocked() (changed bool, err error) {
	content, err := c.read()
	if err != nil {
		return false, err
	}
	if old := c.current.Load(); same(content, old.content) {
		c.mu.refused = nil
		return false, nil
	}
	l, err := c.parse(content)
	if err != nil {
		c.mu.refused = &content
		return false, err
	}
	c.mu.refused, c.mu.complaint, c.mu.warned = nil, "", time.Time{}
	c.current.Store(l)
	c.o.Logger.Info("certificates: the files have changed and are used from now on", "expires", c.Expires().Format(time.DateTime))
	return true, nil
}

func same(a, b [3][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

const (
	// LookInterval is how often files are looked at.
	LookInterval   = 5 * time.Second
	expiryReminder = 24 * time.Hour
	// expiryNotice is how long before its end a certificate is complained of, or a third of its life, if that is less.
	expiryNotice = 30 * 24 * time.Hour
)

// Watch looks at the files again and again until ctx ends, and calls looked after each look: with true if something else is used
// now. Files are read and compared, rather than their times: there are three small ones, and what replaces files knows many ways to.
func (c *Credentials) Watch(ctx context.Context, looked func(changed bool)) {
	tick := time.NewTicker(LookInterval)
	defer tick.Stop()
	for {
		c.warnOfExpiry()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		looked(c.look())
	}
}

// look reloads, and complains of what cannot be used once it has stood there for two looks: somebody may be writing the second file.
func (c *Credentials) look() (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.mu.refused
	changed, err := c.reloadLocked()
	if err == nil {
		return changed
	}
	after := c.mu.refused
	stands := before != nil && after != nil && same(*before, *after) || before == nil && after == nil // or a file is not there
	if said := err.Error(); stands && said != c.mu.complaint {
		c.mu.complaint = said
		c.o.Logger.Error("certificates: the files have changed and cannot be used: those from before stay in use", "reason", said)
	}
	return false
}

func (c *Credentials) warnOfExpiry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cert := range c.all() {
		notice := min(expiryNotice, cert.NotAfter.Sub(cert.NotBefore)/3)
		if left := time.Until(cert.NotAfter); left > notice || time.Since(c.mu.warned) < expiryReminder {
			continue
		}
		c.mu.warned = time.Now()
		c.o.Logger.Warn("certificates: one expires soon, and no connection can be made with it then: put another one into the file, which is noticed by itself",
			"subject", cert.Subject.String(), "expires", cert.NotAfter.Format(time.DateTime))
	}
}

// all are the certificates on which connections depend.
func (c *Credentials) all() []*x509.Certificate {
	l := c.current.Load()
	var all []*x509.Certificate
	if l.pair != nil {
		all = append(all, l.pair.Leaf)
	}
	return append(all, l.trusted...)
}

// Expires is when the first of the certificates in use ends; zero: there is none.
func (c *Credentials) Expires() time.Time {
	var first time.Time
	for _, cert := range c.all() {
		if first.IsZero() || cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	return first
}

// Own returns the certificate that this process shows; nil: none.
func (c *Credentials) Own() *x509.Certificate {
	if pair := c.current.Load().pair; pair != nil {
		return pair.Leaf
	}
	return nil
}

// Verify tells whether a chain that somebody has shown, its own certificate first, is believed now, for this use.
func (c *Credentials) Verify(chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	return verify(chain, c.current.Load().roots, use)
}

// StillBelieved is Verify for a connection that is there: that a certificate has expired meanwhile does not matter. When certificates have been
// forgotten, the node that gets a new one first would lose its connections to all others otherwise, and could not make new ones.
func (c *Credentials) StillBelieved(chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	l, at := c.current.Load(), time.Now()
	if verifyAt(at, chain, l.roots, use) == nil {
		return nil
	}
	for _, cert := range slices.Concat(chain, l.trusted) {
		if cert.NotAfter.Before(at) && !cert.NotAfter.Before(chain[0].NotBefore) { // others are of no use for this one
			at = cert.NotAfter
		}
	}
	return verifyAt(at, chain, l.roots, use)
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, use x509.ExtKeyUsage) error {
	return verifyAt(time.Now(), chain, roots, use)
}

func verifyAt(at time.Time, chain []*x509.Certificate, roots *x509.CertPool, use x509.ExtKeyUsage) error {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: at}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(o)
	return err
}

// Clients says whether clients need a certificate. Nodes always do.
type Clients int

const (
	// CertificateRequired refuses connections without one.
	CertificateRequired Clients = iota
	// CertificateRequested lets clients without one in, as User:ANONYMOUS.
	CertificateRequested
)

// Server is the side that is dialled. Of the certificates that it is shown it believes those that the authorities of the file have made, and
// that Of understands.
func (c *Credentials) Server(clients Clients) *tls.Config {
	mode := tls.RequireAndVerifyClientCert
	if clients == CertificateRequested {
		mode = tls.VerifyClientCertIfGiven
	}
	fresh := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		l := c.current.Load()
		config := base()
		config.Certificates, config.ClientCAs, config.ClientAuth = []tls.Certificate{*l.pair}, l.roots, mode
		config.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil
			}
			_, err := Of(s.PeerCertificates[0])
			return err
		}
		return config, nil
	}
	config := base()
	config.GetConfigForClient = fresh
	return config
}

// Client is the side that dials a node whose certificate must be for the host of the address.
func (c *Credentials) Client(address string) *tls.Config {
	config := c.dialing()
	config.ServerName = hostOf(address)
	return config
}

// Node is the side that dials a node whose certificate must be that of this node of the cluster, whatever its address is; id.NoNode: of any
// node of the cluster.
func (c *Credentials) Node(address, cluster string, node id.Node) *tls.Config {
	config := c.dialing()
	config.ServerName = hostOf(address)
	config.InsecureSkipVerify = true // what it would verify is the host; all else is done here
	config.VerifyConnection = func(s tls.ConnectionState) error {
		if err := c.Verify(s.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		who, err := Of(s.PeerCertificates[0])
		switch {
		case err != nil:
			return err
		case !who.IsNode(cluster):
			return fmt.Errorf("the certificate there is that of %s, and not that of a node of cluster %q", who, cluster)
		case node != id.NoNode && who.Node != node:
			return fmt.Errorf("the certificate there is that of %s, and not that of node %d", who, node)
		}
		return nil
	}
	return config
}

func (c *Credentials) dialing() *tls.Config {
	l := c.current.Load()
	config := base()
	config.RootCAs = l.roots
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if l.pair == nil {
			return &tls.Certificate{}, nil
		}
		return l.pair, nil // also to a server that would not believe it: it says so then
	}
	return config
}

// base is what both sides have in common. No session is resumed: connections live long, and each new one is to show what it has.
func base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol}, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
