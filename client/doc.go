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
// Both learn from the metadata cache (cache.go) who leads: it is refreshed when somebody asks, and keeps the newest of what it is told
// (metadata.go), by whichever node (sources.go).
//
// # What is believed of the nodes
//
// Any node answers for the whole cluster, and any of them may be wrong: one that is cut off from its peers is as near and as quick as ever,
// names itself the leader first and nobody later, and its connections are well. So:
//
//   - The higher epoch is right. Leaders are named with their epoch, a Raft term, in metadata, refusals and the ends of subscriptions; a
//     client never goes back to a lower one. That nobody leads has no epoch: it is believed only of a node that is up to date.
//   - A node says how old its knowledge is: since it had word from a majority of the metadata group; never, if it was started a moment ago and
//     cannot tell yet who leads one of the partitions. Beyond 1.5 s what it says is taken for
//     what it is worth, and the next node is asked at once.
//   - An answer that brings nothing new makes the next refresh begin with another node. That alone suffices in the first moments of a cut,
//     and where a node has word from the metadata but is cut off from the replicas of a partition.
//   - A node that fails, is slow or behind is asked after all others for 2 s. The next node is asked when one has not answered for 250 ms.
//   - Refreshes that bring nothing new become rarer, from every 50 ms to an eighth of how long that has lasted, at most 1 s.
//   - Others are asked who leads when a batch was not answered for 1 s, when a node that is read from has given no sign of life for 1 s (it
//     is asked for one twice a second), or has no word from a majority, or when a dial takes more than 500 ms. A node is left for that only
//     once somebody names a newer leader: it may be this process that was frozen.
//   - A topic does not exist if several nodes that are up to date say so, for 2 s.
//   - A client belongs to one cluster: the one that Options.ClusterID names, or that of the first answer to a call for the whole cluster,
//     or of the first node that knows a topic which is asked for. Other nodes are not believed, and administrative calls carry the
//     cluster's id, so that they refuse them (ErrWrongCluster). Produce and fetch streams name topics by their ids, which no other
//     cluster has.
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
