package partition

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// tally is a view that counts batches, with a command that sets the count, and an overlay.
type tally struct {
	kind    envelope.Kind
	concern concern
	without bool // commands
	refuses error
	count   uint64
	pending []id.Index
}

var errTally = errors.New("refused by the tally")

func (v *tally) section() (envelope.Kind, uint16) { return v.kind, 3 }

func (v *tally) encode() []byte {
	if v.count == 0 {
		return nil
	}
	return binary.AppendUvarint(nil, v.count)
}

func (v *tally) restore(version uint16, body []byte) error {
	if version != 3 {
		return unknownSection(v.kind, version)
	}
	count, n := binary.Uvarint(body)
	if n != len(body) {
		return ErrBadView
	}
	v.count = count
	return nil
}

func (v *tally) clear() { v.count, v.pending = 0, nil }

func (v *tally) concerned() concern { return v.concern }

func (v *tally) admit(batch.Batch) (raftgroup.Admission, bool) {
	return raftgroup.Refuse(v.refuses), v.refuses == nil
}

func (v *tally) append(index id.Index, _ id.Term, _ batch.Batch) {
	v.pending = append(v.pending, index)
}

func (v *tally) truncate(from id.Index) {
	for n := len(v.pending); n > 0 && v.pending[n-1] >= from; n-- {
		v.pending = v.pending[:n-1]
	}
}

func (v *tally) apply(id.Index, id.Term, batch.Batch) {
	v.pending = v.pending[min(1, len(v.pending)):]
	v.count++
}

func (v *tally) commands() []command.Kind {
	if v.without {
		return nil
	}
	return []command.Kind{200}
}

func (v *tally) command(_ id.Index, c command.Command) (any, error) {
	if c.Version != 1 {
		return nil, unknownCommand(c)
	}
	v.count = uint64(c.Body[0])
	return "set", nil
}

// TestViewsTogether: each view has its part of the batches, the commands and what is stored, and none is told of a batch that another one
// refuses.
func TestViewsTogether(t *testing.T) {
	p := bare()
	first := &tally{kind: 0}
	p.views.add(first)
	b := sentAs{producer: 7, count: 1}.header()
	first.refuses = errTally
	require.NotEqual(t, raftgroup.Accept(), p.Admit(1, 1, b))
	require.Zero(t, p.producers.Pending(), "one that has nothing against it does not note it")
	first.refuses = nil
	require.Equal(t, raftgroup.Accept(), p.Admit(1, 1, b))
	require.Equal(t, raftgroup.Duplicate(1, 1, 0), p.Admit(2, 1, b))
	require.Equal(t, []id.Index{1}, first.pending, "the duplicate is none of its business")
	p.Append(2, 1, sentAs{producer: 8, count: 1}.header())
	p.Truncate(2)
	require.Equal(t, []id.Index{1}, first.pending)
	require.Equal(t, 1, p.producers.Pending())
	_, err := p.Apply(1, 1, wal.KindBatch, b)
	require.NoError(t, err)
	require.EqualValues(t, 1, first.count)
	require.Equal(t, 1, p.producers.Len())
	anybody := &tally{kind: 5, concern: ofAnybody, without: true}
	p.views.add(anybody)
	plain := sentAs{producer: id.NoProducer, count: 1}.header()
	p.Admit(2, 1, plain)
	require.Empty(t, first.pending)
	require.Equal(t, []id.Index{2}, anybody.pending)
	_, err = p.Apply(2, 1, wal.KindBatch, plain)
	require.NoError(t, err)
	require.EqualValues(t, 2, first.count, "it is told that it was committed")
	anybody.clear()

	result, err := p.Apply(3, 1, wal.KindCommand, command.Command{Kind: 200, Version: 1, Body: []byte{42}}.Append(nil))
	require.NoError(t, err)
	require.Equal(t, "set", result)
	for _, c := range []command.Command{{Kind: 200, Version: 2}, {Kind: 201, Version: 1}} {
		_, err = p.Apply(4, 1, wal.KindCommand, c.Append(nil))
		require.ErrorIs(t, err, errUnknownCommand)
	}

	stored := p.View()
	sections, err := envelope.Parse(stored)
	require.NoError(t, err)
	require.Len(t, sections, 2)
	require.Equal(t, envelope.Section{Kind: 0, Version: 3, Body: []byte{42}}, sections[0], "in the order of the kinds, not of the list")
	require.Equal(t, sectionProducers, sections[1].Kind)
	q := bare()
	second := &tally{kind: 0}
	q.views.add(second)
	require.NoError(t, q.views.restore(stored))
	require.Equal(t, stored, q.View())
	require.EqualValues(t, 1, q.producers.oldest.Load())

	for what, c := range map[string]struct {
		sections []envelope.Section
		want     error
	}{
		"damage behind":    {[]envelope.Section{sections[1], {Kind: 0, Version: 3, Body: []byte{0x80}}}, ErrBadView},
		"unknown behind":   {[]envelope.Section{sections[0], sections[1], {Kind: 99, Version: 1}}, envelope.ErrUnknown},
		"earlier version":  {[]envelope.Section{sections[1], {Kind: 0, Version: 2}}, envelope.ErrUnknown},
		"twice":            {[]envelope.Section{sections[0], sections[1], sections[0]}, ErrBadView},
		"twice, one later": {[]envelope.Section{sections[0], {Kind: 0, Version: 4}}, envelope.ErrUnknown},
	} {
		err := q.views.restore(envelope.Append(nil, c.sections...))
		require.ErrorIs(t, err, c.want, what)
		require.Equal(t, errors.Is(c.want, envelope.ErrUnknown), errors.Is(err, envelope.ErrUnknown), what)
		require.Nil(t, q.View(), "%s: all are empty", what)
		require.Zero(t, q.producers.limits.Budget.used.Load(), what)
	}
	require.Panics(t, func() { p.views.add(&tally{kind: 0}) }, "a kind of section")
	require.Panics(t, func() { p.views.add(&tally{kind: 9}) }, "a kind of command")
}

// BenchmarkPlainBatch is what the views cost a batch without producer id.
func BenchmarkPlainBatch(b *testing.B) {
	p := bare()
	plain := sentAs{producer: id.NoProducer, count: 1}.header()
	b.ReportAllocs()
	for i := range id.Index(b.N) {
		p.Admit(i+1, 1, plain)
		if _, err := p.Apply(i+1, 1, wal.KindBatch, plain); err != nil {
			b.Fatal(err)
		}
	}
}
