//go:build !quorumlog_next

package placement

import "fmt"

// What differs between this release and the one after it. release_next.go is that one, made up, for the test that upgrades a cluster; a
// real one that changes the table changes this file. A new level is named in level.go, and is the newest one in newest.go.

// SupportedLevel is the highest feature level that this release knows.
const SupportedLevel = newestLevel

// laterState is what levels after the first keep in the table.
type laterState struct{}

// snapshotForm returns the form of the snapshots of a table at the level: the last level that changed it.
func snapshotForm(FeatureLevel) FeatureLevel { return FirstLevel }

// newestForm returns the command in the newest form that the level has.
func newestForm(c Command, _ FeatureLevel) Command { return c }

// applyLater applies the commands that came after the first level.
func (v *View) applyLater(c Command) (any, error) {
	panic(fmt.Sprintf("placement: unknown command type %T", c))
}
