package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The committed code is what the generator makes of the committed .proto file.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	if err := generate(t.Context(), "admin.proto", dir); err != nil {
		t.Fatal(err)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(made) != 2 {
		t.Fatal(made, err)
	}
	for _, name := range made {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Base(name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what admin.proto says: run go generate ./rpc/pb (%v)", filepath.Base(name), err)
		}
	}
}
