// Package kafka measures Apache Kafka, or anything that speaks its protocol: a cluster that runs already, or three nodes of its
// own, fetched from Maven Central and started on a JVM. Protocol has quorumlog's own target measured by the same client.
package kafka
