// Package client is the Go client of quorumlog: a Producer that puts records into partitions exactly once and in order, a
// Consumer that reads them back, and an Admin for topics and the cluster. Everything goes over package rpc.
//
// A Client is what they share: the addresses to start from, a cache of the cluster's metadata and the connections for admin
// calls. It is safe for concurrent use, and so are Producer and Admin; a Consumer belongs to one goroutine.
//
//	c, err := client.New(client.Options{Servers: []string{"127.0.0.1:9092"}})
//	p, err := c.NewProducer(client.ProducerOptions{})
//	err = p.Produce(ctx, client.Record{Topic: "orders", Partition: client.AnyPartition, Value: value}, nil)
//	err = p.Close(ctx) // waits for everything that was produced
//
// # How it is built
//
// The producer keeps one queue per partition (queue.go) and one stream per node (stream.go). A queue owns its batches
// (pending.go) until they have their outcome: when a leader moves, those in flight go back to the head of their queue, in order
// and with the sequences they had (deliver.go), and the housekeeper (housekeeper.go) gives the queue to the stream of the new
// leader. A stream is one connection, from the dial to the first error.
//
// The consumer is the mirror image: one cursor per partition (cursor.go), one stream per node (fetch.go), which pushes what the
// consumer has granted credit for.
//
// Both learn from the metadata cache (metadata.go) who leads: it is refreshed when somebody asks, at most every 50 ms, and it
// asks several nodes when the first one is slow.
//
// # Idempotence
//
// A batch gets its sequence when it is first sent and keeps it for all attempts. When a batch ends without its outcome being
// known, the sequences behind it cannot be used any more: the producer starts anew under the next epoch for this partition,
// which fences what may still be under way. Batches that may have been written by then end as well (ErrUnacknowledged); those
// that certainly were not go on. Until the first batch of an epoch is acknowledged it is alone in flight, because a partition
// that does not know a producer takes any sequence for its first.
//
// # Locks
//
// queue.mu comes before stream.mu, housekeeper.mu, Producer.mu and metadataCache.mu; Consumer.mu before fetchStream.mu and
// metadataCache.mu. No lock is held across a callback of the user, a dial or a write to a socket.
package client
