package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/inspect"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func timeText(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func newLogDumpCommand(out *output) *cobra.Command {
	d := dump{fs: disk.NewBuffered(), out: out}
	cmd := &cobra.Command{
		Use:   "dump FILE|DIR",
		Short: "Print what is in a .log, an .index, a journal file, a log's directory or a data directory",
		Long: `Print what is in a .log, an .index, a journal file, a log's directory or a data directory. A .log is printed like Kafka's kafka-dump-log
does it. Of a data directory the identity and the records (cuts) come first, for which no node may run on it. With -o json there is one
object a line. In a directory, what is something else or cannot be read is named and passed over, and the exit code is 1.`,
		Args: oneArgument("file or directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := bufio.NewWriter(cmd.OutOrStdout())
			d.w = w
			err := d.any(cmd, path.Clean(args[0]))
			if errors.Is(err, errEnough) {
				err = nil
			}
			if err == nil && d.passed > 0 {
				err = exitError{exitFindings, fmt.Errorf("%d files or directories below %s were not dumped", d.passed, args[0])}
			}
			return errors.Join(err, w.Flush())
		},
	}
	cmd.Flags().BoolVar(&d.records, "records", false, "print the records too, with keys and values")
	cmd.Flags().IntVar(&d.most, "max-batches", 0, "`number` of batches, rows or frames of each file to print (0: all)")
	return cmd
}

// errEnough ends the dump of a file.
var errEnough = errors.New("enough")

var errOtherFile = errors.New("it is no .log, .index or .journal")

type dump struct {
	fs      disk.FS
	w       io.Writer
	out     *output
	records bool
	most    int
	printed int   // of the file
	passed  int   // files and directories that were passed over
	failed  error // nothing can be printed any more
}

// line prints one thing, as text or as an object.
func (d *dump) line(v map[string]any, format string, args ...any) (err error) {
	if d.out.json() {
		e := json.NewEncoder(d.w)
		e.SetEscapeHTML(false)
		err = e.Encode(v)
	} else {
		_, err = fmt.Fprintf(d.w, format+"\n", args...)
	}
	d.failed = errors.Join(d.failed, err)
	return err
}

// pass says why a file or directory is passed over, if it is: the others may be what somebody looks for.
func (d *dump) pass(name string, err error) error {
	if err == nil || d.failed != nil || errors.Is(err, errEnough) {
		return d.failed
	}
	d.passed++
	return d.line(map[string]any{"kind": "error", "file": name, "error": err.Error()}, "Passed over %s: %v", name, err)
}

func (d *dump) enough() error {
	if d.printed++; d.most > 0 && d.printed >= d.most {
		return errEnough
	}
	return nil
}

