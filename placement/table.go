package placement

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Table is the metadata state machine. Apply, Snapshot and Restore are called by one goroutine at a time, the worker of the metadata
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

// Apply carries out the command that stands at the index. An entry may carry several commands, so the index may repeat, but it
// never goes back.
//
// The result is what the command's type says, or nil. A refused command changes nothing but the index and returns an error that
// matches one of the Err… values; that, too, is the same on every node.
func (t *Table) Apply(index id.Index, c Command) (any, error) {
	old := t.view.Load()
	if index < old.index {
		panic(fmt.Sprintf("placement: command at index %d after the one at %d", index, old.index))
	}
	next := *old
	next.index = index
	result, err := next.apply(c)
	if err != nil {
		refused := *old
		refused.index = index
		t.view.Store(&refused)
		return nil, err
	}
	t.view.Store(&next)
	return result, nil
}

// Check tells whether the command would be refused now. A proposer asks before it spends an entry; the answer that counts is
// that of Apply.
func (v *View) Check(c Command) error {
	next := *v
	_, err := next.apply(c)
	return err
}

// apply changes v, which is not published yet. On error v may be half changed and is dropped. It must not write through any
// slice or map that it shares with the published view.
func (v *View) apply(c Command) (any, error) {
	if c, ok := c.(FoundCluster); ok {
		return nil, v.found(c)
	}
	if v.clusterID == "" {
		return nil, refuse(ErrNotFounded, "the cluster is not founded yet: start one node with --bootstrap")
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
	default:
		panic(fmt.Sprintf("placement: unknown command type %T", c))
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
