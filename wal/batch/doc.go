// Package batch reads, writes and checks Kafka's RecordBatch v2 (magic 2): the unit that is sent, replicated, stored and
// read, and that nobody on the way encodes again.
//
// A Batch is the bytes of exactly one batch. The header says everything that a broker needs to know, so servers look at
// records only to refuse malformed ones. The two fields that a broker writes, the base offset and the leader epoch, lie
// outside the batch's checksum and are stamped in place.
//
// It is a leaf: of this module it imports only wal/id.
package batch
