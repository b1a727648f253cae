//go:build quorumlog_next

package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A release after this one, with a feature level more. It is built for the test that upgrades a cluster (cmd/quorumlog) and has one of each kind
// of change: a topic config, a command in a new form, and state that goes into the snapshot.

// SupportedLevel is the highest feature level that this release knows.
const SupportedLevel = nextLevel

const nextLevel = newestLevel + 1

// laterState is what levels after the first keep in the table.
type laterState struct {
	// Notes are the notes that all topics ever had, by topic.
	Notes map[string]string `json:"notes,omitempty"`
}

// snapshotForm returns the form of the snapshots of a table at the level: the last level that changed it.
func snapshotForm(level FeatureLevel) FeatureLevel {
	if level < nextLevel {
		return FirstLevel
	}
	return nextLevel
}

// alterWithNote is AlterTopicConfig in the form of that level.
type alterWithNote struct {
	AlterTopicConfig
	Note string `json:"note"`
}

func (alterWithNote) command() (string, FeatureLevel) { return "AlterTopicConfig", nextLevel }

func init() {
	decoders[commandKey(alterWithNote{})] = decodeAs[alterWithNote]
	configKeys = append(configKeys, ConfigKey{
		Name: "note", Values: "any text", Level: nextLevel, apply: func(*TopicConfig, string) error { return nil },
	})
	slices.SortFunc(configKeys, func(a, b ConfigKey) int { return strings.Compare(a.Name, b.Name) })
}

// newestForm returns the command in the newest form that the level has.
func newestForm(c Command, level FeatureLevel) Command {
	if c, ok := c.(AlterTopicConfig); ok && level >= nextLevel {
		return alterWithNote{c, c.Set["note"]}
	}
	return c
}

// applyLater applies the commands that came after the first level.
func (v *View) applyLater(c Command) (any, error) {
	alter, ok := c.(alterWithNote)
	if !ok {
		panic(fmt.Sprintf("placement: unknown command type %T", c))
	}
	result, err := v.alterConfig(alter.AlterTopicConfig)
	if err != nil {
		return nil, err
	}
	notes := maps.Clone(v.Notes)
	if notes == nil {
		notes = make(map[string]string)
	}
	notes[alter.Name] = alter.Note
	v.Notes = notes
	return result, nil
}
