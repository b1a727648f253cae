// Package serving is what a node does for clients: the one implementation of broker.Broker, behind every protocol. It finds whom a request
// concerns (a replica here, the node that leads a partition, the controller), asks, and says what came of it in Kafka's terms.
//
//   - appends.go takes batches to their partitions, turns.go has each connection that was answered flushed once a turn.
//   - fetches.go sends consumers the committed records that they have credit for.
//   - errors.go gives the errors of the layers below their codes. Nothing else does.
package serving
