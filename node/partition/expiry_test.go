package partition

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// bare returns a partition without log and group.
func bare() *Partition { return derived(Limits{}) }

func TestNotesNameWhatIsOldEnough(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Now()
	var n notes
	at := func(hours int, commit id.Index) id.Index {
		return n.oldEnough(begin.Add(time.Duration(hours)*time.Hour), commit, day)
	}
	require.Zero(t, at(0, 100))
	require.Zero(t, at(1, 200))
	require.Zero(t, at(5, 500))
	require.Zero(t, at(23, 2300))
	require.EqualValues(t, 100, at(24, 2400))
	require.EqualValues(t, 100, at(28, 2800), "what came after hour 1 is noted at 5")
	require.EqualValues(t, 500, at(29, 2900))
	require.EqualValues(t, 2800, at(1000, 2900))
	for hour := 1000; hour < 2000; hour++ {
		through := at(hour, id.Index(100*hour))
		require.LessOrEqual(t, through, id.Index(100*max(hour-24, 29)))
		if hour > 1030 {
			require.GreaterOrEqual(t, through, id.Index(100*(hour-24-3)), "an eighth later than it might")
		}
		require.LessOrEqual(t, len(n.list), expirySteps+2)
	}
}

func TestCommands(t *testing.T) {
	p := bare()
	write := func(index id.Index, producer id.Producer) {
		_, err := p.Apply(index, 1, wal.KindBatch, sentAs{producer: producer, count: 1}.header())
		require.NoError(t, err)
	}
	write(1, 7)
	write(2, 8)
	require.EqualValues(t, 1, p.producers.oldest.Load())
	_, err := p.Apply(3, 1, wal.KindCommand, forget(1))
	require.NoError(t, err)
	require.EqualValues(t, 2, p.producers.oldest.Load())
	require.Equal(t, 1, p.producers.Len())
	before := p.View()
	for what, data := range map[string][]byte{
		"a later kind":    command.Command{Kind: 200, Version: 1}.Append(nil),
		"a later version": command.Command{Kind: commandForget, Version: forgetVersion + 1, Body: []byte{9}}.Append(nil),
	} {
		_, err := p.Apply(4, 1, wal.KindCommand, data)
		require.ErrorIs(t, err, errUnknownCommand, what)
	}
	for _, body := range [][]byte{nil, {0x80}, {1, 1}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		_, err := p.Apply(4, 1, wal.KindCommand, command.Command{Kind: commandForget, Version: forgetVersion, Body: body}.Append(nil))
		require.ErrorIs(t, err, command.ErrInvalid)
	}
	require.Equal(t, before, p.View(), "what halts a replica changes nothing")
	_, err = p.Apply(4, 1, wal.KindCommand, forget(1<<62))
	require.NoError(t, err)
	require.Nil(t, p.View())
}

func FuzzForget(f *testing.F) {
	f.Add(forget(0)[4:5])
	f.Add([]byte{0x80, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		p := bare()
		p.producers.Apply(1<<20, 1, sentAs{producer: 7, count: 1}.header())
		through, err := parseForget(body)
		data := command.Command{Kind: commandForget, Version: forgetVersion, Body: body}.Append(nil)
		if _, applied := p.views.command(2<<20, data); err != nil {
			require.Error(t, applied)
			require.Equal(t, 1, p.producers.Len())
		} else if len(body) <= 10 {
			require.NoError(t, applied)
			require.Equal(t, through < 1<<20, p.producers.Len() == 1)
		}
	})
}

