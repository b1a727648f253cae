package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// sentAs is what the producer view looks at in a batch.
type sentAs struct {
	producer  id.Producer
	epoch     id.ProducerEpoch
	first     id.Sequence
	count     int32
	offset    id.Offset
	timestamp int64
}

// header makes the header of such a batch; the view does not look further.
func (s sentAs) header() batch.Batch {
	b := make(batch.Batch, batch.HeaderSize)
	b.Stamp(s.offset, 1)
	binary.BigEndian.PutUint32(b[23:], uint32(s.count-1))
	binary.BigEndian.PutUint64(b[35:], uint64(s.timestamp))
	binary.BigEndian.PutUint64(b[43:], uint64(s.producer))
	binary.BigEndian.PutUint16(b[51:], uint16(s.epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(s.first))
	binary.BigEndian.PutUint32(b[57:], uint32(s.count))
	return b
}

func TestKafkasRules(t *testing.T) {
	send := func(epoch id.ProducerEpoch, first id.Sequence, count int32) sentAs {
		return sentAs{producer: 7, epoch: epoch, first: first, count: count}
	}
	type sends = []sentAs
	ten := func(n int) (log sends) {
		for i := range n {
			log = append(log, send(0, id.Sequence(10*i), 10))
		}
		return log
	}
	for _, c := range []struct {
		name   string
		log    sends // entries 1, 2, 3 and so on, of one term
		send   sentAs
		want   error
		origin id.Index // of the original, for duplicates
	}{
		{"unknown producer at 0", nil, send(0, 0, 10), nil, 0},
		{"unknown producer anywhere", nil, send(3, 12345, 10), nil, 0},
		{"next", ten(1), send(0, 10, 1), nil, 0},
		{"gap", ten(1), send(0, 11, 1), ErrOutOfOrderSequence, 0},
		{"the last one again", ten(1), send(0, 0, 10), nil, 1},
		{"the fifth last one again", ten(7), send(0, 20, 10), nil, 3},
		{"the sixth last one again", ten(7), send(0, 10, 10), ErrDuplicateSequence, 0},
		{"cut differently, all there", ten(7), send(0, 65, 5), ErrDuplicateSequence, 0},
		{"cut differently, partly there", ten(7), send(0, 65, 6), ErrOutOfOrderSequence, 0},
		{"before what we know", sends{send(0, 100, 10)}, send(0, 90, 10), ErrOutOfOrderSequence, 0},
		{"older epoch", sends{send(2, 0, 10)}, send(1, 10, 1), ErrInvalidProducerEpoch, 0},
		{"older epoch, even the same again", append(ten(1), send(2, 0, 10)), send(0, 0, 10), ErrInvalidProducerEpoch, 0},
		{"newer epoch from 0", ten(1), send(1, 0, 10), nil, 0},
		{"newer epoch from elsewhere", ten(1), send(1, 10, 10), ErrOutOfOrderSequence, 0},
		{"newer epoch forgets the older one's batches", append(ten(3), send(1, 0, 5)), send(1, 10, 10), ErrOutOfOrderSequence, 0},
		{"newer epoch again", append(ten(3), send(1, 0, 10)), send(1, 0, 10), nil, 4},
		{"next over the wrap", sends{send(0, math.MaxInt32-9, 10)}, send(0, 0, 10), nil, 0},
		{"next after a batch over the wrap", sends{send(0, math.MaxInt32-4, 10)}, send(0, 5, 10), nil, 0},
		{"a batch over the wrap again", sends{send(0, math.MaxInt32-4, 10), send(0, 5, 5)}, send(0, math.MaxInt32-4, 10), nil, 1},
		// Logs may have gaps where a leader had forgotten the producer.
		{"before a gap", sends{send(0, 0, 10), send(0, 50, 10)}, send(0, 5, 5), ErrOutOfOrderSequence, 0},
		{"before a gap, the same again", sends{send(0, 0, 10), send(0, 50, 10)}, send(0, 0, 10), nil, 1},
		{"the older epoch's last sequences", sends{send(0, math.MaxInt32-9, 10), send(1, 0, 10)}, send(1, math.MaxInt32-8, 9), ErrOutOfOrderSequence, 0},
		{"gap over the wrap", sends{send(0, math.MaxInt32-4, 10)}, send(0, 6, 10), ErrOutOfOrderSequence, 0},
	} {
		for applied := range len(c.log) + 1 {
			t.Run(fmt.Sprintf("%s, %d applied", c.name, applied), func(t *testing.T) {
				p := NewProducers(Limits{})
				for i, s := range c.log {
					s.offset = id.Offset(1000 * i)
					p.Append(id.Index(i+1), 5, s.header())
				}
				for i, s := range c.log[:applied] {
					s.offset = id.Offset(1000 * i)
					p.Apply(id.Index(i+1), 5, s.header())
				}
				verdict, err := p.Check(c.send.header())
				require.ErrorIs(t, err, c.want)
				if c.origin != 0 {
					require.Equal(t, Verdict{Duplicate: true, Index: c.origin, Term: 5, BaseOffset: id.Offset(1000 * (c.origin - 1))}, verdict)
				} else {
					require.Zero(t, verdict)
				}
			})
		}
	}
}

func TestSequenceErrorSaysWhatWasExpected(t *testing.T) {
	p := NewProducers(Limits{})
	p.Append(1, 1, sentAs{producer: 7, epoch: 2, first: 0, count: 10}.header())
	_, err := p.Check(sentAs{producer: 7, epoch: 2, first: 15, count: 1}.header())
	var refused *SequenceError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, SequenceError{Err: ErrOutOfOrderSequence, Producer: 7, Epoch: 2, Sequence: 15, Current: 2, Expected: 10}, *refused)
	require.ErrorContains(t, err, "producer 7 sent sequence 15 of epoch 2, expected is 10 of epoch 2")
}

