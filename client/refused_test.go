package client_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestBadTimestampFailsAlone: a node refuses the whole batch; the records beside the bad ones are written, once and in order.
func TestBadTimestampFailsAlone(t *testing.T) {
	const limit = 1_000_000
	for _, tt := range []struct {
		name string
		acks client.Acks
		bad  func(i int) int64 // 0: good, else by how much it is too late
	}{
		{"one", client.AcksAll, func(i int) int64 { return []int64{0, 1}[min(i%50, 51)/49] }},
		{"the first and the last", client.AcksAll, func(i int) int64 { return map[int]int64{0: 5, 99: 5}[i%100] }},
		{"a run", client.AcksAll, func(i int) int64 { return map[bool]int64{true: 7}[i%100 > 40 && i%100 < 60] }},
		{"of all kinds", client.AcksAll, func(i int) int64 { return int64(max(0, i%7-4) * (i%5 + 1)) }},
		{"all", client.AcksAll, func(i int) int64 { return int64(1 + i%3) }},
		{"with acks of the leader", client.AcksLeader, func(i int) int64 { return map[int]int64{17: 5}[i%100] }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster, c := newCluster(t, 1)
			cluster.CreateTopic("test", 1, nil)
			cluster.SetFault(func(_ id.TopicPartition, b batch.Batch) clienttest.Fault {
				if b.MaxTimestamp() > limit {
					return clienttest.RejectTime
				}
				return clienttest.None
			})
			o := client.ProducerOptions{Acks: tt.acks, Linger: time.Millisecond, BatchBytes: 2000}
			if tt.acks != client.AcksAll {
				o.MaxInFlight = 1 // nothing else keeps the order without idempotence
			}
			p := newProducer(t, c, o)
			a := newAcks()
			var good, all []string
			for i := range 300 {
				v := fmt.Sprintf("%06d", i)
				r := client.Record{Topic: "test", Partition: client.At(0), Key: []byte("k" + v), Value: []byte(v), Timestamp: int64(1 + i)}
				if late := tt.bad(i); late > 0 {
					r.Timestamp = limit + late
				} else {
					good = append(good, v)
				}
				all = append(all, v)
				require.NoError(t, p.Produce(testContext(t), r, a.callback(v)))
			}
			require.NoError(t, p.Flush(testContext(t)))
			require.Equal(t, good, slices.Clone(a.ok[tp("test", 0)]))
			require.Equal(t, good, cluster.Values(tp("test", 0)))
			require.Equal(t, all, a.order, "callbacks out of order")
			for v, err := range a.failed {
				var refused *client.RecordError
				require.True(t, errors.As(err, &refused), err)
				require.Equal(t, "k"+v, string(refused.Key))
				require.Greater(t, refused.Timestamp, int64(limit))
				require.ErrorIs(t, err, &kerr.Error{Code: kerr.InvalidTimestamp})
			}
			checkDelivery(t, cluster, a, "test", 1)
		})
	}
}

// TestOldTimestampFailsAlone: a node refuses the batch for its first record, and says what is old enough. One that says so of a batch which is not
// too old is taken to mean the largest timestamp: it must end.
func TestOldTimestampFailsAlone(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	requests := 0
	cluster.SetFault(func(_ id.TopicPartition, b batch.Batch) clienttest.Fault {
		if requests++; b.BaseTimestamp() < clienttest.OldestTime || b.MaxTimestamp() > 2000 {
			return clienttest.RejectOld
		}
		return clienttest.None
	})
	p := newProducer(t, c, client.ProducerOptions{Linger: 100 * time.Millisecond})
	a := newAcks()
	var good []string
	for i := range 300 {
		v := fmt.Sprintf("%06d", i)
		r := client.Record{Topic: "test", Partition: client.At(0), Value: []byte(v), Timestamp: 1000}
		switch {
		case i < 100 || i > 200 && i%2 == 0:
			r.Timestamp = int64(1 + i)
		case i == 150:
			r.Timestamp = 3000
		default:
			good = append(good, v)
		}
		require.NoError(t, p.Produce(testContext(t), r, a.callback(v)))
	}
	require.NoError(t, p.Flush(testContext(t)))
	require.Equal(t, good, cluster.Values(tp("test", 0)))
	require.Equal(t, good, a.ok[tp("test", 0)])
	for _, err := range a.failed {
		require.ErrorIs(t, err, client.ErrInvalidRecord)
	}
	require.Less(t, requests, 60)
	checkDelivery(t, cluster, a, "test", 1)
}

// TestRefusedForItsTimestampOnceItMayBeWritten: nodes look at timestamps first, each by its own clock. The batch must not go again in parts.
func TestRefusedForItsTimestampOnceItMayBeWritten(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{Linger: 100 * time.Millisecond}) // the three go as one batch
	produceAll(t, p, "test", 0, 1)
	came := 0
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
		came++
		return []clienttest.Fault{clienttest.DropAfter, clienttest.RejectTime, clienttest.None}[min(came-1, 2)]
	})
	a := newAcks()
	for i := range 3 {
		v := fmt.Sprintf("w%d", i)
		r := client.Record{Topic: "test", Partition: client.At(0), Value: []byte(v), Timestamp: int64(1 + i)}
		require.NoError(t, p.Produce(testContext(t), r, a.callback(v)))
	}
	require.NoError(t, p.Flush(testContext(t)))
	checkDelivery(t, cluster, a, "test", 1)
	require.NotEmpty(t, a.failed)
	for v, err := range a.failed {
		require.ErrorIs(t, err, client.ErrUnacknowledged, v)
		require.ErrorIs(t, err, client.ErrInvalidRecord, v)
	}
}

// TestAllTimestampsAreBad, and all different: it is told soon.
func TestAllTimestampsAreBad(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	requests := 0
	cluster.SetFault(func(_ id.TopicPartition, b batch.Batch) clienttest.Fault {
		if requests++; b.MaxTimestamp() > 1000 {
			return clienttest.RejectTime
		}
		return clienttest.None
	})
	p := newProducer(t, c, client.ProducerOptions{Linger: 100 * time.Millisecond})
	a := newAcks()
	const n = 5000
	for i := range n {
		v := fmt.Sprintf("%06d", i)
		r := client.Record{Topic: "test", Partition: client.At(0), Value: []byte(v), Timestamp: int64(1001 + i)}
		if i == n/2 {
			r.Timestamp = 1
		}
		require.NoError(t, p.Produce(testContext(t), r, a.callback(v)))
	}
	require.NoError(t, p.Flush(testContext(t)))
	require.Len(t, a.failed, n-1)
	require.Equal(t, []string{fmt.Sprintf("%06d", n/2)}, cluster.Values(tp("test", 0)))
	require.Less(t, requests, 100)
}
