package push

import (
	"encoding/binary"
	"errors"
	"fmt"

	"storj.io/drpc"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcstream"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/wal/batch"
)

// The names of the streams on the wire. On the first, the client sends messages and the server answers each with an empty one.
// On the second, the client sends nothing and the server all messages that it keeps.
const (
	rpcStore = "/push/Store"
	rpcPush  = "/push/Push"
)

// messageBytes is the size of a message at most, unless one record alone is larger: as much as quorumlog packs into one.
const messageBytes = 256 << 10

// A message is the number of a partition, 4 bytes little-endian, and one batch.
const messageHead = 4

func appendHead(dst []byte, partition int) []byte {
	return binary.LittleEndian.AppendUint32(dst, uint32(partition))
}

// visitMessage visits the records of a message.
func visitMessage(message []byte, r *batch.Reader, partitions int, visit func(bench.Message)) error {
	if len(message) < messageHead {
		return fmt.Errorf("push: a message of %d bytes", len(message))
	}
	partition := int(binary.LittleEndian.Uint32(message))
	if partition >= partitions {
		return fmt.Errorf("push: a message for partition %d of %d", partition, partitions)
	}
	for r.Reset(message[messageHead:], batch.DefaultLimit); r.Next(); {
		record := r.Record()
		visit(bench.Message{Partition: partition, Offset: int64(r.Offset()), Key: record.Key, Value: record.Value})
	}
	return r.Err()
}

// managerOptions are drpc's settings on both sides: those of quorumlog's own streams, see package rpc. They are repeated and not
// shared, so that nothing that slows quorumlog down slows its bound down with it.
func managerOptions() drpcmanager.Options {
	return drpcmanager.Options{
		WriterBufferSize: 64 << 10,
		Reader:           drpcwire.ReaderOptions{MaximumBufferSize: 16 << 20},
		Stream:           drpcstream.Options{MaximumBufferSize: messageBytes},
	}
}

// rawStream is what drpc's streams can do beyond drpc.Stream: messages without an encoding.
type rawStream interface {
	drpc.Stream
	RawWrite(drpcwire.Kind, []byte) error
	RawFlush() error
}

// transmit writes one message that does not wait for more.
func transmit(st rawStream, message []byte) error {
	if err := st.RawWrite(drpcwire.KindMessage, message); err != nil {
		return err
	}
	return st.RawFlush()
}

// receive waits for a message and hands it to f while drpc still holds its buffer: what f wants to keep, it copies.
func receive(st drpc.Stream, f func([]byte) error) error { return st.MsgRecv(onMessage(f), callback{}) }

type onMessage func([]byte) error

// callback is the encoding of messages that have none.
type callback struct{}

func (callback) Marshal(drpc.Message) ([]byte, error) { return nil, errors.New("push: raw stream") }

func (callback) Unmarshal(b []byte, m drpc.Message) error { return m.(onMessage)(b) }