func TestTruncateTakesBack(t *testing.T) {
	p := NewProducers(Limits{})
	first := sentAs{producer: 7, first: 0, count: 10}
	second := sentAs{producer: 7, first: 10, count: 10}
	p.Append(1, 1, first.header())
	p.Append(2, 1, sentAs{producer: -1, count: 1}.header())
	p.Append(3, 1, second.header())
	require.Equal(t, 2, p.Pending())
	p.Truncate(3)
	verdict, err := p.Check(second.header())
	require.NoError(t, err)
	require.False(t, verdict.Duplicate, "what was truncated may be sent again")
	p.Append(3, 2, second.header())
	verdict, err = p.Check(second.header())
	require.NoError(t, err)
	require.Equal(t, Verdict{Duplicate: true, Index: 3, Term: 2}, verdict, "the new entry, not the old one of the same index")
	p.Truncate(1)
	require.Zero(t, p.Pending())
	require.Empty(t, p.ids)
	_, err = p.Check(second.header())
	require.NoError(t, err, "nobody knows the producer any more")
}

func TestForgetting(t *testing.T) {
	write := func(p *Producers, index id.Index, producer id.Producer) {
		p.Apply(index, 1, sentAs{producer: producer, first: id.Sequence(index), count: 1, offset: id.Offset(index)}.header())
	}

	t.Run("those who have been silent since", func(t *testing.T) {
		p := NewProducers(Limits{})
		for i, producer := range []id.Producer{1, 2, 3, 1, 4} {
			write(p, id.Index(10+i), producer)
		}
		require.EqualValues(t, 11, p.Oldest())
		p.Forget(10)
		require.Equal(t, 4, p.Len(), "1 wrote again")
		p.Forget(12)
		require.Equal(t, 2, p.Len())
		require.Contains(t, p.ids, id.Producer(1))
		require.Contains(t, p.ids, id.Producer(4))
		require.EqualValues(t, 13, p.Oldest())
		p.Forget(math.MaxInt64)
		require.Empty(t, p.ids)
		require.Zero(t, p.Oldest())
	})
	t.Run("but not in the overlay", func(t *testing.T) {
		p := NewProducers(Limits{})
		first, again := sentAs{producer: 1, count: 1}.header(), sentAs{producer: 1, first: 1, count: 1, offset: 1}.header()
		p.Append(1, 1, first)
		p.Append(3, 1, again) // behind the command
		p.Apply(1, 1, first)
		p.Forget(1)
		require.Zero(t, p.Len())
		verdict, err := p.Check(again)
		require.NoError(t, err)
		require.Equal(t, Verdict{Duplicate: true, Index: 3, Term: 1, BaseOffset: 1}, verdict)
		p.Apply(3, 1, again)
		require.Equal(t, 1, p.Len())
	})
	t.Run("whoever is remembered was given its id", func(t *testing.T) {
		next := id.Producer(8)
		p := NewProducers(Limits{Next: func() id.Producer { return next }})
		for _, madeUp := range []id.Producer{8, math.MaxInt64} {
			_, err := p.Check(sentAs{producer: madeUp, count: 1}.header())
			require.ErrorIs(t, err, ErrUnknownProducer)
		}
		_, err := p.Check(sentAs{producer: 7, count: 1}.header())
		require.NoError(t, err)
		write(p, 0, 7)
		p.Append(2, 1, sentAs{producer: 6, count: 1, offset: 1}.header())
		next = 3 // a start: the log is there before the metadata is
		for producer := range id.Producer(2) {
			verdict, err := p.Check(sentAs{producer: 6 + producer, count: 1}.header())
			require.NoError(t, err)
			require.True(t, verdict.Duplicate, "written twice, or refused")
		}
		_, err = p.Check(sentAs{producer: 5, count: 1}.header())
		require.ErrorIs(t, err, ErrUnknownProducer)
	})
	t.Run("nobody to make room", func(t *testing.T) {
		budget := &Budget{Most: 4}
		p, other := NewProducers(Limits{MaxProducers: 3, Budget: budget}), NewProducers(Limits{Budget: budget})
		for i := range 3 {
			write(p, id.Index(1+i), id.Producer(i))
		}
		stranger := sentAs{producer: 99, count: 1}.header()
		_, err := p.Check(stranger)
		require.ErrorIs(t, err, ErrTooManyProducers)
		verdict, err := p.Check(sentAs{producer: 0, first: 1, count: 1}.header())
		require.NoError(t, err)
		require.True(t, verdict.Duplicate)
		_, err = p.Check(sentAs{producer: 0, first: 2, count: 1}.header())
		require.NoError(t, err, "who is known goes on")

		_, err = other.Check(stranger)
		require.NoError(t, err)
		write(other, 1, 99)
		_, err = other.Check(sentAs{producer: 100, count: 1}.header())
		require.ErrorIs(t, err, ErrTooManyProducers, "the node's budget")
		p.Forget(2)
		_, err = other.Check(sentAs{producer: 100, count: 1}.header())
		require.NoError(t, err)
		p.clear()
		other.clear()
		require.Zero(t, budget.used.Load())
		write(other, 5, 99) // a follower takes what its leader took
		for i := range 10 {
			write(p, id.Index(6+i), id.Producer(i))
		}
		require.Equal(t, 10, p.Len())
	})
}

