package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Topic is the name of the internal topic that is the metadata log.
const Topic = "__cluster_metadata"

// Start is where the log of every replica of the metadata group begins. It is not 0: a replica that begins at the very
// beginning of a Raft log would take the founder's configuration from conf changes that are not in the log.
var Start = wal.Start{Index: 1, Term: 1}

// Metadata is the machine of the metadata group: it applies committed commands to the table. The methods of raftgroup.Machine
// run on the group's worker; Current and Changed may be called by anyone.
type Metadata struct {
	table  *placement.Table
	logger *slog.Logger
	// fatal is told of a log that this release cannot follow. What it would build from the rest is not what the others have.
	fatal func(error)

	changed struct {
		sync.Mutex
		c chan struct{} // closed at the next change
	}
}

// errUnknownEntry halts the metadata at an entry of a form that only a later release writes.
var errUnknownEntry = errors.New("this release does not know entries of this kind: upgrade this node")

// errSnapshot refuses a snapshot of the metadata. See CheckView.
var errSnapshot = errors.New("the metadata log is whole on each node, so nobody is behind its start: no leader sends a snapshot of it")

// startAnew is the remedy where a node's own copy of the metadata cannot be used.
const startAnew = "start this node with an empty data directory and an unused node id; its replicas are rebuilt from the others"

// newMetadata returns the machine with the table as the log's last cut has it.
func newMetadata(log *wal.Log, logger *slog.Logger, fatal func(error)) (*Metadata, error) {
	m := &Metadata{table: placement.NewTable(), logger: logger, fatal: fatal}
	m.changed.c = make(chan struct{})
	if view := log.State().View; len(view) > 0 {
		var unsupported *placement.UnsupportedError
		if err := m.table.Restore(view); errors.As(err, &unsupported) {
			return nil, fmt.Errorf("cannot use the metadata of the last checkpoint: %w", err) // which is as good as ever
		} else if err != nil {
			return nil, fmt.Errorf("cannot restore the metadata of the last checkpoint: %w: %s", err, startAnew)
		}
	}
	return m, nil
}

// Current returns the metadata as of the last applied command.
func (m *Metadata) Current() *placement.View { return m.table.View() }

// Changed returns a channel that is closed when the view changes after the call. Take it before the view: a change in between
// is then noticed, not missed.
func (m *Metadata) Changed() <-chan struct{} {
	m.changed.Lock()
	defer m.changed.Unlock()
	return m.changed.c
}

func (m *Metadata) announce() {
	m.changed.Lock()
	defer m.changed.Unlock()
	close(m.changed.c)
	m.changed.c = make(chan struct{})
}

// Admit implements raftgroup.Machine: the proposer has asked View.Check already, and Apply has the last word.
func (m *Metadata) Admit(id.Index, id.Term, batch.Batch) raftgroup.Admission {
	return raftgroup.Accept()
}

// Append implements raftgroup.Machine.
func (m *Metadata) Append(id.Index, id.Term, batch.Batch) {}

// Truncate implements raftgroup.Machine.
func (m *Metadata) Truncate(id.Index) {}

// Apply implements raftgroup.Machine. The answer to the proposer is the outcome of the batch's last command: a proposal has one. An entry
// that this release cannot follow halts the replica where it is, with no further entry applied and no cut taken: a release that knows it
// goes on from there. The node ends, since what is above the metadata may have changed as well.
func (m *Metadata) Apply(index id.Index, _ id.Term, kind wal.EntryKind, data []byte) (any, error) {
	switch kind {
	case wal.KindBatch:
	case wal.KindCommand: // this release writes its commands as records: it is a later one's
		return nil, m.stop(index, errUnknownEntry)
	default:
		return nil, nil
	}
	commands, err := decode(batch.Batch(data))
	if err != nil {
		return nil, m.stop(index, err)
	}
	outcomes, err := m.table.Fold(index, commands...)
	if err != nil {
		return nil, m.stop(index, err)
	}
	for i, o := range outcomes {
		if o.Err != nil {
			m.logger.Info("metadata command refused", "index", index, "command", fmt.Sprintf("%T", commands[i]), "reason", o.Err)
		}
	}
	m.announce()
	if len(outcomes) == 0 {
		return placement.Outcome{}, nil
	}
	return outcomes[len(outcomes)-1], nil
}

func (m *Metadata) stop(index id.Index, err error) error {
	err = fmt.Errorf("metadata log, entry %d: %w", index, err)
	m.fatal(err)
	return err
}

func decode(b batch.Batch) ([]placement.Command, error) {
	var commands []placement.Command
	r := b.Records()
	for _, record := range r.All() {
		c, err := placement.Decode(record.Key, record.Value)
		if err != nil {
			return nil, err
		}
		commands = append(commands, c)
	}
	return commands, r.Err()
}

// Committed implements raftgroup.Machine. The table moves with Apply.
func (m *Metadata) Committed(id.Offset) {}

// Elected implements raftgroup.Machine.
func (m *Metadata) Elected() {}

// Leader implements raftgroup.Machine.
func (m *Metadata) Leader(l raftgroup.LeaderChange) {
	if l.Leader != id.NoReplica {
		m.logger.Info("metadata leader", "leader", l.Node, "term", l.Term)
	}
	m.announce()
}

// InSync implements raftgroup.Machine.
func (m *Metadata) InSync(raftgroup.InSync) {}

// View implements raftgroup.Machine.
func (m *Metadata) View() []byte { return m.table.Snapshot(nil) }

// CheckView implements raftgroup.Machine: it takes no view. The metadata log is never trimmed: all replicas of it begin at Start, so none is
// ever behind the start of its leader's, and who gets a snapshot nevertheless was sent it by no leader.
//
// It could not do with one as it is. The table would be ahead of the log until that has begun anew durably. Whoever follows the table
// deletes replicas meanwhile; a crash then comes back with the table of before, which wants them, and the tombstone that prevents that may
// be gone: its date is the last index of the log (wal/tombstones.go), which the state is not ahead of today.
func (m *Metadata) CheckView([]byte) error { return errSnapshot }

// Restore implements raftgroup.Machine. It is not called: see CheckView.
func (m *Metadata) Restore([]byte, id.Index) error { return errSnapshot }

// Rolls implements raftgroup.Machine: nothing is taken off the metadata log.
func (m *Metadata) Rolls([]byte, id.Offset) bool { return false }
