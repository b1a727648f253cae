package limit

import (
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/bench"
)

// packed writes records of all sizes into the files of a directory and checks their outcomes.
func packed(t *testing.T, partitions, records int) (dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the bounds are written for Linux")
	}
	dir = t.TempDir()
	written := make([]uint64, partitions)
	p, err := newPackProducer(dir, partitions, func(o bench.Outcome) {
		if o.Err != nil || o.First != written[o.Partition] || o.Offset != int64(o.First) {
			t.Errorf("%+v after %d records", o, written[o.Partition])
		}
		written[o.Partition] += uint64(o.Count)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := p.Send(t.Context(), i%partitions, []byte("key"), sized(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Send(t.Context(), 0, nil, make([]byte, frameBytes)); err == nil {
		t.Error("a record that is larger than a frame is accepted")
	}
	if err := errors.Join(p.Flush(t.Context()), p.Close()); err != nil {
		t.Fatal(err)
	}
	for partition, n := range written {
		if n != uint64(records/partitions) {
			t.Errorf("partition %d: %d records have an outcome", partition, n)
		}
	}
	return dir
}

// sized is a value of a size that its number decides.
func sized(i int) []byte {
	b := make([]byte, 8+i*7%5000)
	binary.BigEndian.PutUint64(b, uint64(i))
	return b
}

// TestChunksComeBack reads several chunks of each file, with fewer readers than files and with more.
func TestChunksComeBack(t *testing.T) {
	defer leaktest.AfterTest(t)()
	const partitions, records = 5, 5000
	dir := packed(t, partitions, records)
	for _, readers := range []int{1, 3, 7} {
		c := newChunkConsumer(dir, partitions, readers)
		seen := make([]int64, partitions)
		var err error
		for err == nil {
			err = c.Poll(t.Context(), func(m bench.Message) {
				number := int(m.Offset)*partitions + m.Partition
				if m.Offset != seen[m.Partition] || string(m.Value) != string(sized(number)) || string(m.Key) != "key" {
					t.Fatalf("partition %d, offset %d: %d bytes", m.Partition, m.Offset, len(m.Value))
				}
				seen[m.Partition]++
			})
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
		for partition, n := range seen {
			if n != records/partitions {
				t.Errorf("partition %d: %d records came back", partition, n)
			}
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestReadersEndWithTheirConsumer closes one whose readers wait to hand over what they have read, and one whose files are gone.
func TestReadersEndWithTheirConsumer(t *testing.T) {
	defer leaktest.AfterTest(t)()
	dir := packed(t, 3, 3000)
	c := newChunkConsumer(dir, 3, 2)
	if err := c.Poll(t.Context(), func(bench.Message) {}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c = newChunkConsumer(t.TempDir(), 3, 2)
	defer c.Close()
	if err := c.Poll(t.Context(), func(bench.Message) {}); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("files that are not there: %v", err)
	}
}

func TestReadTargetRefusesWhatItIsNoBoundOf(t *testing.T) {
	t.Parallel()
	for name, problem := range map[string]string{
		"max-12-partitions-1kb":     "bound of reading",
		"latency-12-partitions-1kb": "bound of reading",
		"catchup-12-partitions-1kb": "limit-push",
	} {
		w, err := bench.WorkloadNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := (ReadTarget{}).Check(bench.Setup{Workload: w}); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReadSystem goes the way of the harness, without the caches' being dropped.
func TestReadSystem(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the bounds are written for Linux")
	}
	w, err := bench.WorkloadNamed("catchup-cold-2-partitions-1kb")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadTarget{}.Start(t.Context(), bench.Setup{Workload: w, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	layout := bench.NewLayout("t", 1, 2)
	if err := s.Create(t.Context(), layout); err != nil {
		t.Fatal(err)
	}
	p, err := s.NewProducer(t.Context(), layout, func(bench.Outcome) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.Send(t.Context(), 1, nil, []byte("a")), p.Send(t.Context(), 1, nil, []byte("b")), p.Flush(t.Context()), p.Close()); err != nil {
		t.Fatal(err)
	}
	if ends, err := s.Ends(t.Context(), layout); err != nil || ends[0] != 0 || ends[1] != 2 {
		t.Errorf("the partitions end at %v, %v", ends, err)
	}
	c, err := s.NewConsumer(t.Context(), layout)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text := ""
	for err == nil {
		err = c.Poll(t.Context(), func(m bench.Message) { text += string(m.Value) })
	}
	if text != "ab" || s.Describe().Nodes != 0 || len(s.Processes()) != 0 {
		t.Errorf("read %q of %+v", text, s.Describe())
	}
}
