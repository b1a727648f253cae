package broker

// Broker is what a client may ask of a node. Each of its parts is a room of its own, for who needs no more than that.
//
// Every call, or the session that it belongs to, has the Caller. A call's context bounds it; without a deadline the broker has one of its own.
// All errors are *kerr.Error.
type Broker interface {
	Appends
	Fetches
	Offsets
	Records
	Topics
	Cluster
	Changes
	Configs
	Leaderships
	Security
}
