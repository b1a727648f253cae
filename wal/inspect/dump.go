package inspect

import (
	"errors"
	"path"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// Batches calls visit for each batch of a .log, in order, with its position and what is wrong with it: nil, or the error of batch.Check.
// It goes on behind a batch that does not check, as long as its header says where it ends. It returns the position after the last one, and how
// many bytes come behind it: zeros of space that was taken ahead, or what only somebody knows who has the records of the node.
func Batches(fsys disk.FS, name string, visit func(pos int64, b batch.Batch, bad error) error) (end, behind int64, err error) {
	s, err := openSource(disk.ReadOnly(fsys), name)
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	for end+batch.HeaderSize <= s.size {
		head, err := s.bytes(end, batch.HeaderSize)
		if err != nil {
			return end, s.size - end, err
		}
		size, err := batch.Size(head)
		if err != nil || end+size > s.size {
			break
		}
		b, err := s.bytes(end, size)
		if err != nil {
			return end, s.size - end, err
		}
		if err := visit(end, batch.Batch(b), batch.Check(b)); err != nil {
			return end, s.size - end, err
		}
		end += size
	}
	return end, s.size - end, nil
}

// Rows calls visit for each row of an .index, with its position, and the error of one that does not check. What fills up the last block are
// no rows.
func Rows(fsys disk.FS, name string, visit func(pos int64, row *segment.Row, bad error) error) error {
	s, err := openSource(disk.ReadOnly(fsys), name)
	if err != nil {
		return err
	}
	defer s.close()
	for pos := int64(0); pos+segment.RowSize <= s.size; pos += segment.RowSize {
		b, err := s.bytes(pos, segment.RowSize)
		if err != nil {
			return err
		}
		var row segment.Row
		err = row.Parse(b)
		if err != nil && s.zeros(pos) {
			return nil
		}
		if err := visit(pos, &row, err); err != nil {
			return err
		}
	}
	return nil
}

// Segments returns the .log files of a log's directory, by base offset.
func Segments(fsys disk.FS, dir string) ([]segment.Key, error) {
	names, err := fsys.List(dir) // sorted, which is the order of their offsets
	if err != nil {
		return nil, err
	}
	var keys []segment.Key
	for _, name := range names {
		if key, ok := segment.ParseName(name); ok && key.Log() == name {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// LogDirs returns the directories of the logs in a data directory; ErrNoDirectory when it is none.
func LogDirs(fsys disk.FS, dir string) ([]string, error) {
	names, err := fsys.List(path.Join(dir, "logs"))
	if err != nil {
		return nil, errors.Join(ErrNoDirectory, err)
	}
	for i := range names {
		names[i] = path.Join(dir, "logs", names[i])
	}
	return names, nil
}

// ErrNoDirectory says that a directory is not a node's data directory.
var ErrNoDirectory = errors.New("this is no data directory of a node")

// Distribution is of the sizes of things, in bytes.
type Distribution struct {
	Min  int64   `json:"min"`
	Mean float64 `json:"mean"`
	P50  int64   `json:"p50"`
	P99  int64   `json:"p99"`
	Max  int64   `json:"max"`
}

// Stats is what the files of one log hold.
type Stats struct {
	Log            string           `json:"log"`
	Segments       int              `json:"segments"`
	Bytes          int64            `json:"bytes"`
	Batches        int64            `json:"batches"`
	BadBatches     int64            `json:"badBatches"`
	Records        int64            `json:"records"`
	First          int64            `json:"firstOffset"` // -1: there are no records
	Next           int64            `json:"nextOffset"`
	MinTimestamp   int64            `json:"minTimestamp"` // ms; -1: none
	MaxTimestamp   int64            `json:"maxTimestamp"`
	Codecs         map[string]int64 `json:"codecs"`      // batches of each
	Compression    float64          `json:"compression"` // bytes of records for one byte of them stored
	BatchBytes     Distribution     `json:"batchBytes"`
	Producers      int              `json:"producers"`      // with an id
	ControlEntries int64            `json:"controlEntries"` // in the indexes
}

// Collect reads the files of one log: its directory, or one .log alone.
func Collect(fsys disk.FS, name string) (Stats, error) {
	c := collector{fsys: fsys, producers: make(map[id.Producer]bool), sizes: newSizes()}
	c.stats = Stats{Log: path.Base(name), First: -1, MinTimestamp: -1, MaxTimestamp: -1, Codecs: make(map[string]int64)}
	info, err := fsys.Stat(name)
	if err != nil {
		return c.stats, err
	}
	if !info.Dir {
		err = c.segment(name)
		return c.finish(), err
	}
	keys, err := Segments(fsys, name)
	for _, key := range keys {
		err = errors.Join(err, c.segment(path.Join(name, key.Log())))
		if _, e := fsys.Stat(path.Join(name, key.Index())); e == nil {
			err = errors.Join(err, Rows(fsys, path.Join(name, key.Index()), func(_ int64, row *segment.Row, bad error) error {
				if bad == nil && row.Length == 0 {
					c.stats.ControlEntries++
				}
				return nil
			}))
		}
	}
	return c.finish(), err
}
