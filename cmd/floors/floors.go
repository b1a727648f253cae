package floors

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// backwards is the most that may run against the floors: fewer than one reference in so many.
const backwards = 10

// Check fails the test when a file of the package in its directory knows one above it. The floors are the package's files from the bottom
// up; a file knows those that stand before it, in its own floor too, and doc.go stands nowhere. upwards are the references that run against
// the floors nevertheless, "a.go -> b.go", each with its reason: fewer than one in ten.
//
// Who reads a file needs to know what is below, and nothing else; who moves something up finds out here.
func Check(t *testing.T, floors [][]string, upwards map[string]string) {
	t.Helper()
	place := make(map[string]int)
	for _, floor := range floors {
		for _, file := range floor {
			place[file] = len(place)
		}
	}
	known := Read(t).references()
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
		if _, err := os.Stat(file); err != nil { // those of other platforms are there, and not looked at
			t.Error(err)
		}
	}
	for arrow := range upwards {
		if !used[arrow] {
			t.Errorf("%s is allowed, and not needed", arrow)
		}
	}
	if back*backwards >= max(arrows, 1) {
		t.Errorf("%d of %d references between files run upwards: too many", back, arrows)
	}
	t.Logf("%d of %d references between files run upwards", back, arrows)
}
