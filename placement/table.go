package placement

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Table is the metadata state machine. Fold, Apply, Snapshot and Restore are called by one goroutine at a time, the worker of the metadata
// group; View by anyone.
//
// Each command builds a new View that shares all it did not change with the one before: the cost is a copy of a slice of pointers,
// and readers never wait.
type Table struct {
	view  atomic.Pointer[View]
	saved struct { // the last snapshot: a checkpoint of a table at rest costs nothing
		of    *View
		bytes []byte
	}
}

// NewTable returns the table before any command.
func NewTable() *Table {
	t := &Table{}
	t.view.Store(emptyView())
	return t
}

// View returns the table as it is now.
func (t *Table) View() *View { return t.view.Load() }

// Outcome is what became of a command. It is the same on every node.
type Outcome struct {
	Result any   // what the command's type says, or nil
	Err    error // it was refused, for one of the Err… values, and changed nothing but the table's index
}

// Fold carries out the commands of the entry at the index, and returns the outcome of each.
//
// Nothing but the table and the commands decides what they do: no clock, no limit that another release has elsewhere. The error is an
// *UnsupportedError: the release is too old for what the log has come to. The table is then as it was before the entry, and nothing may be folded
// into it any more: whatever came next would be built on a hole.
func (t *Table) Fold(index id.Index, commands ...Command) ([]Outcome, error) {
	v := t.view.Load()
	if index < v.index {
		panic(fmt.Sprintf("placement: command at index %d after the one at %d", index, v.index))
	}
	outcomes := make([]Outcome, len(commands))
	for i, c := range commands {
		next, refused := *v, *v
		next.index, refused.index = index, index
		result, err := next.apply(c)
		var unsupported *UnsupportedError
		switch {
		case errors.As(err, &unsupported):
			return nil, err
		case err != nil:
			v, outcomes[i].Err = &refused, err
		default:
			v, outcomes[i].Result = &next, result
		}
	}
	t.view.Store(v)
	return outcomes, nil
}

// Apply folds one command and returns its result, or an error: of its outcome, or that of Fold.
func (t *Table) Apply(index id.Index, c Command) (any, error) {
	outcomes, err := t.Fold(index, c)
	if err != nil {
		return nil, err
	}
	return outcomes[0].Result, outcomes[0].Err
}

// apply changes v, which is not published yet. On error v may be half changed and is dropped. It must not write through any
// slice or map that it shares with the published view.
func (v *View) apply(c Command) (any, error) {
	if c, ok := c.(FoundCluster); ok {
		return nil, v.found(c)
	}
	if err := v.hasLevel(c); err != nil {
		return nil, err
	}
	if v.clusterID == "" {
		return nil, refuse(ErrNotFounded, "the cluster is being founded: try again in a moment")
	}
	switch c := c.(type) {
	case RegisterNode:
		return v.register(c)
	case UnregisterNode:
		return nil, v.unregister(c)
	case CreateTopic:
		return v.createTopic(c)
	case DeleteTopic:
		return v.deleteTopic(c)
	case AlterTopicConfig:
		return v.alterConfig(c)
	case AllocateProducerIDs:
		return v.allocateProducers(c)
	case SetFeatureLevel:
		return nil, v.setLevel(c)
	case CreateACLs:
		v.acls = v.acls.With(c.Bindings...)
		return nil, nil
	case DeleteACLs:
		var gone []acl.Binding
		v.acls, gone = v.acls.Without(c.Bindings...)
		return gone, nil
	case AlterUsers:
		return nil, v.alterUsers(c)
	case AlterQuotas:
		v.quotas = v.quotas.With(c.rules(v.quotas)...)
		return nil, nil
	default:
		return v.applyLater(c)
	}
}

// inserted, replaced and removed return a changed copy of s: the published view keeps the one it has.
func inserted[E any](s []E, i int, e E) []E { return slices.Insert(slices.Clip(s), i, e) }

func replaced[E any](s []E, i int, e E) []E {
	s = slices.Clone(s)
	s[i] = e
	return s
}

func removed[E any](s []E, i int) []E { return slices.Delete(slices.Clone(s), i, i+1) }
