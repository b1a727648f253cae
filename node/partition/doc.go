// Package partition is what a partition is on one node, between the RPC services and its Raft group: it checks produced batches,
// keeps the producer view (idempotence), knows the high watermark, wakes waiting fetches, and reads committed batches.
//
// Every replica of a partition has one, leader or not. [Partition] is the group's raftgroup.Machine: the methods of that
// interface run on the worker that owns the group, one at a time and in the order of the log; everything else may be called by
// anyone.
package partition
