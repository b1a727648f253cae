package client

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"testing"

	"github.com/xdg-go/scram"
)

// TestScramCredential: what is told of a password is what another implementation of SCRAM makes of it, with a salt of its own each time.
func TestScramCredential(t *testing.T) {
	for m, generator := range map[ScramMechanism]scram.HashGeneratorFcn{
		ScramSHA256: func() hash.Hash { return sha256.New() }, ScramSHA512: func() hash.Hash { return sha512.New() },
	} {
		c, err := scramCredential("alice", "pencil,=ö", m, 4096)
		if err != nil {
			t.Fatal(err)
		}
		other, err := generator.NewClientUnprepped("alice", "pencil,=ö", "")
		if err != nil {
			t.Fatal(err)
		}
		want, err := other.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(c.GetSalt()), Iters: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if string(c.GetStoredKey()) != string(want.StoredKey) || string(c.GetServerKey()) != string(want.ServerKey) {
			t.Errorf("%v: got %s, %s", m, base64.StdEncoding.EncodeToString(c.GetStoredKey()), base64.StdEncoding.EncodeToString(c.GetServerKey()))
		}
		again, err := scramCredential("alice", "pencil,=ö", m, 4096)
		if err != nil || string(again.GetSalt()) == string(c.GetSalt()) {
			t.Errorf("%v: the salt is used twice: %v", m, err)
		}
	}
	for _, wrong := range []struct {
		password   string
		mechanism  ScramMechanism
		iterations int
	}{{"", ScramSHA256, 4096}, {"p", 0, 4096}, {"p", 3, 4096}, {"p", ScramSHA256, 0}, {"p", ScramSHA256, 1 << 30}} {
		if _, err := scramCredential("alice", wrong.password, wrong.mechanism, wrong.iterations); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}
