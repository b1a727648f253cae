// Package wal keeps all bytes that a node puts on disk: one group-commit journal for the node, one segmented log for each
// partition, checkpoints, and the recovery that puts them together again after any crash.
//
// # The two ways into durability
//
// Entries are handed over with [Store.Submit]. They are visible to readers of the log at once, in its tail: the newest bytes
// of the partition, held in memory as the image of the segment file they are or will be in. One commit round after the other
// makes what was submitted durable. A partition with much to write in a round has whole blocks written from its tail straight
// into its segment, and only the index rows of its entries go into the round's journal frame (a reference); all others have
// their bytes in the frame, and reach their segments later, in large pieces, off the path that answers wait for. Frame and
// segments are written and synced at the same time; the round is complete when all are.
//
// Each segment has a block-aligned watermark W. Every byte below it is in the file and synced; every byte at or above it is
// in the journal or in the log's last cut, and in the tail. All rules of writing, checkpoint and recovery keep that one
// sentence true.
//
// # Who may call what
//
// Each log has an owner: the one goroutine that submits to it, moves its commit index, takes its cuts and asks the questions
// that Raft asks ([Log.FirstIndex], [Log.Term], [Log.Entries] ...). Reading ([Log.Read], [Log.ReadEntries],
// [Log.OffsetForTime] ...) is for everybody. Inside, Log.mu guards a log's state in memory and is never held across I/O; the
// committer goroutine alone runs rounds, the checkpointer goroutine alone flushes, cuts, seals and retires.
package wal
