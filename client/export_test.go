package client

// PartitionOf is where a key lives.
var PartitionOf = partitionOf

// Buffered is how many bytes of BufferBytes are taken.
func (p *Producer) Buffered() int64 { return p.budget.used.Load() }
