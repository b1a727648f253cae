// Package fetching is who waits for records: the subscriptions of consumers to the partitions of this node, which of them there is
// something to say to, and in which turn.
//
// A [Session] is one consumer's connection. Each of its subscriptions is in one place, which is its state:
//
//	ready       there may be something to say: records, news, or its end
//	waiting     it was told everything; more records rouse it
//	idle        its consumer has granted no credit; another leader, or the end of the replica, rouses it
//	confirming  it begins where this replica has no records; a quorum is being asked whether anybody has
//	nowhere     it is being served, or it has ended
//
// Two goroutines work on a session: whoever receives what the consumer asks for (Subscribe, Credit, Unsubscribe: none of them blocks), and
// whoever sends (Serve, Wait). Serve says one thing to the first of the ready ones, at most a piece of one partition, and puts it behind the
// others. So nobody starves, however far behind the others are, and nothing is done for those who are not ready.
//
// What a commit costs. A session waits for a partition once, however many subscriptions it has there, and is roused once: until it has
// looked and waits again it is on no list of the partition's. Whoever has no credit is not on the list of those who await records. So a
// turn in which the high watermark moves does a few atomic operations for each connection that is waiting for just that, and none if there is none.
//
// How records travel is the [Sink]'s business, and when to stop the caller's. quorumlog's own stream pushes while there is credit; a long
// poll is Serve until there is enough, Wait until its time is over, and what is left stays ready for the next.
package fetching
