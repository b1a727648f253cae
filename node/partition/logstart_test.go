package partition

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestLogStartFold: the log start is the largest that a command named, also over checkpoints in between and a view of another replica, and
// what readers are shown never goes back.
func TestLogStartFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, want, shown := bare(), id.Offset(0), int64(0)
		for i := range id.Index(rapid.IntRange(1, 30).Draw(t, "steps")) {
			if rapid.Bool().Draw(t, "restart") {
				view := p.View()
				q := p
				if rapid.Bool().Draw(t, "in another process") {
					q = bare()
				} else {
					q.views.clear()
					require.GreaterOrEqual(t, q.start.shown.Load(), shown)
				}
				require.NoError(t, q.views.restore(view))
				require.Equal(t, view, q.View())
				p = q
			}
			to := id.Offset(rapid.Int64Min(0).Draw(t, "to"))
			want = max(want, to)
			result, err := p.Apply(i, 1, wal.KindCommand, trim(to, TrimReason(rapid.Byte().Draw(t, "reason"))))
			require.NoError(t, err)
			require.Equal(t, want, result)
			require.Equal(t, want, p.start.start)
			require.EqualValues(t, want, p.start.shown.Load())
			shown = p.start.shown.Load()
		}
	})
}

// TestLogStartStored: what is no command, and no section, of the log start changes nothing.
func TestLogStartStored(t *testing.T) {
	p := bare()
	require.Nil(t, p.View(), "a log from its beginning stores nothing")
	for _, body := range [][]byte{nil, {1}, {1, 0x80}, {1, 5, 5}, append([]byte{1}, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"...)} {
		_, err := p.Apply(1, 1, wal.KindCommand, command.Command{Kind: commandTrim, Version: trimVersion, Body: body}.Append(nil))
		require.ErrorIs(t, err, command.ErrInvalid, "%x", body)
	}
	_, err := p.Apply(1, 1, wal.KindCommand, command.Command{Kind: commandTrim, Version: trimVersion + 1, Body: []byte{1, 5}}.Append(nil))
	require.ErrorIs(t, err, errUnknownCommand)
	require.Zero(t, p.start.start)
	for _, body := range [][]byte{{0}, {0x80}, {5, 5}} {
		err := bare().views.restore(envelope.Append(nil, envelope.Section{Kind: sectionLogStart, Version: logStartVersion, Body: body}))
		require.ErrorIs(t, err, ErrBadView, "%x", body)
	}
	require.True(t, p.Rolls(trim(10, TrimTime), 10), "all of the log goes")
	require.True(t, p.Rolls(trim(11, TrimTime), 10))
	require.False(t, p.Rolls(trim(9, TrimTime), 10))
	require.False(t, p.Rolls(forget(5), 5))
}

// TestLogStartIsNotKnown: a release from before neither opens a view that has a log start nor follows a log that moves one.
func TestLogStartIsNotKnown(t *testing.T) {
	newer := bare()
	_, err := newer.Apply(1, 1, wal.KindCommand, trim(7, TrimSize))
	require.NoError(t, err)
	older := &Partition{producers: &producerView{Producers: NewProducers(Limits{})}, start: &logStartView{}}
	older.views.add(older.producers)
	require.ErrorIs(t, older.views.restore(newer.View()), envelope.ErrUnknown)
	_, err = older.Apply(1, 1, wal.KindCommand, trim(7, TrimSize))
	require.ErrorIs(t, err, errUnknownCommand)
	require.Zero(t, older.start.start)
}

// TestLogStartIsNotToMove: whoever leads, before all nodes know how, and never that of the system's own topics.
func TestLogStartIsNotToMove(t *testing.T) {
	early := errors.New("too early")
	p := derived(Limits{MayTrim: func() error { return early }, Internal: func(topic string) bool { return topic == "ours" }})
	p.TopicPartition.Topic = "t"
	_, err := p.DeleteRecords(context.Background(), 5)
	require.ErrorIs(t, err, early)
	p.TopicPartition.Topic = "ours"
	_, err = p.DeleteRecords(context.Background(), 5)
	require.ErrorIs(t, err, ErrInternalTopic)
}
