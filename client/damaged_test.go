package client_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// testBatch has some records, the first of which has value n.
func testBatch(t *testing.T, n, records int, c batch.Compression) batch.Batch {
	t.Helper()
	var b batch.Builder
	for i := range records {
		b.Append(batch.Record{Timestamp: 1, Value: fmt.Appendf(make([]byte, 0, 2000), "%02000d", n+i)})
	}
	out, err := b.Finish(nil, batch.Plain(c))
	require.NoError(t, err)
	return out
}

// spoil writes rubbish over the records of a batch and gives it a good checksum.
func spoil(b batch.Batch) {
	for i := range b.Payload() {
		b.Payload()[i] = byte(i*7 + 3)
	}
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
}

// TestBatchesThatCannotBeRead: what is missing is said, and what follows is delivered.
func TestBatchesThatCannotBeRead(t *testing.T) {
	waits(t)
	for _, c := range []batch.Compression{batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			readAround(t, 3, func(n int, b batch.Batch) {
				if n == 1 {
					spoil(b)
				}
			}, c, nil)
		})
	}
	t.Run("checksum", func(t *testing.T) { readAround(t, 5, nil, batch.None, []int{0, 2, 4}) })
	t.Run("two in a row", func(t *testing.T) { readAround(t, 5, nil, batch.None, []int{1, 2}) })
}

// readAround reads a partition of batches of three records, some of which cannot be read. prepare changes a batch before it is written, and
// those that are listed are damaged afterwards.
func readAround(t *testing.T, batches int, prepare func(int, batch.Batch), c batch.Compression, corrupt []int) {
	t.Helper()
	cluster, cl := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	for n := range batches {
		b := testBatch(t, 3*n, 3, c)
		if prepare != nil {
			prepare(n, b)
		}
		cluster.Append(tp("test", 0), b)
	}
	for _, n := range corrupt {
		cluster.CorruptBatch(tp("test", 0), n)
	}
	k := newConsumer(t, cl, client.ConsumerOptions{})
	require.NoError(t, k.Assign(tp("test", 0), 0))
	ctx := testContext(t)
	next := id.Offset(0)
	missing := 0
	report := func(err error) {
		t.Helper()
		var lost *client.BatchError
		require.True(t, errors.As(err, &lost), err)
		require.Equal(t, [2]id.Offset{next, next + 3}, [2]id.Offset{lost.Offset, lost.Next}, err)
		next = lost.Next
		missing++
	}
	for next < id.Offset(3*batches) {
		f, err := k.Poll(ctx)
		if err != nil {
			require.ErrorIs(t, err, batch.ErrCorrupt)
			report(err)
			continue
		}
		for m, err := range f.Records() {
			if err != nil {
				report(err)
				continue
			}
			require.Equal(t, next, m.Offset)
			require.Equal(t, fmt.Sprintf("%02000d", int(next)), string(m.Value))
			next++
		}
	}
	require.Equal(t, max(len(corrupt), 1), missing)
	require.Equal(t, next, k.Assignment()[tp("test", 0)], "the partition goes on")
}