func TestViewsRestore(t *testing.T) {
	p := bare()
	require.Nil(t, p.View(), "a partition without idempotent producers stores nothing")
	require.NoError(t, p.views.restore(nil))
	p.producers.apply(1, 1, sentAs{producer: 7, count: 1}.header())
	good := p.View()
	q := bare()
	require.NoError(t, q.views.restore(good))
	require.Equal(t, good, q.View())

	body := p.producers.Snapshot(nil)
	producers := envelope.Section{Kind: sectionProducers, Version: producersVersion, Body: body}
	later := envelope.Section{Kind: sectionProducers, Version: producersVersion + 1, Body: body}
	for what, c := range map[string]struct {
		view []byte
		want error
	}{
		"a section of a later release":  {envelope.Append(nil, producers, envelope.Section{Kind: 99, Version: 1}), envelope.ErrUnknown},
		"only that":                     {envelope.Append(nil, envelope.Section{Kind: 99, Version: 1}), envelope.ErrUnknown},
		"a later version":               {envelope.Append(nil, later), envelope.ErrUnknown},
		"two sections of one kind":      {envelope.Append(nil, producers, producers), ErrBadView},
		"a body that does not parse":    {envelope.Append(nil, envelope.Section{Kind: sectionProducers, Version: 1, Body: body[1:]}), ErrBadView},
		"no envelope":                   {body, envelope.ErrDamaged},
		"an envelope that is cut short": {good[:len(good)-1], envelope.ErrDamaged},
	} {
		err := bare().views.restore(c.view)
		require.ErrorIs(t, err, c.want, what)
		require.Equal(t, errors.Is(c.want, envelope.ErrUnknown), errors.Is(err, envelope.ErrUnknown), what)
	}
}

// promises is a group of three replicas, one of which leads, and some producers. Time is real time; each replica has a clock that is
// wrong by any amount, and runs.
type promises struct {
	now      time.Time
	log      []promised // the leader's; entry i has index i+1
	replicas [3]struct {
		p       *Partition
		has     int // entries of log
		applied int
		clock   time.Duration // wrong by
	}
	leader, commit int
	term           id.Term
	sent           map[id.Producer]id.Sequence // the next of each producer
	after          time.Duration
}

type promised struct {
	sentAs
	command []byte
	term    id.Term
	at      time.Time
}

func (m *promises) replicate(r, to int) {
	replica := &m.replicas[r]
	for replica.has < to {
		e := m.log[replica.has]
		replica.has++
		if e.command == nil {
			replica.p.producers.Append(id.Index(replica.has), e.term, e.header())
		}
	}
	for replica.applied < min(m.commit, replica.has) {
		e := m.log[replica.applied]
		replica.applied++
		kind, data := wal.KindBatch, []byte(e.header())
		if e.command != nil {
			kind, data = wal.KindCommand, e.command
		}
		if _, err := replica.p.Apply(id.Index(replica.applied), e.term, kind, data); err != nil {
			panic(err)
		}
	}
}

// propose appends a batch if the leader admits it, unless that breaks a promise.
func (m *promises) propose(t *rapid.T, s sentAs) {
	if len(m.log) > 0 {
		s.offset = m.log[len(m.log)-1].offset + 10
	}
	leader := &m.replicas[m.leader]
	verdict, err := leader.p.producers.Check(s.header())
	if err != nil || verdict.Duplicate {
		return
	}
	var last time.Time
	twice := false
	for _, e := range m.log {
		if e.command != nil || e.producer != s.producer {
			continue
		}
		twice = twice && e.at.Sub(last) < m.after || e.first == s.first // what was before a silence was promised no longer
		last = e.at
	}
	require.False(t, twice && m.now.Sub(last) < m.after,
		"producer %d was active %v ago, and sequence %d of it is written twice", s.producer, m.now.Sub(last), s.first)
	m.append(promised{sentAs: s})
	m.sent[s.producer] = max(m.sent[s.producer], s.first.Add(s.count))
}

func (m *promises) append(e promised) {
	e.term, e.at = m.term, m.now
	m.log = append(m.log, e)
	m.replicate(m.leader, len(m.log))
}

func (m *promises) expire(r int) {
	replica := &m.replicas[r]
	oldest := id.Index(replica.p.producers.oldest.Load())
	if oldest == 0 {
		replica.p.notes.list = nil
		return
	}
	through := replica.p.notes.oldEnough(m.now.Add(replica.clock), id.Index(min(m.commit, replica.has)), m.after)
	if r == m.leader && through >= oldest {
		m.append(promised{sentAs: sentAs{producer: id.NoProducer, offset: m.log[len(m.log)-1].offset}, command: forget(through)})
	}
}

