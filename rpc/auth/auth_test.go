package auth_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/auth/authtest"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/id"
)

func uris(t *testing.T, texts ...string) []*url.URL {
	var all []*url.URL
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, u)
	}
	return all
}

func subject(t *testing.T, attributes ...pkix.AttributeTypeAndValue) []byte {
	var rdns pkix.RDNSequence
	for _, a := range attributes {
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{a})
	}
	der, err := asn1.Marshal(rdns)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func attribute(last int, value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, last}, Value: value}
}

// What a certificate says of its owner, and what it cannot say.
func TestOf(t *testing.T) {
	const country, organization, common = 6, 10, 3
	alice := subject(t, attribute(country, "CH"), attribute(organization, "Ex, Inc"), attribute(common, "alice"))
	for _, c := range []struct {
		subject []byte
		uris    []string
		want    string // "": refused
		node    id.Node
		cluster string
	}{
		{alice, nil, `User:CN=alice,O=Ex\, Inc,C=CH`, id.NoNode, ""},
		{alice, []string{"spiffe://example.org/x"}, `User:CN=alice,O=Ex\, Inc,C=CH`, id.NoNode, ""},
		{alice, []string{"quorumlog:/prod/node/3"}, `User:CN=alice,O=Ex\, Inc,C=CH`, 3, "prod"},
		{alice, []string{"spiffe://example.org/x", "quorumlog:///prod/node/0"}, `User:CN=alice,O=Ex\, Inc,C=CH`, 0, "prod"},
		{subject(t), []string{"quorumlog:/prod/node/3"}, "User:quorumlog:/prod/node/3", 3, "prod"},
		{subject(t), nil, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/3", "quorumlog:/prod/node/4"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/3", "quorumlog:/prod/node/3"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/-1"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/03"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/4294967299"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/3/4"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/"}, "", 0, ""},
		{alice, []string{"quorumlog://prod/node/3"}, "", 0, ""},
		{alice, []string{"quorumlog://h/prod/node/3"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/node/3?x"}, "", 0, ""},
		{alice, []string{"quorumlog:prod"}, "", 0, ""},
		{alice, []string{"quorumlog:/prod/client/3"}, "", 0, ""},
		{alice, []string{"quorumlog://node/3"}, "", 0, ""},
	} {
		who, err := auth.Of(&x509.Certificate{RawSubject: c.subject, URIs: uris(t, c.uris...)})
		if c.want == "" {
			if err == nil {
				t.Errorf("%v is %+v", c.uris, who)
			}
			continue
		}
		if err != nil || who.Principal.String() != c.want || who.Node != c.node || who.Cluster != c.cluster {
			t.Errorf("%v is %+v, %v; want %s, node %d of %q", c.uris, who, err, c.want, c.node, c.cluster)
		}
	}
}

// Every name that a cluster may have survives the certificate, and no other cluster's name reads as it.
func TestNodeURI(t *testing.T) {
	for _, cluster := range []string{"prod", "a/b", "a%2Fb", "prod/node/1", "ü€", "x?y#z", "..", "with:colon@and", strings.Repeat("n", 200)} {
		authority := authtest.New(t, cluster)
		text, err := os.ReadFile(authority.Node(7).Certificate)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatalf("%q: %v", cluster, err)
		}
		if who, err := auth.Of(cert); err != nil || !who.IsNode(cluster) || who.Node != 7 || who.IsNode("other") {
			t.Errorf("%q comes back as %+v, %v", cluster, who, err)
		}
	}
}

func FuzzNodeURI(f *testing.F) {
	f.Add("quorumlog:/prod/node/3")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "quorumlog" {
			return
		}
		who, err := auth.Of(&x509.Certificate{RawSubject: []byte{0x30, 0}, URIs: []*url.URL{u}})
		if err != nil {
			return
		}
		again, err := auth.Of(&x509.Certificate{RawSubject: []byte{0x30, 0}, URIs: uris(t, auth.NodeURI(who.Cluster, who.Node).String())})
		if err != nil || again.Node != who.Node || again.Cluster != who.Cluster {
			t.Errorf("%q is %+v, and %+v (%v) when it is written again", text, who, again, err)
		}
	})
}

