package broker

// Broker is what a client may ask of a node. Each of its parts is a room of its own, for who needs no more than that.
type Broker interface {
	Appends
	Fetches
}
