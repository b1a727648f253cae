package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// Target is a system that can be measured.
type Target interface {
	// Name is what --target says.
	Name() string
	// Start starts the system, or connects to it when setup names servers.
	Start(ctx context.Context, setup Setup) (System, error)
}

// Checker is a target that does not fit every run. The harness asks it before it looks at the disk, so that who asks for the wrong
// thing is not told to free space for it.
type Checker interface {
	// Check returns why the target cannot do what setup says.
	Check(setup Setup) error
}

// Setup says how a target is started.
type Setup struct {
	Dir      string   // for data and logs, empty, removed by the harness after the turn
	Servers  []string // of a system that runs already; empty: the target starts its own
	Workload Workload
	Profile  Profile
	Log      func(format string, args ...any) // for what the user should know while he waits
}

// Profile asks for profiles of the timed part, one file per node, in these directories; empty: none.
type Profile struct{ CPU, Trace string }

// flags are what a node of quorumlog is given; see its command.
func (p Profile) flags() (flags []string) {
	if p.CPU != "" {
		flags = append(flags, "--cpuprofile", filepath.Join(p.CPU, "node-{node}.cpu"))
	}
	if p.Trace != "" {
		flags = append(flags, "--trace", filepath.Join(p.Trace, "node-{node}.trace"))
	}
	return flags
}

// profiler is a System that can profile its servers.
type profiler interface {
	StartProfiles() error
	StopProfiles() error
}

// System is a target that runs.
type System interface {
	// Describe says what is measured. It is asked after the topics were created.
	Describe() Description
	// Create creates empty topics, ready to be written.
	Create(ctx context.Context, l Layout) error
	Clients
	// Ends returns, for each partition, the offset after its last record.
	Ends(ctx context.Context, l Layout) ([]int64, error)
	// Processes returns the ids of the server processes, none when they are elsewhere.
	Processes() []int
	// Close ends everything that Start started.
	Close() error
}

// Clients makes the clients of a system.
type Clients interface {
	// NewProducer returns a producer. ended is called, by any goroutine, for all records that were sent.
	NewProducer(ctx context.Context, l Layout, ended func(Outcome)) (Producer, error)
	// NewConsumer returns a consumer of all partitions from their first record on.
	NewConsumer(ctx context.Context, l Layout) (Consumer, error)
}

// Producer sends records with the workload's settings: acks of a quorum, linger, batch.
type Producer interface {
	// Send takes a record, copying it; it blocks while the workload's InFlightBytes are on their way. One goroutine calls it.
	// The numbers of a partition's records, as in Outcome, follow the order of the calls that returned nil.
	Send(ctx context.Context, partition int, key, value []byte) error
	// Flush returns when every record has its outcome.
	Flush(ctx context.Context) error
	// Close gives up what has no outcome.
	Close() error
}

// Outcome is what became of Count records of a partition, from number First on: those which this producer sent there, from 0.
type Outcome struct {
	Partition int
	First     uint64
	Count     int
	Offset    int64 // of the first one, -1 unknown
	Err       error
}

// Consumer reads records in the order of each partition.
type Consumer interface {
	// Poll waits for records and visits them. The bytes are valid during the visit.
	Poll(ctx context.Context, visit func(Message)) error
	Close() error
}

// Message is a record that was read.
type Message struct {
	Partition  int
	Offset     int64
	Key, Value []byte
}

// Layout numbers the partitions of several topics through: partition p of the harness is partition p % Partitions of topic
// p / Partitions.
type Layout struct {
	Topics     []string
	Partitions int // of each topic
}

// NewLayout names the topics of a workload.
func NewLayout(prefix string, topics, partitions int) Layout {
	l := Layout{Partitions: partitions}
	for i := range topics {
		l.Topics = append(l.Topics, fmt.Sprintf("%s-%d", prefix, i))
	}
	return l
}

// Total is the number of partitions.
func (l Layout) Total() int { return len(l.Topics) * l.Partitions }

// At returns the topic and the partition in it.
func (l Layout) At(p int) (topic string, partition int32) {
	return l.Topics[p/l.Partitions], int32(p % l.Partitions)
}

// Index is the opposite of At, -1 for a topic that is none of the layout's.
func (l Layout) Index(topic string, partition int32) int {
	for i, t := range l.Topics {
		if t == topic {
			return i*l.Partitions + int(partition)
		}
	}
	return -1
}

// Description is what a report says about a system.
type Description struct {
	Version     string            `json:"version"`
	Replication int               `json:"replication_factor"`
	Quorum      int               `json:"quorum"`
	Fsync       string            `json:"fsync"` // when an acknowledgement is given
	Acks        string            `json:"acks"`
	Nodes       int               `json:"nodes"`
	Own         bool              `json:"own_cluster"` // started for this run
	Bound       string            `json:"bound,omitempty"`
	Settings    map[string]string `json:"settings,omitempty"`
	// KeepsData is false for a bound that writes over its own data: nothing can be read back.
	KeepsData bool `json:"keeps_data"`
}

// Heater is a System that is slow at first, such as one on a JVM: the harness loads it for that long before anything counts.
type Heater interface {
	HeatFor() time.Duration
}

// Remover is a System that can remove topics, so that heating it does not fill the disk.
type Remover interface {
	Remove(ctx context.Context, l Layout) error
}

// Faults is a System whose nodes can be stopped and started again.
type Faults interface {
	// LeaderOf returns the number of the node that leads a partition, from 0.
	LeaderOf(ctx context.Context, l Layout, partition int) (int, error)
	// Kill ends a node with SIGKILL, Stop asks it to end, Restart starts it again and returns when it serves.
	Kill(node int) error
	Stop(ctx context.Context, node int) error
	Restart(ctx context.Context, node int) error
}
