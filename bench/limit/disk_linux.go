package limit

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// diskFile is one file of a layout. One goroutine uses it.
type diskFile struct {
	f       *os.File
	layout  Layout
	at      int64 // where the next frame goes
	size    int64 // allocated
	growing sync.WaitGroup
	grown   chan error
	pieces  [][]byte
}

func openDisk(layout Layout, name string) (*diskFile, error) {
	flags := os.O_RDWR | os.O_CREATE | os.O_EXCL
	if layout == Log {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, err
	}
	d := &diskFile{f: f, layout: layout}
	if layout == Log {
		d.size = aheadBytes
		return d, unix.Fallocate(int(f.Fd()), 0, 0, aheadBytes)
	}
	zero := make([]byte, 1<<20)
	for at := int64(0); at < journalBytes; at += int64(len(zero)) {
		if _, err := f.WriteAt(zero, at); err != nil {
			return nil, err
		}
	}
	return d, f.Sync()
}

// openDirect opens a file to be read past the page cache.
func openDirect(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
}

// commit writes frames one after the other and syncs them.
func (d *diskFile) commit(frames []*buffer) error {
	d.pieces = d.pieces[:0]
	total := int64(0)
	for _, b := range frames {
		piece := b.frame()
		if d.layout == Log {
			n := (b.n + blockBytes - 1) &^ (blockBytes - 1)
			clear(b.b[b.n:n])
			piece = b.b[:n]
		}
		d.pieces = append(d.pieces, piece)
		total += int64(len(piece))
	}
	if err := d.room(total); err != nil {
		return err
	}
	for pieces := d.pieces; len(pieces) > 0; {
		n := min(len(pieces), 1024)
		if err := d.write(pieces[:n]); err != nil {
			return err
		}
		pieces = pieces[n:]
	}
	return unix.Fdatasync(int(d.f.Fd()))
}

func (d *diskFile) write(pieces [][]byte) error {
	want := 0
	for _, p := range pieces {
		want += len(p)
	}
	n, err := unix.Pwritev(int(d.f.Fd()), pieces, d.at)
	if err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("%d of %d bytes written", n, want)
	}
	d.at += int64(n)
	return nil
}

// room recycles a journal, and allocates a log's next part in the background.
func (d *diskFile) room(n int64) error {
	if d.layout == Journal {
		if d.at+n > journalBytes {
			d.at = 0
		}
		return nil
	}
	if d.grown == nil && d.at+n > d.size-aheadBytes/2 {
		d.grown = make(chan error, 1)
		size, grown := d.size, d.grown
		d.growing.Go(func() { grown <- unix.Fallocate(int(d.f.Fd()), 0, size, aheadBytes) })
	}
	if d.grown == nil {
		return nil
	}
	if d.at+n <= d.size && len(d.grown) == 0 {
		return nil // it has time
	}
	err := <-d.grown
	d.grown = nil
	d.size += aheadBytes
	return err
}

func (d *diskFile) close() {
	d.growing.Wait()
	d.f.Close()
}
