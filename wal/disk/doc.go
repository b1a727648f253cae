// Package disk is the only door from quorumlog to a file system: a small interface of files that are written in whole
// aligned blocks, with an implementation that bypasses the page cache (O_DIRECT) and one that goes through it. Package
// disksim has a third, which loses, tears and reorders what was not synced; Unsynced takes the syncs away from any of them, for
// comparisons.
//
// Everything in Dir, the journal and the segments goes through FS; nothing above it sees a file descriptor. The rules are
// those of the strictest implementation and all of them enforce the same ones, so that code which works on one works on all:
//
//   - Reads and writes are of whole blocks of BlockSize at block-aligned offsets, from and to memory that AlignedBytes (or
//     mmap) returned.
//   - File.Sync makes the file's bytes and length durable, never its name: that is SyncDir's job, for each directory that
//     changed. A rename is atomic, but durable only then.
//   - Lengths need not be aligned: Truncate cuts at any byte, and a read that meets the end returns what is there and io.EOF.
//   - After a failed Sync nothing is known about the bytes written since the last successful one, and a later Sync that
//     succeeds does not change that. Never retry: stop.
package disk
