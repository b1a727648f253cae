package main

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/quorumlog/quorumlog/"

// arrows lists, for each package of the module, the prefixes of the module's packages that it may import, directly or not. A
// package is ruled by the longest prefix that matches it; its own subtree is always allowed. Anything that is missing here is
// forbidden: a new arrow is a decision about the architecture (docs/DESIGN.md) and belongs into this table.
var arrows = map[string][]string{
	"wal/id":    {},
	"wal/batch": {"wal/id"},
	"wal":       {"wal"},
	"placement": {"wal/id", "wal/batch", "rpc/broker/acl"},
	"rpc":       {"wal/id", "wal/batch"},
	// What a client may ask of a node, whatever the protocol: the leaves of package rpc.
	"rpc/kerr":   {"wal/id"},
	"rpc/memory": {},
	"rpc/broker": {"rpc/kerr", "wal/id", "wal/batch"},
	"rpc/auth":   {"rpc/kerr", "rpc/broker", "wal/id", "wal/batch"},
	"rpc/native": {"rpc", "wal/id", "wal/batch"},
	"rpc/kafka":  {"rpc/broker", "rpc/kerr", "rpc/memory", "rpc/budget", "rpc/loglimit", "rpc/auth", "wal/id", "wal/batch"},
	"raftgroup":  {"wal"},
	// Pure decisions.
	"raftgroup/election": {"wal/id"},
	"raftgroup/door":     {},
	"raftgroup/insync":   {"wal/id"},
	"raftgroup/waiting":  {"wal/id"},
	"client":             {"rpc", "wal/id", "wal/batch"},
	"node":               {"rpc", "raftgroup", "placement", "wal"},
	"node/leaders":       {"rpc", "placement", "wal/id", "wal/batch"}, // pure, but for the metadata that it asks
	"bench":              {"client", "rpc", "wal/id", "wal/batch"},
	"cmd":                {""},
}

// topLevel is what the top of the repository may hold.
var topLevel = map[string]bool{
	"node": true, "raftgroup": true, "placement": true, "wal": true, "rpc": true, "client": true, "bench": true, "cmd": true,
	"go.mod": true, "go.sum": true, "README.md": true, "CONTRIBUTING.md": true, "LICENSE": true, "docs": true,
}

func TestImportArrows(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`, module+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], module) {
			continue
		}
		packages++
		pkg := strings.TrimPrefix(fields[0], module)
		rule := ruleFor(pkg)
		if rule == "" {
			t.Errorf("package %s is in no row of the table of arrows", pkg)
			continue
		}
		for _, dep := range fields[1:] {
			if dep, ok := strings.CutPrefix(dep, module); ok && !allowed(rule, dep) {
				t.Errorf("%s imports %s, which design's arrows forbid (rule of %q: %v)", pkg, dep, rule, arrows[rule])
			}
		}
	}
	if packages < 8 {
		t.Errorf("go list named only %d packages of the module: the check looked at the wrong thing", packages)
	}
}

func TestTopLevel(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("git", "-C", "../..", "ls-files").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	for name := range strings.Lines(string(out)) {
		top, _, _ := strings.Cut(strings.TrimSpace(name), "/")
		if !strings.HasPrefix(top, ".") && !topLevel[top] {
			t.Errorf("%s is not part of the agreed top level", top)
		}
	}
}

func ruleFor(pkg string) string {
	best := ""
	for prefix := range arrows {
		if within(pkg, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return best
}

func allowed(rule, dep string) bool {
	if within(dep, rule) {
		return true
	}
	for _, prefix := range arrows[rule] {
		if within(dep, prefix) {
			return true
		}
	}
	return false
}

func within(pkg, prefix string) bool {
	return prefix == "" || pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}