// The timestamps of batches decide nothing: what a partition was told long ago, by somebody whose clock is wrong or of copied history,
// costs nobody the memory of his batches, nor do thousands of batches of others.
func TestRetryAmongStrangeTimestamps(t *testing.T) {
	const day = int64(24 * 60 * 60 * 1000)
	now := int64(1_764_403_200_000)
	for what, first := range map[string]int64{
		"a weekend of silence": now - 3*day, "seconds for milliseconds": now / 1000, "a backfill": now - 400*day,
		"the future": math.MaxInt64, "none": -1,
	} {
		t.Run(what, func(t *testing.T) {
			p := NewProducers(Limits{})
			p.Apply(1, 1, sentAs{producer: id.NoProducer, first: -1, count: 1, timestamp: first}.header())
			mine := sentAs{producer: 7, count: 10, offset: 1, timestamp: now}.header()
			p.Append(2, 1, mine)
			p.Apply(2, 1, mine)
			for i := range 1500 {
				other := sentAs{producer: id.NoProducer, first: -1, count: 1, offset: id.Offset(11 + i), timestamp: now + int64(i)}
				p.Apply(id.Index(3+i), 1, other.header())
			}
			verdict, err := p.Check(mine)
			require.NoError(t, err)
			require.True(t, verdict.Duplicate, "it is written twice")
		})
	}
}

// Ten thousand strangers cost nobody anything, nor does a million.
func TestStrangersEvictNobody(t *testing.T) {
	p := NewProducers(Limits{MaxProducers: 5000})
	mine := sentAs{producer: 7, count: 10}.header()
	p.Append(1, 1, mine)
	p.Apply(1, 1, mine)
	refused := 0
	for i := range 10_000 {
		b := sentAs{producer: id.Producer(1_000_000 + i), count: 1, offset: id.Offset(10 + i)}.header()
		if _, err := p.Check(b); err != nil {
			require.ErrorIs(t, err, ErrTooManyProducers)
			refused++
			continue
		}
		p.Append(id.Index(2+i), 1, b)
		p.Apply(id.Index(2+i), 1, b)
	}
	require.Equal(t, 5001, refused)
	verdict, err := p.Check(mine)
	require.NoError(t, err)
	require.True(t, verdict.Duplicate)
	perProducer := len(p.Snapshot(nil)) / p.Len()
	require.Less(t, perProducer, 30, "bytes of a producer with one batch in a stored view")
}

