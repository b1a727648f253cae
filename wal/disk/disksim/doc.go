// Package disksim is a disk in memory that fails as real ones do: it keeps only what was synced, tears and reorders the rest,
// and stops at any operation. It is for tests; the disk is deterministic as far as the calls arrive in the same order.
//
// A Disk is one boot of a machine. Halt, CrashAt or Crash end it: every later call returns ErrHalted, as if the process had
// died in the middle. Crash then returns the next boot:
//
//   - Kill: the process died, the machine did not. All that was written is there, and what was not synced may still be lost
//     by a PowerLoss later on. Of a write that was interrupted, a prefix may be there.
//   - PowerLoss: each 4 KiB block that was not synced holds, independently, its old content, any version written since, a
//     mixture of them in units of 512 bytes, or garbage. Lengths, creates, renames and unlinks that were not synced are
//     kept or lost.
//
// The file system for Pebble (Disk.Pebble) is Pebble's own crashable vfs.MemFS, halted at the same operation and cloned by the
// same crash. On a halted disk it pretends that all goes well, because Pebble ends the process when it does not: close the old
// process's store after the halt and before Crash, and believe nothing it said after Halted was true.
package disksim