func (d *dump) any(cmd *cobra.Command, name string) error {
	info, err := d.fs.Stat(name)
	if err != nil {
		return err
	}
	if !info.Dir {
		if err = d.file(name); errors.Is(err, errOtherFile) {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return err
	}
	if _, err := inspect.LogDirs(d.fs, name); err == nil {
		return d.directory(cmd, name)
	}
	return d.files(name)
}

func (d *dump) files(dir string) error {
	names, err := d.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		name = path.Join(dir, name)
		if err := d.pass(name, d.file(name)); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) file(name string) error {
	d.printed = 0
	switch {
	case strings.HasSuffix(name, segment.LogSuffix):
		return d.log(name)
	case strings.HasSuffix(name, segment.IndexSuffix):
		return d.index(name)
	case strings.HasSuffix(name, ".journal"):
		return d.journal(name)
	}
	return errOtherFile
}

func (d *dump) log(name string) error {
	v, start := map[string]any{"kind": "file", "file": name}, ""
	if key, ok := segment.ParseName(path.Base(name)); ok { // else it was renamed, or is somebody else's
		v["startingOffset"], start = key.Base, fmt.Sprintf("\nLog starting offset: %d", key.Base)
	}
	if err := d.line(v, "Dumping %s%s", name, start); err != nil {
		return err
	}
	var r batch.Reader
	end, behind, err := inspect.Batches(d.fs, name, func(pos int64, b batch.Batch, bad error) error {
		if err := d.batch(pos, b, bad); err != nil {
			return err
		}
		if d.records {
			if err := d.printRecords(&r, b); err != nil {
				return err
			}
		}
		return d.enough()
	})
	if err == nil && behind > 0 {
		err = d.line(map[string]any{"kind": "behind", "position": end, "bytes": behind},
			"%d bytes from position %d on are no batches: space that was taken ahead, unless the node was stopped in order", behind, end)
	}
	return err
}

func (d *dump) batch(pos int64, b batch.Batch, bad error) error {
	a := b.Attributes()
	horizon := "OptionalLong.empty"
	if a&(1<<6) != 0 {
		horizon = fmt.Sprintf("OptionalLong[%d]", b.BaseTimestamp())
	}
	v := map[string]any{
		"kind": "batch", "position": pos, "baseOffset": b.BaseOffset(), "lastOffset": b.LastOffset(), "count": b.Count(), "baseSequence": b.BaseSequence(),
		"lastSequence": b.LastSequence(), "producerId": b.Producer(), "producerEpoch": b.ProducerEpoch(), "partitionLeaderEpoch": b.Epoch(),
		"isTransactional": a.Transactional(), "isControl": a.Control(), "timestampType": timestampType(b), "maxTimestamp": b.MaxTimestamp(),
		"size": len(b), "compresscodec": b.Compression().String(), "crc": b.CRC(), "isvalid": bad == nil,
	}
	return d.line(v, "baseOffset: %d lastOffset: %d count: %d baseSequence: %d lastSequence: %d producerId: %d producerEpoch: %d partitionLeaderEpoch: %d "+
		"isTransactional: %t isControl: %t deleteHorizonMs: %s position: %d %s: %d size: %d magic: 2 compresscodec: %s crc: %d isvalid: %t",
		b.BaseOffset(), b.LastOffset(), b.Count(), b.BaseSequence(), b.LastSequence(), b.Producer(), b.ProducerEpoch(), b.Epoch(),
		a.Transactional(), a.Control(), horizon, pos, timestampType(b), b.MaxTimestamp(), len(b), b.Compression(), b.CRC(), bad == nil)
}

func timestampType(b batch.Batch) string {
	if b.Attributes().LogAppendTime() {
		return "LogAppendTime"
	}
	return "CreateTime"
}

func (d *dump) printRecords(r *batch.Reader, b batch.Batch) error {
	for r.Reset(b, batch.DefaultLimit); r.Next(); {
		rec := r.Record()
		sequence := b.BaseSequence()
		if sequence >= 0 {
			sequence = sequence.Add(rec.OffsetDelta)
		}
		var headers []string
		for _, h := range rec.Headers {
			headers = append(headers, h.Key)
		}
		v := map[string]any{
			"kind": "record", "offset": r.Offset(), "timestamp": rec.Timestamp, "sequence": sequence, "headerKeys": headers,
			"key": encoded(rec.Key), "value": encoded(rec.Value),
		}
		line := fmt.Sprintf("| offset: %d %s: %d keySize: %d valueSize: %d sequence: %d headerKeys: [%s]", r.Offset(), timestampType(b), rec.Timestamp,
			sizeOf(rec.Key), sizeOf(rec.Value), sequence, strings.Join(headers, ","))
		if rec.Key != nil {
			line += " key: " + printable(rec.Key)
		}
		if rec.Value != nil {
			line += " payload: " + printable(rec.Value)
		}
		if err := d.line(v, "%s", line); err != nil {
			return err
		}
	}
	if err := r.Err(); err != nil {
		return d.line(map[string]any{"kind": "error", "error": err.Error()}, "| the records cannot be read: %v", err)
	}
	return nil
}

func sizeOf(b []byte) int {
	if b == nil {
		return -1
	}
	return len(b)
}

// encoded is a key or value in JSON: base64, null when there is none.
func encoded(b []byte) any {
	if b == nil {
		return nil
	}
	return base64.StdEncoding.EncodeToString(b)
}

// printable keeps bytes of strangers from ruling the terminal.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '.'
		}
		return r
	}, strings.ToValidUTF8(string(b), "."))
}

func (d *dump) index(name string) error {
	if err := d.line(map[string]any{"kind": "file", "file": name}, "Dumping %s", name); err != nil {
		return err
	}
	return inspect.Rows(d.fs, name, func(pos int64, r *segment.Row, bad error) error {
		if bad != nil {
			if err := d.line(map[string]any{"kind": "row", "at": pos, "error": bad.Error()}, "at: %d %v", pos, bad); err != nil {
				return err
			}
			return d.enough()
		}
		v := map[string]any{
			"kind": "row", "at": pos, "index": r.Index, "term": r.Term, "entry": wal.EntryKind(r.Kind).String(), "offset": r.Offset, "records": r.Records,
			"position": r.Position, "size": r.Length, "maxTimestamp": r.MaxTimestamp, "checksum": r.Checksum,
		}
		err := d.line(v, "at: %d index: %d term: %d entry: %s offset: %d records: %d position: %d size: %d maxTimestamp: %d checksum: %d",
			pos, r.Index, r.Term, wal.EntryKind(r.Kind), r.Offset, r.Records, r.Position, r.Length, r.MaxTimestamp, r.Checksum)
		if err != nil {
			return err
		}
		return d.enough()
	})
}