func TestBrokenOrderPanics(t *testing.T) {
	one := sentAs{producer: 1, count: 1}.header()
	p := NewProducers(Limits{})
	p.Append(5, 1, one)
	require.Panics(t, func() { p.Append(5, 1, one) }, "appended without truncating")
	require.Panics(t, func() { p.Apply(6, 1, one) }, "an entry was left out")
	p.Restore(nil)
	p.Append(5, 1, one)
	require.Panics(t, func() { p.Apply(5, 2, one) }, "another entry than the log's")
}

func TestRestoreRefuses(t *testing.T) {
	p := NewProducers(Limits{})
	require.NoError(t, p.Restore(p.Snapshot(nil)))
	for i := range 3 {
		p.Apply(id.Index(1+i), 1, sentAs{producer: id.Producer(i), count: 1, offset: id.Offset(i)}.header())
	}
	good := p.Snapshot([]byte("before"))[6:]
	require.NoError(t, p.Restore(good))
	require.Equal(t, 3, p.Len())
	for n := range len(good) {
		require.ErrorIs(t, p.Restore(good[:n]), ErrBadView)
		require.Zero(t, p.Len())
	}
	require.ErrorContains(t, p.Restore(append(good[:len(good):len(good)], 0)), "left over")
}

func FuzzRestore(f *testing.F) {
	p := NewProducers(Limits{})
	f.Add(p.Snapshot(nil))
	for i := range 20 {
		s := sentAs{producer: id.Producer(i % 3), first: id.Sequence(i / 3), count: 1, offset: id.Offset(i)}
		p.Apply(id.Index(i+1), id.Term(1+i/7), s.header())
	}
	f.Add(p.Snapshot(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := NewProducers(Limits{})
		if err := p.Restore(b); err != nil {
			require.ErrorIs(t, err, ErrBadView)
			return
		}
		once := p.Snapshot(nil)
		require.NoError(t, p.Restore(once))
		require.Equal(t, once, p.Snapshot(nil))
	})
}

// model is the specification of Producers, written without regard to speed: everything is worked out anew from the log.
type model struct {
	limits  Limits
	log     []modelEntry // entry i has index i+1
	applied int
}

type modelEntry struct {
	sentAs            // a batch, unless forget is set
	forget   id.Index // a command: those silent since are forgotten
	term     id.Term
	accepted int64 // records in a row up to this batch, as the replica knew when the batch was appended
}

func (e modelEntry) last() id.Sequence { return e.first.Add(e.count - 1) }

type modelProducer struct {
	id       id.Producer
	batches  []int // places in the log; all of one epoch
	accepted int64
}

// view folds the first n entries. The producers are in the order of their last batches.
func (m *model) view(n int) (view []modelProducer) {
	for i, e := range m.log[:n] {
		if e.forget > 0 {
			view = slices.DeleteFunc(view, func(p modelProducer) bool { return id.Index(p.batches[len(p.batches)-1]+1) <= e.forget })
			continue
		}
		if e.producer < 0 {
			continue
		}
		was := modelProducer{id: e.producer}
		if at := slices.IndexFunc(view, func(p modelProducer) bool { return p.id == e.producer }); at >= 0 {
			was = view[at]
			view = slices.Delete(view, at, at+1)
		}
		view = append(view, m.fold(was, i))
	}
	return view
}

func (m *model) fold(p modelProducer, i int) modelProducer {
	e, accepted := m.log[i], int64(0)
	if len(p.batches) > 0 {
		before := m.log[p.batches[len(p.batches)-1]]
		if before.epoch != e.epoch {
			p.batches = nil
		} else if before.last().Add(1) == e.first {
			accepted = p.accepted
		}
	}
	p.batches = append(slices.Clone(p.batches), i)
	p.batches = p.batches[max(0, len(p.batches)-5):]
	p.accepted = accepted + int64(e.count)
	return p
}

