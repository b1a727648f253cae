package raftgroup

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors are the package's files from the bottom up: see the package documentation. A file knows those that stand before it, in its own
// floor too.
var floors = [][]string{
	// Words: what callers say and hear.
	{"role.go", "standing.go", "errors.go", "status.go", "machine.go", "proposal.go", "store.go", "spec.go", "options.go"},
	// Parts: they know no group.
	{"rules.go", "metrics.go", "raftlog.go", "entries.go", "message.go", "members.go", "loans.go", "accusation.go", "condition.go",
		"windows.go", "proposer.go", "awaited.go", "turns.go"},
	// A group, and what it is given.
	{"group.go", "roster.go", "raft.go", "send.go", "notices.go", "reads.go", "storage.go"},
	// What it does.
	{"insync.go", "answers.go", "door.go", "readindex.go", "change.go", "transfer.go", "handover.go", "requests.go", "elect.go",
		"handle.go", "propose.go"},
	// Its life.
	{"append.go", "halt.go", "ready.go", "receive.go", "ending.go", "boot.go", "life.go"},
	// The worker that drives groups.
	{"inbox.go", "worker.go", "drive.go"},
	// The host.
	{"calls.go", "round.go", "refusing.go", "host.go", "disks.go", "visit.go"},
}

// upwards are the references that run against the floors nevertheless, and why.
var upwards = map[string]string{
	"options.go -> calls.go": "OnGroupFailed is told of a Group",
}

// TestFloors: no file knows one above it. Who reads a file needs to know what is below, and nothing else; who moves something up finds out
// here.
func TestFloors(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checks the package")
	}
	t.Parallel()
	place := make(map[string]int)
	for _, floor := range floors {
		for _, file := range floor {
			place[file] = len(place)
		}
	}
	known := references(t)
	used, arrows, back := make(map[string]bool), 0, 0
	for _, file := range slices.Sorted(maps.Keys(known)) {
		if _, ok := place[file]; !ok && file != "doc.go" {
			t.Errorf("%s stands on no floor", file)
		}
		for _, of := range slices.Sorted(maps.Keys(known[file])) {
			arrows++
			arrow := file + " -> " + of
			used[arrow] = true
			if place[of] <= place[file] {
				continue
			}
			back++
			if upwards[arrow] == "" {
				t.Errorf("%s, which is above it, for %s", arrow, strings.Join(slices.Sorted(maps.Keys(known[file][of])), ", "))
			}
		}
	}
	for file := range place {
		if _, ok := known[file]; !ok {
			t.Errorf("there is no %s", file)
		}
	}
	for arrow := range upwards {
		if !used[arrow] {
			t.Errorf("%s is allowed, and not needed", arrow)
		}
	}
	t.Logf("%d of %d references between files run upwards", back, arrows)
}

// references returns what each file of the package uses of what is declared in each other one.
func references(t *testing.T) map[string]map[string]map[string]bool {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	known := make(map[string]map[string]map[string]bool)
	for _, name := range goFiles(t) {
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		known[name] = make(map[string]map[string]bool)
	}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", exports(t))}
	pkg, err := config.Check("github.com/quorumlog/quorumlog/raftgroup", fset, files, info)
	if err != nil {
		t.Fatal(err)
	}
	for ident, object := range info.Uses {
		if object.Pkg() != pkg {
			continue
		}
		from, of := filepath.Base(fset.File(ident.Pos()).Name()), filepath.Base(fset.File(object.Pos()).Name())
		if from == of {
			continue
		}
		if known[from][of] == nil {
			known[from][of] = make(map[string]bool)
		}
		known[from][of][object.Name()] = true
	}
	return known
}

func goFiles(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

// exports returns how the type checker gets at what the package imports: as the compiler has left it.
func exports(t *testing.T) importer.Lookup {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	file := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, export, _ := strings.Cut(strings.TrimSpace(line), " ")
		file[path] = export
	}
	return func(path string) (io.ReadCloser, error) {
		if file[path] == "" {
			return nil, fmt.Errorf("nothing is known of %s", path)
		}
		return os.Open(file[path])
	}
}
