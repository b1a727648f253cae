// Package kafka measures Apache Kafka, or anything that speaks its protocol: a cluster that runs already, or three nodes of its
// own, fetched from Maven Central and started on a JVM.
package kafka
