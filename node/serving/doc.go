// Package serving is what a node does for clients: the one implementation of broker.Broker, behind every protocol. It finds whom a request
// concerns (a replica here, the node that leads a partition, the controller), asks, and says what came of it in Kafka's terms. It
// knows its node through what it is given: see [Options].
//
//   - appends.go takes batches to their partitions, turns.go has each connection that was answered flushed once a turn.
//   - fetches.go sends consumers the committed records that they have credit for. offsets.go looks offsets up.
//   - topics.go describes what there is, cluster.go the nodes and how they are.
//   - changes.go changes the metadata, where it is led: forward.go finds that node. leaderships.go has a leadership handed over.
//   - errors.go gives the errors of the layers below their codes. Nothing else does.
//
// Each exported method of [Broker] begins with its caller: whether he may is asked there, and at the top of admit (appends.go) and Subscribe
// (fetches.go) for those who stay. How much he may is asked in admit, and in Serve.
package serving
