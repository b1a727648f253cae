package node

import (
	"strings"
	"testing"
)

// TestCheckDirectories: directories that do not belong together are refused, with what to do.
func TestCheckDirectories(t *testing.T) {
	t.Parallel()
	home := identity{NodeID: 1, StoreID: "h", More: []string{"a", "b"}}
	a, b := identity{NodeID: 1, StoreID: "a", Home: "h"}, identity{NodeID: 1, StoreID: "b", Home: "h"}
	alone := identity{NodeID: 1, StoreID: "h"}
	for _, tt := range []struct {
		name  string
		home  identity
		found []identity
		want  string // "": it is fine
	}{
		{"all", home, []identity{a, b}, ""},
		{"another order", home, []identity{b, a}, ""},
		{"all new", identity{}, []identity{{}, {}}, ""},
		{"one alone", alone, nil, ""},
		{"more for one that was alone", alone, []identity{{}}, ""},
		{"one more", home, []identity{a, {}, b}, ""},
		{"a start that crashed before it was listed", alone, []identity{a}, ""},
		{"missing", home, []identity{a}, "store b"},
		{"not mounted", home, []identity{a, {}}, "is the disk mounted"},
		{"first not mounted", identity{}, []identity{a, b}, "is its disk mounted"},
		{"swapped with the first", a, []identity{home, b}, "name d0 first"},
		{"first not named", a, []identity{b}, "name that one first"},
		{"copied", home, []identity{a, b, a}, "copy"},
		{"copy of the first", home, []identity{a, b, home}, "copy"},
		{"another's first", home, []identity{a, b, {NodeID: 1, StoreID: "x"}}, "directories of its own"},
		{"another's", home, []identity{a, b, {NodeID: 1, StoreID: "x", Home: "y"}}, "another first"},
		{"another node's", home, []identity{a, b, {NodeID: 2, StoreID: "x", Home: "h"}}, "another first"},
	} {
		missing, err := checkDirectories("home", tt.home, []string{"d0", "d1", "d2"}, tt.found)
		if err == nil && len(missing.stores) > 0 {
			err = missing
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// The identity of several directories is not for releases that know of one alone.
func TestIdentityOfSeveral(t *testing.T) {
	t.Parallel()
	for _, ident := range []identity{{NodeID: 1, StoreID: "h", More: []string{"a", "b"}}, {NodeID: 1, StoreID: "a", Home: "h"}, {NodeID: 1, StoreID: "h"}} {
		block, err := ident.block()
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseIdentity(block)
		if err != nil || got.Home != ident.Home || strings.Join(got.More, ",") != strings.Join(ident.More, ",") {
			t.Errorf("%+v comes back as %+v, %v", ident, got, err)
		}
		if several := ident.Home != "" || ident.More != nil; strings.Contains(string(block), "version=3\n") != several {
			t.Errorf("%+v is written as\n%s", ident, block)
		}
	}
	most := identity{NodeID: 1<<31 - 1, ClusterID: strings.Repeat("c", 22), Cluster: strings.Repeat("n", 200), StoreID: strings.Repeat("s", 36), Founder: true,
		Boot: 1<<64 - 1, Revision: 1<<64 - 1, Mark: suspect}
	for range mostMoreDirs {
		most.More = append(most.More, strings.Repeat("s", 36))
	}
	if _, err := most.block(); err != nil {
		t.Error(err)
	}
}
