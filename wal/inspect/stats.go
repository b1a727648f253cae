package inspect

import (
	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// newSizes counts sizes of batches, to two digits.
func newSizes() *hdrhistogram.Histogram { return hdrhistogram.New(1, 1<<31, 2) }

type collector struct {
	fsys           disk.FS
	stats          Stats
	producers      map[id.Producer]bool
	sizes          *hdrhistogram.Histogram
	stored, opened int64 // bytes of records, as they are stored and when they are opened
	reader         batch.Reader
}

func (c *collector) segment(name string) error {
	c.stats.Segments++
	_, _, err := Batches(c.fsys, name, func(_ int64, b batch.Batch, bad error) error {
		c.batch(b, bad)
		return nil
	})
	return err
}

func (c *collector) batch(b batch.Batch, bad error) {
	s := &c.stats
	s.Batches++
	s.Bytes += int64(len(b))
	if bad != nil {
		s.BadBatches++
		return
	}
	_ = c.sizes.RecordValue(int64(len(b))) // those out of its range are none that a node stores
	if s.First < 0 {
		s.First = int64(b.BaseOffset())
	}
	s.Next = int64(b.LastOffset()) + 1
	s.Records += int64(b.Count())
	s.Codecs[b.Compression().String()]++
	if p := b.Producer(); p >= 0 {
		c.producers[p] = true
	}
	c.reader.Reset(b, batch.DefaultLimit)
	for c.reader.Next() {
		if ts := c.reader.Record().Timestamp; ts >= 0 {
			if s.MinTimestamp < 0 || ts < s.MinTimestamp {
				s.MinTimestamp = ts
			}
			s.MaxTimestamp = max(s.MaxTimestamp, ts)
		}
	}
	if c.reader.Err() == nil {
		c.stored += int64(len(b.Payload()))
		c.opened += int64(c.reader.Size())
	}
}

func (c *collector) finish() Stats {
	s := &c.stats
	s.Producers = len(c.producers)
	if c.stored > 0 {
		s.Compression = float64(c.opened) / float64(c.stored)
	}
	if c.sizes.TotalCount() > 0 {
		s.BatchBytes = Distribution{
			Min: c.sizes.Min(), Mean: c.sizes.Mean(), P50: c.sizes.ValueAtQuantile(50), P99: c.sizes.ValueAtQuantile(99), Max: c.sizes.Max(),
		}
	}
	return *s
}
