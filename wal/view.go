package wal

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/segment"
)

// The view of a log's state may have megabytes, and the cut beside it changes with each checkpoint. So it has a record of its own, which
// is written with a cut only when the state is another than that of the cut before; in the same batch, so that they never part. Its size
// and checksum stand in the cut.
//
// And the state is another only when that is worth it. What is above its Applied is in the log, and is applied again after a start. An
// owner is asked for a new one when the log has grown, since Applied, by at least as much as the view takes: so views cost no more than the
// log itself, and a start reads no more of the log again than it reads of the view. Who stops in order gives its state unasked. Two
// things want a new one in any case: tombstones, which wait for the metadata's, and a condemned log, of which a start had better read
// nothing.

// viewMark is what a cut says of the view.
type viewMark struct {
	bytes int
	sum   uint32
}

// markedState is a state with the mark of its view, which takes a while to make: not under a log's lock, if it can be helped.
type markedState struct {
	State
	mark viewMark
}

func markOf(view []byte) viewMark {
	if len(view) == 0 {
		return viewMark{}
	}
	return viewMark{len(view), segment.Checksum(view)}
}

// setState makes st, whose view has the mark, the state of the next cut. Called with mu.
func (l *Log) setState(st State, mark viewMark) {
	l.state, l.mark = st, mark
	l.viewNumber++
	l.since = 0
}

// wantsState tells whether the log has grown by enough for a new state, or there is another reason for one. Called with mu.
func (l *Log) wantsState() bool {
	return l.s.o.off.viewWaits || l.needs&cutState != 0 || l.since >= int64(l.mark.bytes)
}

// storeView adds the view of a taken cut to the batch that has the cut.
func (t *takenCut) storeView(b *pebble.Batch) error {
	if t.viewNumber == t.viewStored {
		return nil
	}
	t.l.s.metrics.viewBytes.Add(uint64(len(t.view)))
	return putView(b, t.l, t.view)
}

func putView(b *pebble.Batch, l *Log, view []byte) error {
	if len(view) == 0 {
		return b.Delete(viewKey(l.group, l.replica), nil)
	}
	return b.Set(viewKey(l.group, l.replica), view, nil)
}

// loadView gives a log the view that its cut speaks of.
func (r *recovery) loadView(k logKey, value []byte) {
	if p := r.logs[k]; p != nil && !p.unreadable {
		p.l.state.View = clone(value)
	}
}

// checkViews refuses the logs whose view is not the one that was stored with the cut.
func (r *recovery) checkViews() {
	for _, p := range r.logs {
		if got := markOf(p.l.state.View); !p.unreadable && got != p.l.mark {
			p.refuse(fmt.Sprintf("the view of its state has %d bytes (checksum %08x), its cut says %d (%08x)",
				got.bytes, got.sum, p.l.mark.bytes, p.l.mark.sum))
		}
	}
}

// grown counts an entry that the log has above its state. Called with mu.
func (l *Log) grown(row *segment.Row) { l.since += segment.RowSize + int64(row.Length) }