func (d *dump) journal(name string) error {
	if err := d.line(map[string]any{"kind": "file", "file": name}, "Dumping %s", name); err != nil {
		return err
	}
	return journal.Walk(disk.ReadOnly(d.fs), name, func(f *journal.WalkedFrame) error {
		v := map[string]any{
			"kind": "frame", "position": f.Position, "sequence": f.Seq, "prevDurable": f.PrevDurable, "size": f.Bytes, "use": f.Use, "records": len(f.Records),
			"lost": len(f.Lost), "isvalid": !f.Bad && len(f.Lost) == 0,
		}
		err := d.line(v, "position: %d sequence: %d prevDurable: %d size: %d use of the file: %d records: %d lost: %d isvalid: %t",
			f.Position, f.Seq, f.PrevDurable, f.Bytes, f.Use, len(f.Records), len(f.Lost), !f.Bad && len(f.Lost) == 0)
		for i := range f.Records {
			if err != nil || !d.records {
				break
			}
			r := &f.Records[i]
			v := map[string]any{"kind": "journalRecord", "group": r.Group, "replica": r.Replica, "size": len(r.Payload), "text": wal.DescribeRecord(r)}
			err = d.line(v, "| group: %d replica: %d size: %d %s", r.Group, r.Replica, len(r.Payload), wal.DescribeRecord(r))
		}
		if err != nil {
			return err
		}
		return d.enough()
	})
}

// directory dumps a whole data directory.
func (d *dump) directory(cmd *cobra.Command, dir string) error {
	lock, err := lockDirectory(dir)
	if err != nil {
		return fmt.Errorf("%w; single files can be dumped all the same", err)
	}
	defer func() { _ = lock.Close() }()
	for _, c := range node.LookAtIdentity(d.fs, dir) {
		v := map[string]any{"kind": "identity", "identity": c}
		if c.Err != nil {
			v["error"] = c.Err.Error()
			err = d.line(v, "identity: %s: %v", c.File, c.Err)
		} else {
			err = d.line(v, "identity: %s cluster: %s (%s) node: %d store: %s starts: %d revision: %d", c.File, c.Cluster, c.ClusterID, c.NodeID, c.StoreID, c.Boot, c.Revision)
		}
		if err != nil {
			return err
		}
	}
	if err := d.store(cmd.Context(), dir); err != nil {
		return err
	}
	dirs, err := inspect.LogDirs(d.fs, dir)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := d.pass(dir, d.files(dir)); err != nil {
			return err
		}
	}
	return nil
}

// store dumps what the store has noted, and the journal: of that the live files, or all if nobody can say which are.
func (d *dump) store(ctx context.Context, dir string) error {
	at := path.Join(dir, "journal")
	image, err := wal.ReadImage(ctx, dir, nil, nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return errors.Join(d.pass(path.Join(dir, "meta"), err), d.pass(at, d.files(at)))
	}
	if err := d.image(image); err != nil {
		return err
	}
	for _, f := range image.Files {
		name := path.Join(at, f.Name)
		if err := d.pass(name, d.file(name)); err != nil {
			return err
		}
	}
	return nil
}

func (d *dump) image(m *wal.Image) error {
	v := map[string]any{"kind": "store", "stopped": m.Stopped, "completed": m.Completed, "covered": m.Covered, "frames": m.Frames, "torn": m.Torn}
	err := d.line(v, "store: stopped in order: %t completed: %d covered: %d journal frames: %d torn: %t", m.Stopped, m.Completed, m.Covered, m.Frames, m.Torn)
	for i := range m.Logs {
		l := &m.Logs[i]
		v := map[string]any{
			"kind": "log", "log": l.Name, "directory": l.Dir, "group": l.Group, "replica": l.Replica, "start": l.Start, "hardState": l.HardState,
			"applied": l.Applied, "last": l.Last, "next": l.Next, "covered": l.Covered, "refused": l.Refused, "epochs": l.Epochs,
		}
		err = errors.Join(err, d.line(v, "log: %s directory: %s group: %d replica: %d start: index %d, term %d, offset %d last: %d next offset: %d term: %d vote: %d commit: %d "+
			"applied: %d covered: %d refused: %q", l.Name, l.Dir, l.Group, l.Replica, l.Start.Index, l.Start.Term, l.Start.Offset, l.Last, l.Next,
			l.HardState.Term, l.HardState.Vote, l.Commit, l.Applied, l.Covered, l.Refused))
		for _, sg := range l.Segments {
			v := map[string]any{"kind": "segment", "log": l.Name, "segment": sg.Key.String(), "sealed": sg.Sealed, "first": sg.First, "last": sg.Last, "watermark": sg.Watermark, "end": sg.End, "indexed": sg.Indexed}
			err = errors.Join(err, d.line(v, "| segment: %v sealed: %t index: %d-%d watermark: %d end: %d indexed below: %d", sg.Key, sg.Sealed, sg.First, sg.Last, sg.Watermark, sg.End, sg.Indexed))
		}
	}
	return err
}
