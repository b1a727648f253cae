// Package limit is the bound that physics sets to a replicated log on one machine: three processes, a leader and two followers,
// that pass frames on over TCP, write them and acknowledge what two of three have synced. There is no Raft, no parsing, no
// index, no recovery. What it reaches is what a real log can be compared with.
//
// It comes in two layouts. [Journal] writes all frames into one recycled file: the least that an acknowledgement can cost, but
// it keeps nothing. [Log] writes a growing file per partition: the least that keeping the data can cost.
//
// [ReadTarget] is the bound of reading such files from the disk, without any process or network in between.
package limit
