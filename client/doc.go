// Package client is the Go client of quorumlog: a Producer that puts records into partitions exactly once and in order, a
// Consumer that reads them back, and an Admin for topics and the cluster. Everything goes over package rpc.
//
// # The first ten minutes
//
// A Client is what producers, consumers and admin calls share: the addresses to start from, what is known of the cluster, and the
// connections for admin calls. It is made once, and needs the address of one node that answers:
//
//	c, err := client.New(client.Options{Servers: []string{"host1:9192", "host2:9192"}})
//	defer c.Close()
//
// Where nodes have certificates, the client names the authority that made them and shows a certificate of its own, which says who it is. The files
// are reread as they change:
//
//	c, err := client.New(client.Options{Servers: servers, TLSFiles: client.TLSFiles{CA: "ca.crt", Certificate: "alice.crt", Key: "alice.key"}})
//
// A topic is a name for partitions, and a partition is a list of records, numbered from 0 by their offsets:
//
//	err = c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "orders", Partitions: 12})
//
// A producer puts records into partitions: where their keys say, so that the records of a key stay in order, or where they say themselves.
// ProduceSync waits until the records are on the disks of a majority; Produce does not wait, and calls back. One producer serves a whole
// program:
//
//	p, err := c.NewProducer(client.ProducerOptions{})
//	acks, err := p.ProduceSync(ctx, client.Record{Topic: "orders", Key: []byte("alice"), Value: order})
//	err = p.Produce(ctx, client.Record{Topic: "orders", Partition: client.At(3), Value: order}, func(a client.Ack) { ... })
//	err = p.Close(ctx) // waits for everything that was produced
//	err = c.Close()    // ends what is still open; any order, and as often as you like
//
// A consumer reads the partitions that it is given, from an offset, their Beginning, their End or a time on. Where it goes on is for its
// user to keep:
//
//	k, err := c.NewConsumer(client.ConsumerOptions{})
//	defer k.Close()
//	err = k.Assign(client.TopicPartition{Topic: "orders", Partition: 3}, client.Beginning)
//	for {
//		fetch, err := k.Poll(ctx)
//		for m, err := range fetch.Records() { ... }
//	}
//
// Everything is safe for concurrent use but for a Consumer, which belongs to one goroutine. What fails is tried again, elsewhere if need be,
// as long as that may help and the context or the delivery timeout lets it; the errors that remain are told apart with errors.Is and the
// Err variables of this package:
//
//	case errors.Is(err, client.ErrTopicExists):     // CreateTopic: somebody was faster
//	case errors.Is(err, client.ErrNotAuthorized):   // an ACL is missing; the text says for whom, and for what
//	case errors.Is(err, client.ErrNoNodeReachable): // nobody answers, or not to this certificate; the text says why
//	case errors.Is(err, client.ErrDeliveryTimeout): // the record may be written or not
//
// The examples run as they stand.
//
// Offsets, partitions and the like have types, some of which live in packages that this one shares with the nodes. All of them have names
// here, and no other package has to be imported.
//
// # How it is built
//
// The producer keeps one queue per partition (queue.go) and one stream per node (stream.go). A queue owns its batches
// (pending.go) until they have their outcome: when a leader moves, those in flight go back to the head of their queue, in order
// and with the sequences they had (deliver.go), and the housekeeper (housekeeper.go) gives the queue to the stream of the new
// leader. A stream is one connection, from the dial to the first error. Callbacks have a goroutine of their own (callbacks.go): a stream goes on
// reading whatever the user does in them.
//
// The consumer is the mirror image: one cursor per partition (cursor.go), one stream per node (fetch.go), which pushes what the
// consumer has granted credit for (credit.go), and a goroutine that brings the two together (keeper.go).
//
// Both learn from the metadata cache (cache.go) who leads: it is refreshed (refresh.go) when somebody asks, and keeps the newest of what it is
// told (metadata.go), by whichever node (sources.go).
//
// The files stand on floors, and a file knows those below it; floors_test.go has the order, and the few exceptions:
//
//	poll.go                          Assign, Poll and Close open and end what is below
//	unreached.go keeper.go           who finds streams for cursors, and why nothing comes
//	fetch.go reset.go                what nodes send, and where a cursor goes on that cannot go on
//	subscription.go credit.go        a cursor at a leader, and how much it may send
//	consumer.go fetchstream.go cursor.go   what a consumer has
//	────────
//	sync.go produce.go               Produce, Flush and Close open and end what is below
//	housekeeper.go stream.go         who finds streams for queues, and who sends
//	deliver.go recreated.go refused.go   what an answer, or none, means for a batch
//	producer.go queue.go             what a producer has
//	────────
//	admin.go offsets.go deletion.go upgrade.go   the calls for topics and the cluster
//	client.go                        opens and closes what all share
//	────────
//	refresh.go cache.go              what is known of the cluster, and how it stays so
//	────────
//	pending.go budget.go pace.go …   parts that know no client
//	types.go errors.go options.go …  what callers say and hear
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
//   - A node that fails, is slow or behind is asked after all others for 2 s, and for longer if it fails again then. The next node is asked when
//     one has not answered for 250 ms; an administrative call is only given up, and sent to the next one, if other nodes are known to answer.
//   - Refreshes are about the topics that are in doubt. Those that bring nothing new become rarer, from every 50 ms to a sixth of how long that
//     has lasted, at most 1 s and a bit. A topic that is new to the client is asked for at once.
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
// # Topics that are deleted and created again
//
// A position belongs to a topic's id, not to its name. A consumer that was in a topic which is gone goes on in the one that has the name now as
// OnOutOfRange says, or gets ErrTopicRecreated. What a producer holds goes to the new topic, as long as it was not sent to the old one: what may
// have been written there ends with ErrUnacknowledged. If the new topic has fewer partitions, records for which the producer had chosen one are
// given another; those whose partition was named fail (ErrUnknownPartition, ErrTopicRecreated).
//
// # Locks
//
// Producer.moving comes before queue.mu; queue.mu before stream.mu, housekeeper.mu, caller.mu, Producer.mu and metadataCache.mu;
// Consumer.mu before fetchStream.mu and metadataCache.mu. No lock is held across a callback of the user, a dial or a write to a socket.
package client
