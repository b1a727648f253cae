package client_test

import (
	"fmt"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/cmd/floors"
)

const module = "github.com/quorumlog/quorumlog/"

// TestSurface: who uses the package needs no other one of the module to name what its functions take and return, and what it prints of a
// value is all of it.
func TestSurface(t *testing.T) {
	if testing.Short() {
		t.Skip("type-checks the package")
	}
	t.Parallel()
	pkg := floors.Read(t).Package
	s := surface{pkg: pkg, names: make(map[*types.TypeName]string), seen: make(map[types.Type]bool)}
	exported := 0
	for _, name := range pkg.Scope().Names() {
		if alias, ok := pkg.Scope().Lookup(name).Type().(*types.Alias); ok && token.IsExported(name) {
			if named, ok := types.Unalias(alias).(*types.Named); ok {
				s.names[named.Obj()] = name
			}
		}
	}
	for _, name := range pkg.Scope().Names() {
		if object := pkg.Scope().Lookup(name); object.Exported() {
			exported++
			s.object(object)
		}
	}
	if exported < 50 {
		t.Errorf("only %d exported names: the check looked at the wrong thing", exported)
	}
	slices.Sort(s.leaks)
	for _, leak := range slices.Compact(s.leaks) {
		t.Error(leak)
	}
}

// surface is what can be reached from the exported names of a package.
type surface struct {
	pkg   *types.Package
	names map[*types.TypeName]string // of other packages' types, here
	seen  map[types.Type]bool
	leaks []string
}

func (s *surface) object(o types.Object) {
	t, ok := o.(*types.TypeName)
	if !ok {
		s.typ(o.Name(), o.Type())
		return
	}
	named, ok := types.Unalias(t.Type()).(*types.Named)
	if !ok {
		s.typ(o.Name(), t.Type().Underlying())
		return
	}
	s.typ(o.Name(), named.Underlying())
	for m := range named.Methods() {
		if m.Exported() {
			s.typ(o.Name()+"."+m.Name(), m.Type())
		}
	}
	if t.IsAlias() {
		return
	}
	methods := types.NewMethodSet(types.NewPointer(named))
	for _, name := range []string{"String", "Format", "GoString", "MarshalJSON", "MarshalText"} {
		method := methods.Lookup(s.pkg, name)
		hidden := name == "String" && methods.Lookup(s.pkg, "Error") != nil // fmt prefers Error
		if method != nil && len(method.Index()) > 1 && !hidden {
			s.leaks = append(s.leaks, fmt.Sprintf("%s has the method %s of what it embeds: that shows no other field", o.Name(), name))
		}
	}
}

// typ looks for types of other packages of the module in t, which is met at a place.
func (s *surface) typ(place string, t types.Type) {
	if alias, ok := t.(*types.Alias); ok && alias.Obj().Pkg() == s.pkg {
		if !alias.Obj().Exported() {
			s.leaks = append(s.leaks, place+" shows "+alias.Obj().Name()+", which nobody can name")
		}
		return // object looks at what it stands for
	}
	t = types.Unalias(t)
	if named, ok := t.(*types.Named); ok {
		s.named(place, named)
		return
	}
	if s.seen[t] {
		return
	}
	s.seen[t] = true
	switch t := t.(type) {
	case *types.Signature:
		for v := range t.Params().Variables() {
			s.typ(place, v.Type())
		}
		for v := range t.Results().Variables() {
			s.typ(place, v.Type())
		}
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() {
				s.typ(place+"."+f.Name(), f.Type())
			}
		}
	case *types.Interface:
		for m := range t.Methods() {
			s.typ(place+"."+m.Name(), m.Type())
		}
	case *types.Map:
		s.typ(place, t.Key())
		s.typ(place, t.Elem())
	case interface{ Elem() types.Type }: // pointers, slices, arrays, channels
		s.typ(place, t.Elem())
	}
}

func (s *surface) named(place string, t *types.Named) {
	for argument := range t.TypeArgs().Types() {
		s.typ(place, argument)
	}
	of := t.Obj().Pkg()
	switch {
	case of == s.pkg && !t.Obj().Exported():
		s.leaks = append(s.leaks, place+" shows "+t.Obj().Name()+", which nobody can name")
	case of == nil || of == s.pkg || !strings.HasPrefix(of.Path(), module):
	case s.names[t.Obj()] == "":
		s.leaks = append(s.leaks, fmt.Sprintf("%s shows %s, which has no name here", place, t))
	case !isAlias(s.pkg, place):
		s.leaks = append(s.leaks, fmt.Sprintf("%s shows %s: call it %s here", place, t, s.names[t.Obj()]))
	}
}

// isAlias tells whether a place is within a type that is another package's, which has its own names for its parts.
func isAlias(pkg *types.Package, place string) bool {
	name, _, _ := strings.Cut(place, ".")
	t, ok := pkg.Scope().Lookup(name).(*types.TypeName)
	return ok && t.IsAlias()
}
