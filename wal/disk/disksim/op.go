package disksim

import (
	"fmt"
	"io/fs"
)

// OpKind is a kind of operation.
type OpKind uint8

// The operations. Those up to OpSyncDir change something and count as steps.
const (
	OpCreate OpKind = iota
	OpMkdir
	OpRemove
	OpRename
	OpWrite
	OpTruncate
	OpPreallocate
	OpSync
	OpSyncDir
	OpOpen
	OpRead
)

var opNames = [...]string{"create", "mkdir", "remove", "rename", "write", "truncate", "preallocate", "sync", "syncdir", "open", "read"}

func (k OpKind) String() string { return opNames[k] }

// Op is an operation on the disk.
type Op struct {
	Kind   OpKind
	Name   string // cleaned, from the root: "/data/journal/1"
	New    string // of a rename
	Offset int64  // of reads and writes
	Bytes  int64  // of reads and writes; the size of truncates and preallocations
	Pebble bool   // on the file system for Pebble
}

func (o Op) String() string {
	s := o.Kind.String() + " " + o.Name
	if o.Pebble {
		s = "pebble " + s
	}
	switch o.Kind {
	case OpRename:
		s += " to " + o.New
	case OpWrite, OpRead:
		s += fmt.Sprintf(" [%d, %d)", o.Offset, o.Offset+o.Bytes)
	case OpTruncate, OpPreallocate:
		s += fmt.Sprintf(" to %d", o.Bytes)
	}
	return s
}

// how says how much of an operation is to be done.
type how uint8

const (
	whole  how = iota
	part       // a random part, of those that have parts
	failed     // an injected failure: what that leaves behind
)

// do runs an operation: hook, step count, crash. body runs with d.mu held and is told how much it should do; when the error
// of the operation is settled already, what body returns is ignored.
func (d *Disk) do(op Op, body func(how) error) (err error) {
	d.mu.Lock()
	hook, after := d.hook, d.after
	d.mu.Unlock()
	var injected error
	if hook != nil {
		injected = hook(op)
	}
	if after != nil {
		defer func() { after(op, err) }()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return ErrHalted
	}
	if op.Kind <= OpSyncDir {
		d.steps++
		if d.steps == d.crashAt {
			d.halt()
			switch d.rng.IntN(3) {
			case 0:
			case 1:
				_ = body(whole)
			case 2:
				_ = body(part)
			}
			return ErrHalted
		}
	}
	if injected != nil {
		_ = body(failed)
		return &fs.PathError{Op: op.Kind.String(), Path: op.Name, Err: injected}
	}
	return body(whole)
}
