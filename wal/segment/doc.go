// Package segment is the form of a partition's files: the names of segments, and the rows of their indexes. It does no I/O
// of its own but the reading of rows.
//
// A segment is a pair of files. `<base offset>.log` is nothing but record batches, byte for byte as on the wire.
// `<base offset>.index` has one row of 64 bytes for each entry of the Raft log that the segment covers, control entries
// included, so that the row of an index is found by arithmetic and that of an offset or a time by binary search. Where the
// base name is taken, by a file that a truncation dropped, `<base offset>.<id>` is used.
package segment
