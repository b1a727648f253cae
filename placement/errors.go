package placement

import (
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Reasons for which a command is refused. An error of Apply, Check or of the validating functions matches exactly one of
// them with errors.Is; its text is the sentence for the user and stands alone.
var (
	ErrTopicExists              = errors.New("topic already exists")
	ErrUnknownTopic             = errors.New("unknown topic")
	ErrInvalidTopic             = errors.New("invalid topic name")
	ErrInvalidPartitions        = errors.New("invalid number of partitions")
	ErrInvalidReplicationFactor = errors.New("invalid replication factor")
	ErrInvalidConfig            = errors.New("invalid topic config")
	ErrInvalidRequest           = errors.New("invalid request")
	ErrDuplicateNode            = errors.New("node id is taken")
	ErrStaleNode                = errors.New("a newer start of this node is registered")
	ErrUnknownNode              = errors.New("unknown node")
	ErrRemovedNode              = errors.New("node was removed from the cluster")
	ErrNodeInUse                = errors.New("node still holds replicas")
	ErrFounded                  = errors.New("cluster is already founded")
	ErrNotFounded               = errors.New("cluster is not founded")
	ErrFeatureLevel             = errors.New("feature level does not fit")
	ErrUnknownUser              = errors.New("unknown user")
	ErrDuplicateUser            = errors.New("user is named twice")
	ErrUnacceptableCredential   = errors.New("unacceptable credential")
	ErrUnknownMechanism         = errors.New("unknown SCRAM mechanism")
	ErrTooMany                  = errors.New("the metadata holds as many as it may")
)

// Refusal is the error of a command that was not carried out: it changed nothing. Reason is one of the sentinels above.
type Refusal struct {
	Reason  error
	Message string
}

// Error returns the message alone: it says the cause and, where there is one, the remedy.
func (r *Refusal) Error() string { return r.Message }

// Unwrap returns the reason.
func (r *Refusal) Unwrap() error { return r.Reason }

func refuse(reason error, format string, args ...any) error {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// DuplicateNodeError is the refusal of a registration under a node id that belongs to another store. It matches
// ErrDuplicateNode.
type DuplicateNodeError struct {
	Node                     id.Node
	StoreID, OtherStoreID    string // of the one that was refused; of the one that is registered
	RPCAddress, OtherAddress string
}

// Error names both stores and what to do about them.
func (e *DuplicateNodeError) Error() string {
	return fmt.Sprintf("node id %d at %s with store %s is refused: the id belongs to store %s, last seen at %s; "+
		"give this node an unused node id, or, when its disk was lost, start it with an empty data directory and an unused node id: "+
		"a wiped disk must not come back as the replicas it used to hold",
		e.Node, e.RPCAddress, e.StoreID, e.OtherStoreID, e.OtherAddress)
}

// Unwrap returns ErrDuplicateNode.
func (e *DuplicateNodeError) Unwrap() error { return ErrDuplicateNode }

// UnsupportedError says that the metadata has come to something that this release does not know. A node that gets it from its metadata
// log must stop: what it would build from the rest of the log is not what the others have.
type UnsupportedError struct {
	What      string       // "metadata command MoveReplica/2"
	Level     FeatureLevel // that it needs
	Supported FeatureLevel // the highest that this release knows
}

// Error names both levels, and the remedy.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("this release does not know %s (feature level %d; it knows levels up to %d): upgrade this node",
		e.What, e.Level, e.Supported)
}

// UnknownCommandError says that a command has a name that this release does not know although its level should be known: the log
// is damaged or was written by something else.
type UnknownCommandError struct {
	Name      string
	Level     FeatureLevel
	Supported FeatureLevel
}

// Error names the command and both levels.
func (e *UnknownCommandError) Error() string {
	return fmt.Sprintf("this release does not know metadata command %s/%d, though it knows the feature levels up to %d: "+
		"the record is damaged or was not written by quorumlog", e.Name, e.Level, e.Supported)
}
