// Package nats measures NATS JetStream: a cluster that runs already, or three servers of its own, built from the Go module
// proxy. A partition is a stream with three replicas on files.
package nats