// known returns the last five batches of the producer's epoch, newest last, and the length of its run: from the log above
// applied and from what the view remembers.
func (m *model) known(producer id.Producer) (batches []int, accepted int64) {
	for _, p := range m.view(m.applied) {
		if p.id == producer {
			batches, accepted = slices.Clone(p.batches), p.accepted
		}
	}
	for i := m.applied; i < len(m.log); i++ {
		e := m.log[i]
		if e.producer != producer || e.forget > 0 {
			continue
		}
		if len(batches) > 0 && m.log[batches[0]].epoch != e.epoch {
			batches = nil
		}
		batches, accepted = append(batches, i), e.accepted
	}
	return batches[max(0, len(batches)-5):], accepted
}

func (m *model) check(s sentAs) (Verdict, error) {
	batches, accepted := m.known(s.producer)
	if s.producer < 0 {
		return Verdict{}, nil
	}
	if len(batches) == 0 {
		if m.users() >= m.limits.MaxProducers {
			return Verdict{}, ErrTooManyProducers
		}
		return Verdict{}, nil
	}
	newest := m.log[batches[len(batches)-1]]
	if s.epoch < newest.epoch {
		return Verdict{}, ErrInvalidProducerEpoch
	}
	if s.epoch > newest.epoch {
		if s.first == 0 {
			return Verdict{}, nil
		}
		return Verdict{}, ErrOutOfOrderSequence
	}
	for _, i := range batches {
		if e := m.log[i]; e.first == s.first && e.count == s.count {
			return Verdict{Duplicate: true, Index: id.Index(i + 1), Term: e.term, BaseOffset: e.offset}, nil
		}
	}
	next := newest.last().Add(1)
	if s.first == next {
		return Verdict{}, nil
	}
	back := int64(next) - int64(s.first)
	if back < 0 {
		back += 1 << 31
	}
	if back <= accepted && int64(s.count) <= back {
		return Verdict{}, ErrDuplicateSequence
	}
	return Verdict{}, ErrOutOfOrderSequence
}

// users is how many producers are known.
func (m *model) users() int {
	users := map[id.Producer]bool{}
	for _, e := range m.log[m.applied:] {
		if e.producer >= 0 && e.forget == 0 {
			users[e.producer] = true
		}
	}
	for _, w := range m.view(m.applied) {
		users[w.id] = true
	}
	return len(users)
}

func (m *model) append(s sentAs, term id.Term) modelEntry {
	e := modelEntry{sentAs: s, term: term, accepted: int64(s.count)}
	if batches, accepted := m.known(s.producer); s.producer >= 0 && len(batches) > 0 {
		before := m.log[batches[len(batches)-1]]
		if before.epoch == s.epoch && before.last().Add(1) == s.first {
			e.accepted += accepted
		}
	}
	m.log = append(m.log, e)
	return e
}

// machine drives Producers and the model side by side.
type machine struct {
	model
	p    *Producers
	term id.Term
}

func (m *machine) nextOffset() id.Offset {
	if len(m.log) == 0 {
		return 0
	}
	last := m.log[len(m.log)-1]
	return last.offset + id.Offset(last.count)
}

// draw makes a batch that some producer could send: mostly one that follows, often one sent before or near it.
func (m *machine) draw(t *rapid.T) sentAs {
	s := sentAs{
		producer: id.Producer(rapid.IntRange(-1, 4).Draw(t, "producer")),
		count:    rapid.Int32Range(1, 4).Draw(t, "count"),
		first:    rapid.SampledFrom([]id.Sequence{0, 0, 0, 1, 17, math.MaxInt32 - 3, math.MaxInt32}).Draw(t, "first"),
	}
	if s.producer < 0 {
		s.epoch, s.first = -1, -1
		return s
	}
	batches, _ := m.known(s.producer)
	if len(batches) == 0 {
		return s
	}
	newest := m.log[batches[len(batches)-1]]
	s.epoch = newest.epoch
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1, 2, 3: // follows
		s.first = newest.last().Add(1)
	case 4, 5: // one of the log again, applied or not
		of := slices.DeleteFunc(slices.Clone(m.log), func(e modelEntry) bool { return e.producer != s.producer || e.forget > 0 })
		again := rapid.SampledFrom(of).Draw(t, "again")
		s.first, s.count, s.epoch = again.first, again.count, again.epoch
	case 6, 7: // near the end
		s.first = newest.last().Add(1).Add(math.MaxInt32 - 10).Add(1 + rapid.Int32Range(0, 20).Draw(t, "near"))
	case 8: // another epoch
		s.epoch = max(0, s.epoch+id.ProducerEpoch(rapid.IntRange(-1, 2).Draw(t, "epoch")))
	}
	return s
}

