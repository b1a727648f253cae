// Package broker is what a client may ask of a node, in Kafka's terms and whatever the protocol: types and small interfaces. Each protocol (rpc/native
// now, Kafka's next) translates its bytes into these and back; node implements them once.
package broker
