package floors

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Source is a package, type-checked from its source without its tests.
type Source struct {
	Package *types.Package
	Files   []string // names, without directories

	fset *token.FileSet
	info *types.Info
}

// Read reads the package in the directory of the test, for the platform that it runs on.
func Read(t testing.TB) *Source {
	t.Helper()
	lines := list(t, "-f", `{{.ImportPath}}{{range .GoFiles}} {{.}}{{end}}`)
	fields := strings.Fields(lines[0])
	s := &Source{Files: fields[1:], fset: token.NewFileSet(), info: &types.Info{Uses: make(map[*ast.Ident]types.Object)}}
	var files []*ast.File
	for _, name := range s.Files {
		f, err := parser.ParseFile(s.fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	config := types.Config{Importer: importer.ForCompiler(s.fset, "gc", compiled(t))}
	var err error
	if s.Package, err = config.Check(fields[0], s.fset, files, s.info); err != nil {
		t.Fatal(err)
	}
	return s
}

// compiled returns how the type checker gets at what the package imports: as the compiler has left it.
func compiled(t testing.TB) importer.Lookup {
	t.Helper()
	file := make(map[string]string)
	for _, line := range list(t, "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}") {
		path, export, _ := strings.Cut(line, " ")
		file[path] = export
	}
	return func(path string) (io.ReadCloser, error) {
		if file[path] == "" {
			return nil, fmt.Errorf("nothing is known of %s", path)
		}
		return os.Open(file[path])
	}
}

// list is the lines of what go list says of the package.
func list(t testing.TB, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append(append([]string{"list"}, args...), ".")...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// references returns what each file uses of what is declared in each other one.
func (s *Source) references() map[string]map[string]map[string]bool {
	known := make(map[string]map[string]map[string]bool)
	for _, name := range s.Files {
		known[name] = make(map[string]map[string]bool)
	}
	for ident, object := range s.info.Uses {
		if object.Pkg() != s.Package {
			continue
		}
		from, of := s.file(ident.Pos()), s.file(object.Pos())
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

func (s *Source) file(at token.Pos) string { return filepath.Base(s.fset.File(at).Name()) }
