package placement

// FeatureLevel counts the changes of the metadata that a release before them cannot follow. A cluster is at one level, which is in the
// table; SetFeatureLevel raises it, once every registered node knows the new one. Until then all releases that know the old one run side by
// side: whoever proposes writes nothing that came with a later level, and snapshots keep the form of the level.
//
// The rules for whoever changes the metadata. What follows from them is in docs/DESIGN.md, "Releases side by side".
//
//   - What is in the log of a released version keeps its meaning. What apply.go does with a command that exists is not changed, not even to
//     refuse what is refused nowhere yet: another release, which runs beside this one, would hold another table.
//   - A new command, or a new form of one (a field, another meaning), raises SupportedLevel by one and carries that level in its key, from
//     command(). The decoder of the old form stays. The proposer takes the new form from the level on: see newestForm.
//   - A new field of the table comes with a new form of the snapshot: see snapshotForm.
//   - A new topic config says with which level it came (ConfigKey.Level). So does a new default, and a range that grows: what one node
//     honours and another does not know may not differ.
//   - Limits and taste belong into rules.go. They are asked before the proposal, and no node holds a committed command against them.
type FeatureLevel int

// The levels, and what came with each.
const (
	// FirstLevel is the level of the first release.
	FirstLevel FeatureLevel = 1
	// LogStartLevel is when log starts begin to move: a partition's command and the section of its view are of this level, and a release
	// from before does not know snapshots for replicas that are behind the start of their leader's log. So are segment.ms and the limits of
	// timestamps. The table is what it was.
	LogStartLevel FeatureLevel = 2
)

// A node of this release can be part of a cluster from OldestLevel to SupportedLevel.
const OldestLevel = FirstLevel

// MayMoveLogStarts tells whether all nodes know what a log start that moves is. Whoever proposes that one moves has to ask.
func (v *View) MayMoveLogStarts() error {
	if v.level < LogStartLevel {
		return tooNew("deleting records", LogStartLevel, v.level)
	}
	return nil
}
