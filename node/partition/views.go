package partition

import (
	"errors"
	"fmt"
	"slices"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A view is something that a partition derives from its log: a fold of the committed entries, the same on all replicas, and perhaps an
// overlay of what is in the log above them. It implements batchView if it is derived from batches, commandView if commands of its own
// change it. All methods are called on the group's worker. None reads a clock, or asks what this release would do today: what an entry
// does is said by the entry.
type view interface {
	// section says how the view is stored: as which kind, and the version of what encode returns. A kind is never given another meaning.
	section() (kind envelope.Kind, version uint16)
	// encode returns the view as of the last applied entry; nothing if that is what an empty log gives. Equal views give equal bytes.
	encode() []byte
	// restore is the inverse of encode, for an empty view. It is given no version later than section says.
	restore(version uint16, body []byte) error
	// clear empties the view and its overlay, and gives back what it counts against limits that it shares.
	clear()
}

// batchView is a view that is derived from batches.
type batchView interface {
	view
	// concerned says which batches admit and append are told of: most batches are none of the business of most views, and a look at the
	// header is enough to see that. Of committed ones apply is told of all, or an overlay that is out of step with the log would not notice.
	concerned() concern
	// admit decides about a batch that is about to enter the log, and notes nothing: another view may refuse it. It returns false, with the
	// decision, unless this view has nothing against it.
	admit(b batch.Batch) (raftgroup.Admission, bool)
	// append notes a batch that entered the log at index, admitted or not, truncate that entries from an index on left it.
	append(index id.Index, term id.Term, b batch.Batch)
	truncate(from id.Index)
	// apply folds the batch of the next committed entry into the view.
	apply(index id.Index, term id.Term, b batch.Batch)
}

// concern is which batches a view is derived from.
type concern uint8

const (
	ofProducers concern = iota // with a producer id: idempotent ones, and those of transactions
	ofAnybody
)

// commandView is a view with commands.
type commandView interface {
	view
	// commands are the kinds of its commands. A kind is never given another meaning.
	commands() []command.Kind
	// command applies one of them. An error comes of the command and the release alone, and then nothing has changed: it halts the replica
	// (raftgroup.Machine). A refusal of a command that is understood is a result.
	command(index id.Index, c command.Command) (any, error)
}

var (
	// ErrBadView refuses a stored view that cannot be read.
	ErrBadView = errors.New("the partition's view is damaged")
	// errUnknownCommand halts a replica at a command of a later release.
	errUnknownCommand = errors.New("a command that this release does not know")
)

func unknownCommand(c command.Command) error {
	return fmt.Errorf("%w: kind %d, version %d", errUnknownCommand, c.Kind, c.Version)
}

func unknownSection(kind envelope.Kind, version uint16) error {
	return fmt.Errorf("%w: section %d of version %d", envelope.ErrUnknown, kind, version)
}

// views are all views of a partition.
type views struct {
	all      []view // in the order of their sections
	batches  []batchView
	plain    []batchView // those that batches without producer id concern as well
	commands map[command.Kind]commandView
}

// add adds a view. Of two that have something against a batch, the one that was added first says so.
func (v *views) add(added view) {
	kind := kindOf(added)
	at, twice := slices.BinarySearchFunc(v.all, kind, func(x view, kind envelope.Kind) int { return int(kindOf(x)) - int(kind) })
	if twice {
		panic(fmt.Sprintf("partition: two views with sections of kind %d", kind))
	}
	v.all = slices.Insert(v.all, at, added)
	if b, ok := added.(batchView); ok {
		v.batches = append(v.batches, b)
		if b.concerned() == ofAnybody {
			v.plain = append(v.plain, b)
		}
	}
	c, ok := added.(commandView)
	if !ok {
		return
	}
	if v.commands == nil {
		v.commands = make(map[command.Kind]commandView)
	}
	for _, kind := range c.commands() {
		if v.commands[kind] != nil {
			panic(fmt.Sprintf("partition: two views with commands of kind %d", kind))
		}
		v.commands[kind] = c
	}
}

func kindOf(v view) envelope.Kind {
	kind, _ := v.section()
	return kind
}

// of returns the views that a batch concerns.
func (v *views) of(b batch.Batch) []batchView {
	if b.Producer() < 0 {
		return v.plain
	}
	return v.batches
}

// admit asks all views before it notes anything.
func (v *views) admit(index id.Index, term id.Term, b batch.Batch) raftgroup.Admission {
	for _, x := range v.of(b) {
		if decision, ok := x.admit(b); !ok {
			return decision
		}
	}
	v.append(index, term, b)
	return raftgroup.Accept()
}

func (v *views) append(index id.Index, term id.Term, b batch.Batch) {
	for _, x := range v.of(b) {
		x.append(index, term, b)
	}
}

func (v *views) truncate(from id.Index) {
	for _, x := range v.batches {
		x.truncate(from)
	}
}

func (v *views) apply(index id.Index, term id.Term, b batch.Batch) {
	for _, x := range v.batches {
		x.apply(index, term, b)
	}
}

// command applies a command. An error comes of the entry alone.
func (v *views) command(index id.Index, data []byte) (any, error) {
	c, err := command.Parse(data)
	if err != nil {
		return nil, err
	}
	x := v.commands[c.Kind]
	if x == nil {
		return nil, unknownCommand(c)
	}
	return x.command(index, c)
}

// encode returns the state of the log as it is stored: an envelope with a section for each view that is not empty, in the order of their
// kinds. Equal views give equal bytes; nothing if all are empty.
func (v *views) encode() []byte {
	var sections []envelope.Section
	for _, x := range v.all {
		if body := x.encode(); len(body) > 0 {
			kind, version := x.section()
			sections = append(sections, envelope.Section{Kind: kind, Version: version, Body: body})
		}
	}
	if len(sections) == 0 {
		return nil
	}
	return envelope.Append(nil, sections...)
}

// restore is the inverse of encode. After an error all views are empty. What it does not know is one, which wraps envelope.ErrUnknown: a
// replica that left something out would differ from the others from then on.
func (v *views) restore(stored []byte) error {
	err := v.restoreSections(stored)
	if err != nil {
		v.clear()
	}
	return err
}

func (v *views) restoreSections(stored []byte) error {
	if len(stored) == 0 {
		return nil
	}
	sections, err := envelope.Parse(stored)
	if err != nil {
		return err
	}
	seen := make(map[envelope.Kind]bool)
	for _, s := range sections {
		i := slices.IndexFunc(v.all, func(x view) bool { return kindOf(x) == s.Kind })
		if i < 0 {
			return unknownSection(s.Kind, s.Version)
		}
		switch _, newest := v.all[i].section(); {
		case s.Version > newest:
			return unknownSection(s.Kind, s.Version)
		case seen[s.Kind]:
			return fmt.Errorf("%w: two sections of kind %d", ErrBadView, s.Kind)
		}
		seen[s.Kind] = true
		if err := v.all[i].restore(s.Version, s.Body); err != nil {
			return err
		}
	}
	return nil
}

func (v *views) clear() {
	for _, x := range v.all {
		x.clear()
	}
}
