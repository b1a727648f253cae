// Package journal is the write-ahead log that all groups of a node share: rounds of small records, each round one frame,
// each frame one write and one sync, into preallocated files that are overwritten in place again and again (overwriting
// costs a half to a third of appending, because the file system has nothing of its own to write).
//
// It knows neither logs nor Pebble. Its owner, package wal, commits rounds one after the other, keeps the FileInfo of every
// live file in Pebble and hands them back at the next start.
//
// # A start
//
//	r, err := journal.Open(fs, dir, live, opts)        // live: the FileInfos in Pebble
//	res, err := r.Replay(completed, visit)             // vouched frames in order; res.Unvouched: the last round
//	                                                   // or r.Skip(last), after an orderly stop that left nothing to replay
//	done, err := r.Restart(&frame)                     // what is kept of res.Unvouched goes into a fresh file, synced
//	...                                                // one Pebble batch: done.Live, done.Dropped, done.Completed
//	j, err := r.Start()                                // from here on the journal takes rounds
//
// A node that is new does the same with nothing live. Nothing that Open, Replay and Restart do changes what a second
// recovery would find, however often it is interrupted.
//
// # A round
//
//	f.Reset(); f.Add(...); ...; f.Build()              // Build may overlap the sync of the round before
//	w, err := j.WriteSync(&f, prevDurable)             // one call to the disk; Write and Sync are its halves
//
// # Who vouches for a frame
//
// A frame that does not check is either torn (its round never completed, nobody was answered: drop it) or damaged (it was
// acknowledged and is lost: the groups in it must not go on as if it had never been). A frame is vouched for when a later
// frame's header says so (prevDurable at or above its sequence), when the owner's completed sequence does, or when it lies
// below the recorded end of its file. Damage to a vouched frame is handed to the visitor in its place, with exactly the
// records that are lost, or with Damage.All if neither copy of the record headers can be read.
//
// # Files
//
// A file is live from the moment that its name, epoch and length are in Pebble, which Options.Register does before its first
// frame, until it is retired. Files that Pebble does not name are no journal: they are the pool from which the next ones are
// taken, with a new random epoch that makes all older bytes in them meaningless. The names never change. The next files are
// prepared, zero-filled and registered by a goroutine of the journal ahead of need; they are also the reserve that keeps
// votes possible on a full disk.
package journal