// propose is a leader's turn.
func (m *machine) propose(t *rapid.T) {
	s := m.draw(t)
	s.offset = m.nextOffset()
	want, wantErr := m.check(s)
	got, err := m.p.Check(s.header())
	require.True(t, errors.Is(err, wantErr) && (err == nil) == (wantErr == nil), "%+v: got %v, want %v", s, err, wantErr)
	require.Equal(t, want, got, "%+v", s)
	switch {
	case got.Duplicate:
		require.Less(t, int(got.Index-1), len(m.log))
		original := m.log[got.Index-1]
		require.Equal(t, got.Term, original.term)
		require.Equal(t, sentAs{s.producer, s.epoch, s.first, s.count, got.BaseOffset, 0}, original.sentAs)
	case errors.Is(err, ErrDuplicateSequence):
		for i := range s.count {
			require.True(t, m.holds(s.producer, s.epoch, s.first.Add(i)), "said to be in the log, but is not")
		}
	case err == nil:
		e := m.append(s, m.term)
		m.p.Append(id.Index(len(m.log)), e.term, s.header())
	}
}

// forget proposes that those be forgotten who have been silent for some time.
func (m *machine) forget(t *rapid.T) {
	if m.applied == 0 {
		t.Skip()
	}
	through := id.Index(rapid.IntRange(1, m.applied).Draw(t, "through"))
	m.log = append(m.log, modelEntry{sentAs: sentAs{producer: id.NoProducer, offset: m.nextOffset()}, forget: through, term: m.term})
}

func (m *machine) holds(producer id.Producer, epoch id.ProducerEpoch, sequence id.Sequence) bool {
	return slices.ContainsFunc(m.log, func(e modelEntry) bool {
		return e.forget == 0 && e.producer == producer && e.epoch == epoch && int64(sequence-e.first)&math.MaxInt32 < int64(e.count)
	})
}

// apply commits an entry.
func (m *machine) apply(t *rapid.T) {
	if m.applied == len(m.log) {
		t.Skip()
	}
	for range rapid.IntRange(1, min(5, len(m.log)-m.applied)).Draw(t, "entries") {
		e := m.log[m.applied]
		m.applied++
		e.applyTo(m.p, id.Index(m.applied))
	}
}

func (e modelEntry) applyTo(p *Producers, index id.Index) {
	if e.forget > 0 {
		p.Forget(e.forget)
	} else {
		p.Apply(index, e.term, e.header())
	}
}

// truncate is a new leader that knows less.
func (m *machine) truncate(t *rapid.T) {
	keep := rapid.IntRange(m.applied, len(m.log)).Draw(t, "keep")
	m.p.Truncate(id.Index(keep + 1))
	m.log = m.log[:keep]
	m.term++
}

// restart restores the view and appends what lies above it, as after a crash.
func (m *machine) restart(t *rapid.T) {
	fresh := NewProducers(m.limits)
	require.NoError(t, fresh.Restore(m.p.Snapshot(nil)))
	m.p = fresh
	above := slices.Clone(m.log[m.applied:])
	m.log = m.log[:m.applied]
	for _, e := range above {
		if e.forget > 0 {
			m.log = append(m.log, e)
			continue
		}
		m.model.append(e.sentAs, e.term)
		m.p.Append(id.Index(len(m.log)), e.term, e.header())
	}
}