// Files that change are noticed; what cannot be used stays out and is said once, and not while somebody is still writing.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log rpctest.Log
		ca := authtest.New(t, "prod")
		files, next := ca.NodeOf("prod", 1, 90*24*time.Hour), ca.NodeOf("prod", 1, 180*24*time.Hour)
		c, err := auth.Load(auth.Options{Files: files, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		first := c.Own()
		changes := 0
		go c.Watch(t.Context(), func(changed bool) {
			if changed {
				changes++
			}
		})
		look := func() {
			time.Sleep(auth.LookInterval)
			synctest.Wait()
		}
		look()
		certificate, err := os.ReadFile(next.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		authtest.Write(t, files.Certificate, certificate) // its key comes later
		look()
		if c.Own() != first || strings.Contains(log.String(), "cannot be used") {
			t.Errorf("half of a pair: %s", log.String())
		}
		for range 5 {
			look()
		}
		if c.Own() != first || strings.Count(log.String(), "cannot be used") != 1 || !strings.Contains(log.String(), "private key does not match") {
			t.Errorf("a pair that does not fit: %s", log.String())
		}
		ca.Replace(files, next)
		look()
		if c.Own() == first || changes != 1 {
			t.Errorf("the new pair is not used: %d changes, %s", changes, log.String())
		}
		if err := os.Remove(files.Key); err != nil {
			t.Fatal(err)
		}
		look()
		if strings.Count(log.String(), "cannot be used") != 2 || changes != 1 || c.Own() == nil {
			t.Errorf("a file is gone: %s", log.String())
		}
		ca.Replace(files, next)
		look()
	})
}

// A connection that is there outlives its certificate, and even the authority's, but not that the authority is taken out.
func TestStillBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := authtest.New(t, "prod"), authtest.New(t, "prod")
		load := func(f auth.Files) *auth.Credentials { return authtest.Load(t, f) }
		chain := []*x509.Certificate{load(ca.NodeOf("prod", 2, time.Hour)).Own()}
		mine, others := load(auth.Files{CA: ca.File()}), load(auth.Files{CA: other.File()})
		for _, hours := range []time.Duration{0, 2, 48} {
			time.Sleep(hours * time.Hour)
			if err := mine.Verify(chain, x509.ExtKeyUsageClientAuth); (err == nil) != (hours == 0) {
				t.Errorf("after %d hours a new connection: %v", hours, err)
			}
			if err := mine.StillBelieved(chain, x509.ExtKeyUsageClientAuth); err != nil {
				t.Errorf("after %d hours: %v", hours, err)
			}
			if others.StillBelieved(chain, x509.ExtKeyUsageClientAuth) == nil || mine.StillBelieved(chain, x509.ExtKeyUsageCodeSigning) == nil {
				t.Errorf("after %d hours what was never believed is", hours)
			}
		}
	})
}

// The end of a certificate is told ahead, and not with each look.
func TestWordOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log rpctest.Log
		authority, pair, err := auth.NewAuthority("CA", 3650*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := authority.Client("alice", 2*time.Hour) // of three, since it begins in the past
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		f := auth.Files{CA: dir + "/ca", Certificate: dir + "/crt", Key: dir + "/key"}
		authtest.Write(t, f.CA, pair.Certificate)
		authtest.Write(t, f.Certificate, leaf.Certificate)
		authtest.Write(t, f.Key, leaf.Key)
		c, err := auth.Load(auth.Options{Files: f, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		go c.Watch(t.Context(), func(bool) {})
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if log.String() != "" {
			t.Errorf("70 minutes before: %s", log.String())
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "one expires soon"); n != 1 {
			t.Errorf("50 minutes before: %d lines, %s", n, log.String())
		}
		if left := time.Until(c.Expires()); left < 49*time.Minute || left > 51*time.Minute {
			t.Errorf("it ends in %v", left)
		}
	})
}