// TestPromisesAreKept: a batch is in the log once for as long as its producer is within its expiry, by any replica's clock, whatever
// leaders come and go, with commands of each other in their logs, and restart. And in the end producers are forgotten.
func TestPromisesAreKept(t *testing.T) {
	forgot := 0
	rapid.Check(t, func(t *rapid.T) {
		m := &promises{now: time.Now(), term: 1, sent: map[id.Producer]id.Sequence{}, after: 24 * time.Hour}
		for r := range m.replicas {
			m.replicas[r].p = bare()
			m.replicas[r].clock = time.Duration(rapid.IntRange(-1000, 1000).Draw(t, "clock")) * time.Hour
		}
		replica := func(t *rapid.T) int { return rapid.IntRange(0, 2).Draw(t, "replica") }
		producer := func(t *rapid.T) id.Producer { return id.Producer(rapid.IntRange(1, 3).Draw(t, "producer")) }
		actions := map[string]func(*rapid.T){
			"time": func(t *rapid.T) {
				m.now = m.now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Hour, 5 * time.Hour, 23 * time.Hour}).Draw(t, "time"))
			},
			"send": func(t *rapid.T) {
				p := producer(t)
				m.propose(t, sentAs{producer: p, first: m.sent[p], count: 1})
			},
			"retry": func(t *rapid.T) {
				p := producer(t)
				if m.sent[p] > 0 {
					m.propose(t, sentAs{producer: p, first: id.Sequence(rapid.IntRange(0, int(m.sent[p])-1).Draw(t, "sequence")), count: 1})
				}
			},
			"replicate": func(t *rapid.T) {
				r := replica(t)
				m.replicate(r, rapid.IntRange(m.replicas[r].has, len(m.log)).Draw(t, "to"))
				has := []int{m.replicas[0].has, m.replicas[1].has, m.replicas[2].has}
				median := max(min(has[0], has[1]), min(max(has[0], has[1]), has[2]))
				m.commit = max(m.commit, median)
				m.replicate(m.leader, len(m.log))
			},
			"elect": func(t *rapid.T) {
				r := replica(t)
				if m.replicas[r].has < m.commit {
					return
				}
				m.leader, m.term = r, m.term+1
				m.log = m.log[:m.replicas[r].has]
				for i := range m.replicas {
					if replica := &m.replicas[i]; replica.has > len(m.log) {
						replica.p.producers.Truncate(id.Index(len(m.log) + 1))
						replica.has = len(m.log)
					}
				}
			},
			"restart": func(t *rapid.T) {
				replica := &m.replicas[replica(t)]
				fresh := bare()
				require.NoError(t, fresh.views.restore(replica.p.View()))
				for i := replica.applied; i < replica.has; i++ {
					if e := m.log[i]; e.command == nil {
						fresh.producers.Append(id.Index(i+1), e.term, e.header())
					}
				}
				replica.p = fresh
			},
			"expire": func(t *rapid.T) { m.expire(replica(t)) },
		}
		actions["settle"] = func(*rapid.T) {
			m.commit = len(m.log)
			for r := range m.replicas {
				m.replicate(r, len(m.log))
			}
		}
		actions["tick"] = func(t *rapid.T) { // what mostly happens: everybody looks, and what the leader says is committed
			m.now = m.now.Add(m.after / 24)
			for r := range m.replicas {
				m.expire(r)
			}
			actions["settle"](t)
		}
		often := []string{"send", "retry", "retry", "tick", "tick"}
		names := append(slices.Sorted(maps.Keys(actions)), often...)
		for range 200 {
			actions[rapid.SampledFrom(names).Draw(t, "action")](t)
		}
		for r := range m.replicas {
			m.replicate(r, len(m.log))
		}
		m.commit = len(m.log)
		for range 12 * expirySteps { // and nobody writes any more
			m.now = m.now.Add(m.after / expirySteps)
			m.expire(m.leader)
			m.commit = len(m.log)
			for r := range m.replicas {
				m.replicate(r, len(m.log))
			}
		}
		for r := range m.replicas {
			require.Zero(t, m.replicas[r].p.producers.Len(), "everybody is forgotten once")
		}
		for _, e := range m.log {
			if e.command != nil {
				forgot++
			}
		}
	})
	require.Positive(t, forgot)
}
