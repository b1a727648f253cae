package node

import (
	"fmt"

	"github.com/quorumlog/quorumlog/wal"
)

// mark is what a data directory says about nodes that wrote to it without syncing (wal.FsyncNone, --unsafe-no-fsync).
//
// Raft is right only if no replica ever forgets a vote or an entry that it acknowledged. A node that does not sync forgets both
// when the power fails, and what it finds afterwards may look whole: a journal that ends earlier, a cut of an hour ago. As a
// follower it would then let a leader be elected without entries that were committed with its vote. Nothing in the files can tell;
// so the directory carries a word about it from before the first such write on, and these are the ways it goes:
//
//		           start without the flag   start with the flag   clean stop of a node with the flag
//		unmarked   unmarked                 unsynced              -
//		unsynced   refused                  suspect               unmarked, once all is synced
//		suspect    refused                  suspect               suspect
//
//	  - The mark is durable before the store is opened, and the identity is always written with syncs. A crash in between leaves a mark
//	    without a reason: a refusal too many.
//	  - A clean stop removes it last: the store has completed its rounds, written a checkpoint and closed, each file and name of it is
//	    synced, and no write or sync has failed. What was written is then as safe as if each sync had been done in its time, so the
//	    directory is like any other. A crash in between leaves the mark, and a refusal too many again.
//	  - A start that finds the mark learns that a node ended without such a stop. It may have been a kill, which loses nothing, or the
//	    power: a node cannot know, and what is lost stays lost, whatever is synced from then on. Hence suspect, which no stop removes;
//	    if it did, a power failure, a start with the flag and a clean stop would launder a directory that has forgotten its votes.
type mark string

const (
	unmarked mark = ""
	unsynced mark = "unsynced" // a node writes without syncing, or ended while it did
	suspect  mark = "suspect"  // one ended so: acknowledged records and votes may be gone
)

// markKey is the key of the mark in the identity file. A directory without a mark does not have it.
const markKey = "storage"

func parseMark(s string) (mark, error) {
	switch m := mark(s); m {
	case unmarked, unsynced, suspect:
		return m, nil
	}
	return "", fmt.Errorf("%s %q: must be %s or %s", markKey, s, unsynced, suspect)
}

// atStart returns the mark with which a node of that class may open the directory, or why it may not.
func (m mark) atStart(dir string, class wal.FsyncClass) (mark, error) {
	switch {
	case class == wal.FsyncNone && m == unmarked:
		return unsynced, nil
	case class == wal.FsyncNone:
		return suspect, nil
	case m == unmarked:
		return unmarked, nil
	}
	return "", fmt.Errorf("%s was written with --unsafe-no-fsync by a node that was not stopped in order (%s: %s=%s): records and votes that it acknowledged may be lost. "+
		"Start this node with an empty data directory and an unused node id; for comparisons only, it can go on with --unsafe-no-fsync",
		dir, identityFile, markKey, m)
}
