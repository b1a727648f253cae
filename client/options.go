package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
)

// Options configures a Client. Only Servers is required.
type Options struct {
	// Servers are host:port addresses of nodes. Any one that is alive is enough: it tells about all others.
	Servers []string
	// ClusterID, when set, is the id of the cluster: nodes of another one are not believed. Default: that of the first node that knows
	// a topic which is asked for.
	ClusterID string
	// ClientID names this client in the logs of the nodes.
	ClientID string
	// TLSFiles secures the connections with certificates in files, which are reread as they change.
	TLSFiles TLSFiles
	// TLS secures the connections, instead of TLSFiles. Its ServerName is that of each node's address unless it is set.
	TLS *tls.Config
	// Logger receives what the client notices about the cluster. Default: nothing is logged.
	Logger *slog.Logger
	// DialTimeout bounds the opening of one connection. Default 2 s.
	DialTimeout time.Duration
	// RequestTimeout bounds one request to one node; the call that needs it goes on until its context ends. Default 10 s.
	RequestTimeout time.Duration
	// MetadataMaxAge is after how long the metadata is fetched again without any reason. Default 5 min.
	MetadataMaxAge time.Duration
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	setDefault(&o.DialTimeout, 2*time.Second)
	setDefault(&o.RequestTimeout, 10*time.Second)
	setDefault(&o.MetadataMaxAge, 5*time.Minute)
	return o
}

// Validate reports the first setting that cannot work.
func (o Options) Validate() error {
	if len(o.Servers) == 0 {
		return errors.New("client: no servers: name at least one node as host:port")
	}
	for _, s := range o.Servers {
		if _, port, err := net.SplitHostPort(s); err != nil || port == "" {
			return fmt.Errorf("client: server %q is not host:port", s)
		}
	}
	return o.validateTLS()
}

// TLSFiles are PEM files for TLS. The zero value: none, the connections are not secured.
type TLSFiles struct {
	CA          string // of the authorities that have made the nodes' certificates; empty: those that the operating system believes
	Certificate string // that this client shows: its subject is who the client is, User:CN=alice. Empty: none
	Key         string // of Certificate
}

func (o Options) validateTLS() error {
	switch f := o.TLSFiles; {
	case o.TLS != nil && f != TLSFiles{}:
		return errors.New("client: TLS and TLSFiles are both set: choose one")
	case (f.Certificate == "") != (f.Key == ""):
		return errors.New("client: a certificate needs its key, and a key its certificate: name both files, or neither")
	}
	return nil
}

// DefaultMaxMessageBytes is the limit of a topic that does not set max.message.bytes.
const DefaultMaxMessageBytes = 1 << 20

// ProducerOptions configures a Producer. The zero value is the safe default: acks=all, idempotent, no linger.
type ProducerOptions struct {
	// Acks says when a record counts as written. Default AcksAll; anything less turns idempotence off.
	Acks Acks
	// Linger is how long a batch that is not full waits for more records. 0: it is sent as soon as the connection is free.
	Linger time.Duration
	// BatchBytes bounds a batch. Default and maximum 1 MiB; a topic's max.message.bytes lowers it.
	BatchBytes int
	// BufferBytes bounds the records that wait or are in flight; Produce blocks beyond it. Default 64 MiB.
	BufferBytes int64
	// MaxInFlight is how many batches of one partition may be unanswered. Default and, for idempotence, maximum 5: the nodes
	// remember that many batches of a producer.
	MaxInFlight int
	// DeliveryTimeout bounds the time from Produce to the outcome, retries included. Default 120 s.
	DeliveryTimeout time.Duration
	// Compression of the batches. Default none.
	Compression Compression
	// OnBatch, if set, is called once for every batch that has ended, after the callbacks of its records. It must not block.
	OnBatch func(BatchAck)
}

// Acks says when a record counts as written. Unlike rpc.Acks, its zero value is the safe one.
type Acks uint8

