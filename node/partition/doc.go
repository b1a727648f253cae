// Package partition is what a partition is on one node, between the RPC services and its Raft group: it checks produced batches,
// keeps what is derived from the log, knows the high watermark, rouses who waits for records (watch.go), and reads committed batches.
//
// What is derived is a list of views (views.go says what a view is, and tells each what concerns it). One of them are the producers
// (producerview.go), which make sending a batch again harmless: sequence.go has the rules for the batches of one producer, overlay.go those
// that are not committed yet, producers.go both together for all producers, snapshot.go how that is stored, and expiry.go how producers
// are forgotten.
//
// Every replica of a partition has one, leader or not. [Partition] is the group's raftgroup.Machine: the methods of that
// interface run on the worker that owns the group, one at a time and in the order of the log; everything else may be called by
// anyone.
package partition
