package rpc

import "time"

// Protocol is the newest version that this release speaks of everything that this package puts on the wire, and oldestProtocol the
// oldest. What a stream uses is agreed on at its start: see opening.go.
const (
	Protocol       uint16 = 5
	oldestProtocol uint16 = 4

	// snapshotProtocol is the first with which a node makes something of a MsgSnap: those before drop it.
	snapshotProtocol = 5
)

// The fsync classes that a node reports in ClusterStatus: what its acknowledgements wait for.
const (
	FsyncClassAll  = "fsync"         // syncs
	FsyncClassNone = "none (unsafe)" // no syncs: the node was started with --unsafe-no-fsync
)

const (
	// MaxBatchBytes is the largest record batch that any stream carries, and so the upper limit of max.message.bytes. It leaves
	// room for all headers in a message.
	MaxBatchBytes = 2_000_000
	// trainBytes is how much is packed into one drpc message when there is more to send. A frame that is larger goes alone.
	trainBytes = 256 << 10
	// maxMessage bounds a drpc message to and from clients: a train of frames, or the largest single one.
	maxMessage = 2 << 20
	// maxTrain bounds one of a lane: the largest MsgApp. Raft fills it up to raftgroup's MaxMessageBytes, but does not know yet how
	// large the last proposals are.
	maxTrain = 4 << 20
	// maxWireFrame bounds one frame of drpc, which splits messages at 64 KiB.
	maxWireFrame = 128 << 10
	// maxPrelude bounds what opens a stream: metadata and a name.
	maxPrelude = 8 << 10

	// maxAdminRequest and maxAdminResponse bound the messages of administrative calls; a metadata view can be large.
	maxAdminRequest  = 1 << 20
	maxAdminResponse = 12 << 20

	// produceWindow is the number of unanswered batch bytes that a server lets a producer have on one stream.
	produceWindow = 32 << 20
	// answersBound is the number of answer bytes that a server holds for a producer that does not read.
	answersBound = 4 << 20
)

const (
	dialTimeout    = time.Second
	preludeTimeout = 5 * time.Second  // from accept to an open stream
	pooledTimeout  = 10 * time.Second // between two administrative calls on a connection; the client's pool gives up sooner
	unaryTimeout   = 60 * time.Second // an administrative call that names no deadline
	// The client's side of a produce or fetch stream asks this often for a sign of life, and how old the node's knowledge is: a node that
	// is frozen or cut off breaks no connection.
	streamPing    = 500 * time.Millisecond
	streamTimeout = 12 * time.Second // a stream without any byte for this long is broken
	userTimeout   = 5 * time.Second  // TCP_USER_TIMEOUT: unacknowledged or unread for this long
	lingerTimeout = time.Second      // for a client to read the error that ended its stream
	unaryGrace    = 5 * time.Second  // for handlers to return once they are cut off
)
