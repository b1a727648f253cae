package batch

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/id"
)

// kafkasRecords are the records in testdata/kafka-4.3.1-*.batch, which the Java client (MemoryRecordsBuilder of kafka-clients
// 4.3.1, with its default settings) wrote once for each codec: producer 4242, epoch 7, base sequence 100.
func kafkasRecords() []Record {
	records := make([]Record, 40)
	for i := range records {
		r := &records[i]
		r.OffsetDelta = int32(i)
		r.Timestamp = 1729289700308 + int64(i%7)
		if i%3 != 0 {
			r.Key = fmt.Appendf(nil, "key-%d", i)
		}
		if i%5 != 4 {
			r.Value = fmt.Appendf(nil, "value number %d of forty, as the Java client writes it", i)
		}
		if i%4 == 0 {
			r.Headers = []Header{{"trace", fmt.Appendf(nil, "t%d", i)}, {"none", nil}}
		}
	}
	return records
}

func kafkasBatch(t *testing.T, c Compression) Batch {
	b, err := os.ReadFile(filepath.Join("testdata", "kafka-4.3.1-"+c.String()+".batch"))
	require.NoError(t, err)
	return b
}

// TestReadKafkas: what the Java client writes passes the broker's checks and reads as what was written. For snappy that is the
// xerial framing; for zstd a window of 2 MiB, which a limit of a few KiB must not be confused by.
func TestReadKafkas(t *testing.T) {
	plain := kafkasBatch(t, None)
	for _, c := range allCodecs {
		t.Run(c.String(), func(t *testing.T) {
			b := kafkasBatch(t, c)
			require.NoError(t, CheckProduce(b, len(b)))
			require.Equal(t, c, b.Compression())
			require.Equal(t, id.Producer(4242), b.Producer())
			require.Equal(t, id.ProducerEpoch(7), b.ProducerEpoch())
			require.Equal(t, id.Sequence(139), b.LastSequence())
			var r Reader
			r.Reset(b, len(plain)-HeaderSize)
			var got []Record
			for _, record := range r.All() {
				got = append(got, clone(record))
			}
			require.NoError(t, r.Err())
			require.Equal(t, kafkasRecords(), got)
		})
	}
}

// TestBuildKafkas: the same records give the same bytes as the Java client's.
func TestBuildKafkas(t *testing.T) {
	var b Builder
	for _, r := range kafkasRecords() {
		b.Append(r)
	}
	got, err := b.Finish(nil, Trailer{Producer: 4242, ProducerEpoch: 7, BaseSequence: 100})
	require.NoError(t, err)
	require.Equal(t, kafkasBatch(t, None), got)
}
