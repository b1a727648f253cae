package journal

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
)

const (
	fileSuffix = ".journal"
	tempSuffix = ".preparing"
	// zeroStep is how much is zero-filled with one write, and syncStep between two syncs: written at once, tens of megabytes
	// would hold up the syncs of rounds.
	zeroStep = 256 << 10
	syncStep = 8 << 20
)

// file is an open journal file of a given epoch.
type file struct {
	disk.File
	info FileInfo
}

// directory makes files and recycles them. Any goroutine may use it.
type directory struct {
	fs        disk.FS
	name      string
	fileBytes int64

	mu struct {
		sync.Mutex // held for no I/O
		nextName   uint64
		pool       []string // files of fileBytes that are not live, with every block written at least once
		garbage    []string // files that are neither live nor of use
	}
}

func openDirectory(fs disk.FS, name string, live map[string]bool, fileBytes int64) (*directory, error) {
	if err := makeDir(fs, name); err != nil {
		return nil, fmt.Errorf("journal: make directory: %w", err)
	}
	names, err := fs.List(name)
	if err != nil {
		return nil, fmt.Errorf("journal: list directory: %w", err)
	}
	d := &directory{fs: fs, name: name, fileBytes: fileBytes}
	for n := range live {
		d.seen(n)
	}
	for _, n := range names {
		ours := d.seen(n)
		switch {
		case live[n] || !ours:
		case strings.HasSuffix(n, tempSuffix):
			d.put(n, 0)
		default:
			info, err := fs.Stat(path.Join(name, n))
			if err != nil && !disk.Unreadable(err) {
				return nil, fmt.Errorf("journal: %w", err)
			}
			d.put(n, info.Size)
		}
	}
	return d, nil
}

// seen tells whether the name is one of ours, and sees to it that no new file gets it.
func (d *directory) seen(name string) bool {
	stem, ok := strings.CutSuffix(name, fileSuffix)
	if !ok {
		if stem, ok = strings.CutSuffix(name, tempSuffix); !ok {
			return false
		}
	}
	n, err := strconv.ParseUint(stem, 10, 64)
	if err != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.nextName = max(d.mu.nextName, n)
	return true
}

// put adds a file of the given size that is live no longer to the pool, or to the garbage if its size is of no use.
func (d *directory) put(name string, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size == d.fileBytes {
		d.mu.pool = append(d.mu.pool, name)
	} else {
		d.mu.garbage = append(d.mu.garbage, name)
	}
}

func (d *directory) pooled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.pool)
}

// pop takes the last name out of a list of d.mu; it is empty if there is none.
func (d *directory) pop(list *[]string) (name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := len(*list) - 1; k >= 0 {
		name, *list = (*list)[k], (*list)[:k]
	}
	return name
}

// clean removes the garbage.
func (d *directory) clean() error {
	for {
		name := d.pop(&d.mu.garbage)
		if name == "" {
			return nil
		}
		if err := d.fs.Remove(path.Join(d.name, name)); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return fmt.Errorf("journal: %w", err)
		}
	}
}

// take returns a file of the given size with a new epoch: one of the pool, or else a new one. See create for pace.
func (d *directory) take(size int64, pace pace) (*file, error) {
	for size == d.fileBytes {
		name := d.pop(&d.mu.pool)
		if name == "" {
			break
		}
		f, err := d.fs.Open(path.Join(d.name, name))
		if errors.Is(err, iofs.ErrNotExist) || disk.Unreadable(err) {
			d.put(name, 0)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("journal: open a file of the pool: %w", err)
		}
		if n, err := f.Size(); err != nil || n != size {
			f.Close()
			d.put(name, 0)
			continue
		}
		return &file{File: f, info: FileInfo{Name: name, Epoch: newEpoch(), Bytes: size, End: -1}}, nil
	}
	return d.create(size, pace)
}

// create makes a file of which every block has been written, and its name and length synced. It gives up with ErrClosed when
// pace (nil: as fast as possible) says so, and leaves nothing behind when it fails.
func (d *directory) create(size int64, pace pace) (*file, error) {
	d.mu.Lock()
	d.mu.nextName++
	stem := path.Join(d.name, fmt.Sprintf("%08d", d.mu.nextName))
	d.mu.Unlock()
	f, err := d.fs.Create(stem + tempSuffix)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	err = zeroFill(f, size, pace)
	if err == nil {
		err = d.fs.Rename(stem+tempSuffix, stem+fileSuffix)
	}
	if err == nil {
		err = d.fs.SyncDir(d.name)
	}
	if err != nil {
		f.Close()
		d.fs.Remove(stem + tempSuffix) // best effort: the next start removes it too
		return nil, fmt.Errorf("journal: make a file of %d bytes: %w", size, err)
	}
	return &file{File: f, info: FileInfo{Name: path.Base(stem) + fileSuffix, Epoch: newEpoch(), Bytes: size, End: -1}}, nil
}

// zeroFill writes every block once: blocks that are only allocated cost the file system a transaction each when they are
// first written.
func zeroFill(f disk.File, size int64, pace pace) error {
	if err := f.Preallocate(size); err != nil {
		return err
	}
	zero := disk.AlignedBytes(int(min(size, zeroStep)))
	for at := int64(0); at < size; {
		begin := time.Now()
		n := min(size-at, zeroStep)
		if _, err := f.WriteAt(zero[:n], at); err != nil {
			return err
		}
		at += n
		if at%syncStep == 0 || at == size {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if pace != nil && !pace(time.Since(begin)) {
			return ErrClosed
		}
	}
	return nil
}

// pace is told how long a step of filling a file took, and returns when the next one may begin; false: it is to be given up.
type pace func(took time.Duration) bool
