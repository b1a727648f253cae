package client

// PartitionOf is where a key lives.
var PartitionOf = partitionOf