// verify compares the view with the model's fold, and with that of a replica that replays the log.
func (m *machine) verify(t *rapid.T) {
	want := m.view(m.applied)
	require.Equal(t, len(want), m.p.Len())
	slot := m.p.oldest
	for _, w := range want {
		s := m.p.slots[slot]
		require.Equal(t, w.id, s.id)
		require.EqualValues(t, w.accepted, s.view.accepted)
		require.Equal(t, m.log[w.batches[0]].epoch, s.view.epoch)
		require.EqualValues(t, len(w.batches), s.view.count)
		for i, at := range w.batches {
			e := m.log[at]
			require.Equal(t, sentBatch{first: e.first, last: e.last(), index: id.Index(at + 1), term: e.term, offset: e.offset}, s.view.batches[i])
		}
		slot = s.newer
	}
	require.Equal(t, noSlot, slot)

	replica := NewProducers(m.limits)
	for i, e := range m.log[:m.applied] {
		e.applyTo(replica, id.Index(i+1))
	}
	require.Equal(t, replica.Snapshot(nil), m.p.Snapshot(nil))

	pending := 0
	for _, e := range m.log[m.applied:] {
		if e.producer >= 0 && e.forget == 0 {
			pending++
		}
	}
	require.Equal(t, pending, m.p.Pending())
	require.Equal(t, m.users(), len(m.p.ids), "slots are given back")
}

func drive(limits Limits, forget bool, verify func(*machine, *rapid.T)) func(*rapid.T) {
	return func(t *rapid.T) {
		m := &machine{model: model{limits: limits}, p: NewProducers(limits), term: 1}
		actions := map[string]func(*rapid.T){
			"propose1": m.propose, "propose2": m.propose, "propose3": m.propose, "propose4": m.propose,
			"apply":    m.apply,
			"truncate": m.truncate,
			"restart":  m.restart,
			"":         func(t *rapid.T) { verify(m, t) },
		}
		if forget {
			actions["forget"] = m.forget
		}
		t.Repeat(actions)
	}
}

// TestProducersAgainstModel: verdicts and views are the model's after any mixture of appends, retries, truncations, commits
// and restarts, while producers are forgotten right and left.
func TestProducersAgainstModel(t *testing.T) {
	for range 10 {
		rapid.Check(t, drive(Limits{MaxProducers: 3}, true, (*machine).verify))
	}
}

// TestNothingTwice: while no producer is forgotten, a (producer, epoch, sequence) is in the log at most once.
func TestNothingTwice(t *testing.T) {
	property := drive(Limits{}.withDefaults(), false, func(m *machine, t *rapid.T) {
		type key struct {
			id.Producer
			id.ProducerEpoch
			id.Sequence
		}
		seen := map[key]bool{}
		for _, e := range m.log {
			for i := range e.count {
				if k := (key{e.producer, e.epoch, e.first.Add(i)}); e.producer >= 0 {
					require.False(t, seen[k], "%+v twice", k)
					seen[k] = true
				}
			}
		}
	})
	for range 10 {
		rapid.Check(t, property)
	}
}

// TestProducersAllocations: a hundred producers writing by turns, with a few batches always in flight, allocate nothing; nor
// does a stream of ever new ones while others are forgotten.
func TestProducersAllocations(t *testing.T) {
	for _, c := range []struct {
		name     string
		producer func(n int) id.Producer
		kept     int
		most     float64
	}{
		{"the same producers", func(n int) id.Producer { return id.Producer(n % 100) }, 1000, 0},
		{"new producers", func(n int) id.Producer { return id.Producer(n) }, 50, 0.05},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := NewProducers(Limits{})
			b := sentAs{count: 10}.header()
			set := func(n int) {
				binary.BigEndian.PutUint64(b[43:], uint64(c.producer(n)))
				binary.BigEndian.PutUint32(b[53:], uint32(id.Sequence(0).Add(int32(10*(n/100)))))
			}
			n := 0
			turn := func() {
				set(n)
				if verdict, err := p.Check(b); err != nil || verdict.Duplicate {
					t.Fatal(verdict, err)
				}
				p.Append(id.Index(n+1), 1, b)
				if n >= 16 {
					set(n - 16)
					p.Apply(id.Index(n-15), 1, b)
					p.Forget(id.Index(max(0, n-c.kept)))
				}
				n++
			}
			for range 2000 {
				turn()
			}
			require.LessOrEqual(t, testing.AllocsPerRun(5000, turn), c.most)
		})
	}
}

func BenchmarkProducers(b *testing.B) {
	p := NewProducers(Limits{})
	h := sentAs{count: 10}.header()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		binary.BigEndian.PutUint64(h[43:], uint64(n%100))
		binary.BigEndian.PutUint32(h[53:], uint32(10*(n/100)))
		if _, err := p.Check(h); err != nil {
			b.Fatal(err)
		}
		p.Append(id.Index(n+1), 1, h)
		p.Apply(id.Index(n+1), 1, h)
		n++
	}
}
