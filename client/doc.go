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
// The producer keeps one queue per partition and one stream per node (files producer.go, queue.go, stream.go). A queue owns
// its records until they are acknowledged: when a leader moves, the batches in flight go back to the head of their queue, in
// order and with the sequences they had, and the housekeeper (housekeeper.go) gives the queue to the stream of the new leader.
//
// The consumer is the mirror image: one cursor per partition, one stream per node (consumer.go, cursor.go, fetch.go).
//
// # Locks
//
// queue.mu comes before stream.mu and topics' mutexes; no lock is held across a call of the user's callbacks, a dial or a
// write to a socket.
package client
