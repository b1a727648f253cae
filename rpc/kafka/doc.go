// Package kafka serves Kafka's wire protocol over a broker.Broker: connections, frames and versions, one file for each API and one table of
// them all (apis.go). It has no logic of its own: what a request asks is asked of the broker, in the broker's words, as drpc's services do.
//
// Messages are those of package kmsg, but for what carries batches, the requests of Produce and the responses of Fetch: batches go from the
// memory that they were received in to the log, and from the log into the memory that they are sent from, and are never part of a message.
package kafka