const (
	// AcksAll waits until the record is committed: on disk on a majority, and never lost from then on.
	AcksAll Acks = iota
	// AcksLeader waits for the leader's disk only. A failover may lose or repeat the record.
	AcksLeader
	// AcksNone does not wait at all.
	AcksNone
)

func (a Acks) wire() rpc.Acks {
	switch a {
	case AcksLeader:
		return rpc.AcksLeader
	case AcksNone:
		return rpc.AcksNone
	}
	return rpc.AcksAll
}

// String returns the value of Kafka's acks setting.
func (a Acks) String() string {
	switch a {
	case AcksLeader:
		return "1"
	case AcksNone:
		return "0"
	}
	return "all"
}

func (o ProducerOptions) withDefaults() ProducerOptions {
	setDefault(&o.BatchBytes, DefaultMaxMessageBytes)
	setDefault(&o.BufferBytes, 64<<20)
	setDefault(&o.MaxInFlight, maxInFlight)
	setDefault(&o.DeliveryTimeout, 120*time.Second)
	return o
}

// maxInFlight is how many batches of a producer a partition remembers.
const maxInFlight = 5

// Validate reports the first setting that cannot work.
func (o ProducerOptions) Validate() error {
	switch {
	case o.Acks > AcksNone:
		return fmt.Errorf("client: unknown acks %d: use AcksAll, AcksLeader or AcksNone", o.Acks)
	case o.Linger < 0:
		return fmt.Errorf("client: linger %v is negative", o.Linger)
	case o.BatchBytes < 0 || o.BatchBytes > DefaultMaxMessageBytes:
		return fmt.Errorf("client: batch bytes %d is outside 1..%d", o.BatchBytes, DefaultMaxMessageBytes)
	case o.BufferBytes < 0:
		return fmt.Errorf("client: buffer bytes %d is negative", o.BufferBytes)
	case o.MaxInFlight < 0, o.Acks == AcksAll && o.MaxInFlight > maxInFlight:
		return fmt.Errorf("client: %d batches in flight per partition: an idempotent producer may have 1..%d", o.MaxInFlight, maxInFlight)
	case o.DeliveryTimeout < 0:
		return fmt.Errorf("client: delivery timeout %v is negative", o.DeliveryTimeout)
	}
	return nil
}

// ConsumerOptions configures a Consumer.
type ConsumerOptions struct {
	// MaxBytes bounds the batches that the consumer holds, of all partitions together: what has come and Poll has not returned yet, and what
	// it returned last. A single batch may be larger. Default 32 MiB.
	MaxBytes int64
	// OnOutOfRange says what happens when the wanted offset does not exist. Default ResetNone.
	OnOutOfRange Reset
}

// Reset says where a consumer goes on when the offset it wants does not exist: Kafka's auto.offset.reset. No offset exists any more when the topic
// was deleted, even if one of the same name was created since.
type Reset uint8

const (
	// ResetNone lets Poll return an *OutOfRangeError, or ErrUnknownTopic for a topic that was deleted; the partition is then no longer assigned.
	ResetNone Reset = iota
	// ResetEarliest goes on at the first record that is still there.
	ResetEarliest
	// ResetLatest goes on behind the last committed record.
	ResetLatest
)

func (o ConsumerOptions) withDefaults() ConsumerOptions {
	setDefault(&o.MaxBytes, 32<<20)
	return o
}

// Validate reports the first setting that cannot work.
func (o ConsumerOptions) Validate() error {
	if o.MaxBytes < 0 {
		return fmt.Errorf("client: max bytes %d is negative", o.MaxBytes)
	}
	if o.OnOutOfRange > ResetLatest {
		return fmt.Errorf("client: unknown reset policy %d", o.OnOutOfRange)
	}
	return nil
}

// Offsets that stand for a place that only the partition's leader knows, as in Kafka's ListOffsets.
const (
	// End is the offset after the last committed record.
	End Offset = -1
	// Beginning is the offset of the first record that is still there.
	Beginning Offset = -2
	// AtTime is what Consumer.Assignment shows of a partition that AssignAtTime added, until the offset is known. Assign does not take it.
	AtTime Offset = -3
)

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
