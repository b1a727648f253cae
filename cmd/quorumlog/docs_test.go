package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedTestsExist: each row of docs/FAULTS.md names tests, and they are there, in the package that the row says; so are those that
// docs/DURABILITY.md names, in whichever package.
func TestDocumentedTestsExist(t *testing.T) {
	t.Parallel()
	packages := testsOf(t)
	anywhere := make(map[string]bool)
	for _, tests := range packages {
		for name := range tests {
			anywhere[name] = true
		}
	}
	rows := 0
	for line := range strings.Lines(document(t, "FAULTS.md")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 4 || strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "| where") {
			continue
		}
		rows++
		cited := 0
		for _, part := range strings.Split(cells[3], ";") { // a package is named before the first of its tests
			pkg := "wal"
			for _, m := range citation.FindAllStringSubmatch(part, -1) {
				cited++
				if m[1] != "" {
					pkg = packageNames[m[1]]
				}
				if !packages[pkg][m[2]] {
					t.Errorf("%s is no test of package %q: %s", m[2], pkg, line)
				}
			}
		}
		if cited == 0 {
			t.Errorf("a row without a test: %s", line)
		}
	}
	if rows < 40 {
		t.Errorf("the table has %d rows: the check looked at the wrong thing", rows)
	}
	for _, m := range citation.FindAllStringSubmatch(document(t, "DURABILITY.md"), -1) {
		if !anywhere[m[2]] {
			t.Errorf("%s, which docs/DURABILITY.md names, is no test", m[2])
		}
	}
}

var (
	citation     = regexp.MustCompile("(?:\\b([a-z]+(?:/[a-z]+)?) )?`(Test[A-Za-z0-9]+)`")
	packageNames = map[string]string{"journal": "wal/journal", "node": "node", "node/replicas": "node/replicas", "raftgroup": "raftgroup", "cmd": "cmd/quorumlog"}
	declaration  = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
)

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// testsOf returns the tests of each package, by its directory.
func testsOf(t *testing.T) map[string]map[string]bool {
	t.Helper()
	packages := make(map[string]map[string]bool)
	for _, top := range []string{"wal", "node", "raftgroup", "placement", "rpc", "client", "cmd", "bench"} {
		err := filepath.WalkDir("../../"+top, func(file string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(file, "_test.go") {
				return err
			}
			b, err := os.ReadFile(file)
			pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../../")
			for _, m := range declaration.FindAllStringSubmatch(string(b), -1) {
				if packages[pkg] == nil {
					packages[pkg] = make(map[string]bool)
				}
				packages[pkg][m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return packages
}
