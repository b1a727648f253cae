// Package authtest has certificates for tests, in files.
package authtest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal/id"
)

// CA makes certificates for a test, in a directory of its own.
type CA struct {
	t         testing.TB
	dir       string
	cluster   string
	authority *auth.Authority
	file      string
	made      atomic.Int64
}

// New makes an authority for the nodes of a cluster and its clients.
func New(t testing.TB, cluster string) *CA {
	t.Helper()
	a, pair, err := auth.NewAuthority("CA of "+cluster, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c := &CA{t: t, dir: t.TempDir(), cluster: cluster, authority: a}
	c.file = filepath.Join(c.dir, "ca.crt")
	Write(t, c.file, pair.Certificate)
	return c
}

// Write replaces a file as careful programs do, at once.
func Write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// File is where the authority's certificate stands.
func (c *CA) File() string { return c.file }

// Node makes the certificate of a node on loopback that is valid for a day.
func (c *CA) Node(n id.Node) auth.Files { return c.NodeOf(c.cluster, n, 24*time.Hour) }

// NodeOf makes one of a cluster with another name, or that is valid for as long. A negative lifetime: it was valid that long ago.
func (c *CA) NodeOf(cluster string, n id.Node, lifetime time.Duration) auth.Files {
	c.t.Helper()
	pair, err := c.authority.Node(cluster, n, []string{"127.0.0.1", "localhost"}, lifetime)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.files(fmt.Sprintf("node-%d", n), pair)
}

// Client makes the certificate of a client.
func (c *CA) Client(name string) auth.Files {
	c.t.Helper()
	pair, err := c.authority.Client(name, 24*time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.files("client-"+name, pair)
}

// Replace puts what other files hold in the place of these, without changing their names.
func (c *CA) Replace(files, by auth.Files) {
	c.t.Helper()
	for name, other := range map[string]string{files.CA: by.CA, files.Certificate: by.Certificate, files.Key: by.Key} {
		content, err := os.ReadFile(other)
		if err != nil {
			c.t.Fatal(err)
		}
		Write(c.t, name, content)
	}
}

func (c *CA) files(name string, pair auth.Pair) auth.Files {
	made := c.made.Add(1)
	base := filepath.Join(c.dir, fmt.Sprintf("%s-%d", name, made))
	f := auth.Files{CA: base + ".ca", Certificate: base + ".crt", Key: base + ".key"}
	authority, err := os.ReadFile(c.file)
	if err != nil {
		c.t.Fatal(err)
	}
	Write(c.t, f.CA, authority)
	Write(c.t, f.Certificate, pair.Certificate)
	Write(c.t, f.Key, pair.Key)
	return f
}

// Load reads files.
func Load(t testing.TB, f auth.Files) *auth.Credentials {
	t.Helper()
	c, err := auth.Load(auth.Options{Files: f})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Join puts what several files hold into one: authorities that are believed together.
func Join(t testing.TB, name string, parts ...string) {
	t.Helper()
	var all []byte
	for _, part := range parts {
		content, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content...)
	}
	Write(t, name, all)
}
