package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// commandLine runs a command line in this process.
func commandLine(t *testing.T, words ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(testContext(t), words, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// TestCertificates makes what a first cluster needs as the README has it, and has a node and a client use it.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	at := func(name string) string { return filepath.Join(certs, name) }
	cluster := "test-" + filepath.Base(dir)
	made := [][]string{
		{"cert", "ca", "--dir", certs},
		{"cert", "node", "--dir", certs, "--cluster-name", cluster, "--node-id", "1", "127.0.0.1", "localhost"},
		{"cert", "node", "--dir", certs, "--cluster-name", cluster, "--node-id", "2", "127.0.0.1"},
		{"cert", "client", "alice", "--dir", certs},
		{"cert", "gossip-key", "--dir", certs},
	}
	for _, words := range made {
		if code, out, errs := commandLine(t, words...); code != 0 || !strings.Contains(out, certs) {
			t.Fatalf("%v: code %d, %s%s", words, code, out, errs)
		}
	}
	files, err := os.ReadDir(certs)
	if err != nil || len(files) != 9 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	for _, test := range []struct {
		words []string
		want  string
	}{
		{made[0], "not overwritten"}, {made[1], "not overwritten"}, {made[3], "not overwritten"}, {made[4], "not overwritten"},
		{[]string{"cert", "node", "--dir", filepath.Join(dir, "none"), "--node-id", "1", "host"}, "cert ca"},
		{[]string{"cert", "node", "--dir", certs, "--node-id", "3"}, "host of the node's advertised address"},
		{[]string{"cert", "node", "--dir", certs, "host"}, "--node-id"},
		{[]string{"cert", "node", "--dir", certs, "--node-id", "3", "host:9192"}, "no port"},
		{[]string{"cert", "client", "../x", "--dir", certs}, "name of a file"},
		{[]string{"cert", "client", "x", "--dir", certs, "--days", "0"}, "--days"},
	} {
		if code, _, errs := commandLine(t, test.words...); code == 0 || !strings.Contains(errs, test.want) {
			t.Errorf("%v: code %d, %q, want %q", test.words, code, errs, test.want)
		}
	}

	flags := func(name string) []string {
		return []string{"--tls-ca", at("ca.crt"), "--tls-cert", at(name + ".crt"), "--tls-key", at(name + ".key")}
	}
	d := launch(t, append(founderArgs(t, dir, 1, "--gossip-key-file", at("gossip.key")), flags("node-1")...)...)
	d.serves(1)
	port, _, _ := d.ports()
	status := func(more ...string) (int, string, string) {
		return commandLine(t, append([]string{"cluster", "status", "--servers", port, "--timeout", "20s"}, more...)...)
	}
	eventually(t, "the status to be answered to alice", func() bool {
		code, _, _ := status(flags("client-alice")...)
		return code == 0
	})
	other := filepath.Join(dir, "other")
	for _, words := range [][]string{{"cert", "ca", "--dir", other}, {"cert", "client", "alice", "--dir", other}} {
		if code, _, errs := commandLine(t, words...); code != 0 {
			t.Fatal(errs)
		}
	}
	stranger := []string{"--tls-ca", at("ca.crt"), "--tls-cert", filepath.Join(other, "client-alice.crt"), "--tls-key", filepath.Join(other, "client-alice.key")}
	for name, test := range map[string]struct {
		flags []string
		want  string
	}{
		"without TLS":               {nil, "this port speaks TLS"},
		"without a certificate":     {[]string{"--tls-ca", at("ca.crt")}, "clients need a certificate there: --tls-cert"},
		"with one of another CA":    {stranger, "is --tls-cert of an authority"},
		"believing another CA only": {append(flags("client-alice"), "--tls-ca", filepath.Join(other, "ca.crt")), "is --tls-ca the authority"},
	} {
		code, _, errs := commandLine(t, append([]string{"cluster", "status", "--servers", port, "--timeout", "2s"}, test.flags...)...)
		if code == 0 || !strings.Contains(errs, test.want) {
			t.Errorf("%s: code %d, %q, want %q", name, code, errs, test.want)
		}
	}
	for _, want := range []string{"the other side shows no certificate", "certificate of CN=alice is not believed", "does not believe this node's certificate"} {
		eventually(t, "the node to say "+want, func() bool { return strings.Contains(d.errout.String(), want) })
	}

	// Another pair in the place of the first, and a signal.
	if err := os.Rename(certs, certs+".old"); err != nil {
		t.Fatal(err)
	}
	for _, words := range made[:4] {
		if code, _, errs := commandLine(t, words...); code != 0 {
			t.Fatal(errs)
		}
	}
	if err := os.Rename(filepath.Join(certs+".old", "gossip.key"), at("gossip.key")); err != nil {
		t.Fatal(err)
	}
	if err := d.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status to be answered to the new alice", func() bool {
		code, _, _ := commandLine(t, append([]string{"cluster", "status", "--servers", port, "--timeout", "2s"}, flags("client-alice")...)...)
		return code == 0
	})
	d.terminate()
	refused(t, append(nodeArgs(dir, 1), flags("node-2")...), "is that of node 2", "this is node 1", "quorumlog:/"+cluster+"/node/1")
}
