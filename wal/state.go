package wal

// The states of a log and of its segments, in place of flags of which most combinations could not be. The log's mu guards them.

// life is how far a log's life has gone. It never goes back.
type life uint8

const (
	alive     life = iota
	ending         // being deleted, or the store closes: no new work begins, what is under way comes to its end
	forgotten      // the end of its cut in Pebble is stored, or about to be: no cut may be stored. Set with Store.metaMu held, too
)

// work is a set of what is under way on the files of a log. A round and a flush exclude each other, since both write from the watermark
// of a segment on; an index is written beside both of them, because its rows are committed and nobody changes them, but not beside a
// seal, which writes the same rows.
type work uint8

const (
	roundWork   work = 1 << iota // the round in flight writes to a segment: from candidate to complete or abandon
	flushWork                    // a flush writes to a segment or seals it: flushOnce. Truncations wait for its end
	indexWork                    // rows go into an index: flushIndex
	unlinkWork                   // files that were dropped are removed: unlinkDropped
	catchUpWork                  // a flush is in the preparer's queue, or is one of the preparer's
)

func (l *Log) doing(w work) bool { return l.work&w != 0 }

// begin notes work that is under way from now on. Called with mu, when it is not.
func (l *Log) begin(w work) { l.work |= w }

// end is the opposite, and wakes who waits for it. Called with mu.
func (l *Log) end(w work) {
	l.work &^= w
	l.idle.Broadcast()
}

// writable tells whether a write to a segment may begin: none is under way, and the watermarks speak of the log as it was submitted.
// Called with mu.
func (l *Log) writable() bool {
	return l.blocked == 0 && l.life == alive && !l.doing(roundWork|flushWork)
}

// busy tells whether somebody is at work on the log's files. Called with mu.
func (l *Log) busy() bool { return l.work != 0 || l.preparing > 0 }

// need is what the next cut is wanted for, beside records of the journal.
type need uint8

const (
	cutChanged need = 1 << iota // a segment was sealed, which the stored cut does not know
	cutAsked                    // a checkpoint waits for the owner's answer
	cutState                    // a new state is wanted, however large its view
)

// stage is how far a segment has come. It goes back from sealing to open only: a seal may fail.
type stage uint8

const (
	segOpen    stage = iota // written to, or complete and not sealed
	segSealing              // whoever does that writes the last rows, too
	segSealed               // all of it is committed and durable, and it is never written again
)

// names says what is known of the files of a segment.
type names uint8

const (
	namesForeign names = iota // what has their names, if anything, was left by an earlier start and is nobody's
	namesOwn                  // files of these names are its own: made by this process, or cut or journal named it at the start
	namesReady                // both exist, durably
)
