package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// Severity says what a finding means.
type Severity string

// Severities.
const (
	// Damage: bytes are not what was written, or not there, or nobody knows whose they are.
	Damage Severity = "damage"
	// Note: what a crash, an unfinished deletion or the like leaves, and the next start sees to.
	Note Severity = "note"
)

// Finding is something that Verify found.
type Finding struct {
	Severity Severity `json:"severity"`
	Log      string   `json:"log,omitempty"`  // partition and replica
	File     string   `json:"file,omitempty"` // relative to the data directory
	Position int64    `json:"position"`       // in the file; -1: it is about all of it
	First    int64    `json:"firstOffset"`    // the records that it is about: [First, Next); both -1 if it is about none
	Next     int64    `json:"nextOffset"`
	Text     string   `json:"text"`
}

// Result is what one log came to.
type Result struct {
	Log      string `json:"log"`
	Start    int64  `json:"startOffset"`
	Next     int64  `json:"nextOffset"`
	Segments int    `json:"segments"`
	Batches  int64  `json:"batches"`
	Bytes    int64  `json:"bytes"`
	Damage   int    `json:"damage"`
}

// Report is the result of Verify.
type Report struct {
	Dir      string    `json:"dir"`
	Stopped  bool      `json:"stoppedInOrder"`
	Frames   int       `json:"journalFrames"`
	Logs     []Result  `json:"logs"`
	Findings []Finding `json:"findings"`
}

// Damaged is how many findings are damage.
func (r *Report) Damaged() (n int) {
	for _, f := range r.Findings {
		if f.Severity == Damage {
			n++
		}
	}
	return n
}

// Options of Verify. The zero value reads the machine's file system.
type Options struct {
	FS       disk.FS
	PebbleFS vfs.FS
	// Begin is told how many bytes will be read, Read of each piece of them.
	Begin func(total int64)
	Read  func(bytes int64)
}

func (o *Options) fill() {
	if o.FS == nil {
		o.FS = disk.NewBuffered()
	}
	o.FS = disk.ReadOnly(o.FS)
	if o.Begin == nil {
		o.Begin = func(int64) {}
	}
	if o.Read == nil {
		o.Read = func(int64) {}
	}
}

// Verify reads everything below a data directory that no node has open, and compares it with what it should be. An error says that it
// could not, which is no finding: but for what no start could open either.
func Verify(ctx context.Context, dir string, o Options) (*Report, error) {
	o.fill()
	v := &verifier{ctx: ctx, o: o, dir: dir, report: &Report{Dir: dir, Findings: []Finding{}, Logs: []Result{}}}
	image, err := wal.ReadImage(ctx, dir, o.FS, o.PebbleFS)
	if errors.Is(err, wal.ErrDamagedRecords) {
		v.find(Damage, "meta", -1, err.Error())
		return v.report, nil
	}
	if err != nil {
		return nil, err
	}
	v.image = image
	v.report.Stopped, v.report.Frames = image.Stopped, image.Frames
	v.journal()
	if err := v.directories(); err != nil {
		return nil, err
	}
	var total int64
	for i := range image.Logs {
		for _, sg := range image.Logs[i].Segments {
			total += int64(sg.End)
		}
	}
	o.Begin(total)
	for i := range image.Logs {
		if err := v.log(&image.Logs[i]); err != nil {
			return nil, err
		}
	}
	return v.report, nil
}

type verifier struct {
	ctx    context.Context
	o      Options
	dir    string
	image  *wal.Image
	report *Report

	l      *wal.ImageLog // under way
	result Result
	epoch  int // of l.Epochs
	reader batch.Reader
}

func (v *verifier) find(s Severity, file string, position int64, text string) {
	v.add(Finding{Severity: s, File: file, Position: position, First: -1, Next: -1, Text: text})
}

func (v *verifier) add(f Finding) {
	if v.l != nil {
		f.Log = v.name()
		if f.Severity == Damage {
			v.result.Damage++
		}
	}
	v.report.Findings = append(v.report.Findings, f)
}

func (v *verifier) name() string { return fmt.Sprintf("%s.%d", v.l.Name, v.l.Replica) }

func (v *verifier) journal() {
	for _, d := range v.image.JournalDamage {
		text := d
		if v.image.Stopped {
			text += "; the node was stopped in order, and its next start does not need it"
		}
		v.find(Damage, "journal", -1, text)
	}
	if v.image.Torn {
		v.find(Note, "journal", -1, "the last frame is torn, as a crash leaves it: nobody was told that it was written")
	}
	if v.image.Unvouched > 0 && !v.image.Stopped {
		v.find(Note, "journal", -1, fmt.Sprintf("the last %d frames were perhaps not acknowledged: the next start makes them durable", v.image.Unvouched))
	}
}

// directories looks for what belongs to no log, and for what is missing.
func (v *verifier) directories() error {
	names, err := v.o.FS.List(path.Join(v.dir, "logs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		whole, deleting := strings.CutSuffix(name, "-delete")
		switch {
		case v.image.Dirs[name]:
		case deleting:
			v.find(Note, path.Join("logs", name), -1, fmt.Sprintf("the deletion of %s is not complete: the next start completes it", whole))
		default:
			v.find(Damage, path.Join("logs", name), -1, "it belongs to no log that the records know: no start looks at it")
		}
	}
	return nil
}

func (v *verifier) log(l *wal.ImageLog) error {
	v.l, v.epoch = l, 0
	v.result = Result{Log: v.name(), Start: int64(l.Start.Offset), Next: int64(l.Next), Segments: len(l.Segments)}
	defer func() {
		v.report.Logs = append(v.report.Logs, v.result)
		v.l = nil
	}()
	if l.Deleting {
		return nil
	}
	if l.Refused != "" {
		v.add(Finding{Severity: Damage, File: path.Join("logs", l.Dir), Position: -1, First: int64(l.Start.Offset), Next: int64(l.Next),
			Text: "the next start refuses this replica: " + l.Refused})
	}
	dir := path.Join(v.dir, "logs", l.Dir)
	names, err := v.o.FS.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	found, wanted := make(map[string]bool), make(map[string]bool)
	for _, name := range names {
		found[name] = true
	}
	next := cursor{index: l.Start.Index + 1, offset: l.Start.Offset}
	for i := range l.Segments {
		sg := &l.Segments[i]
		wanted[sg.Key.Log()], wanted[sg.Key.Index()] = true, true
		if err := v.segment(sg, found, &next); err != nil {
			return err
		}
	}
	if next.offset != l.Next {
		v.find(Damage, path.Join("logs", l.Dir), -1, fmt.Sprintf("the rows end at offset %d, the log at %d", next.offset, l.Next))
	}
	for _, name := range names {
		if wanted[name] {
			continue
		}
		if _, ok := segment.ParseName(name); ok && l.Refused != "" {
			v.find(Note, path.Join("logs", l.Dir, name), -1,
				"no segment has this file; what a refused replica has is left alone until it is deleted")
		} else if ok {
			v.find(Note, path.Join("logs", l.Dir, name), -1, "no segment has this file: the next start removes it")
		} else {
			v.find(Damage, path.Join("logs", l.Dir, name), -1, "a foreign file")
		}
	}
	return v.ctx.Err()
}

// cursor is where the next row has to begin.
type cursor struct {
	index   id.Index
	offset  id.Offset
	pos     id.Position
	maxTime int64
}

// segment checks the files of a segment against each other and against the image.
func (v *verifier) segment(sg *wal.ImageSegment, found map[string]bool, next *cursor) error {
	next.pos, next.maxTime = 0, -1
	logName := path.Join("logs", v.l.Dir, sg.Key.Log())
	indexName := path.Join("logs", v.l.Dir, sg.Key.Index())
	log, ok, err := v.open(logName, found[sg.Key.Log()], sg.Watermark > 0 || sg.Sealed)
	if err != nil {
		return err
	}
	if log != nil {
		defer log.close()
		ok = v.length(sg, logName, log)
	}
	index, indexOK, err := v.open(indexName, found[sg.Key.Index()], sg.Indexed > sg.First || sg.Sealed)
	if err != nil {
		return err
	}
	if index != nil {
		defer index.close()
		want := int64(sg.Indexed-sg.First) * segment.RowSize
		if index.size < want || sg.Sealed && index.size != want {
			v.find(Damage, indexName, index.size, fmt.Sprintf("it has %d bytes of rows, and should have %d", index.size, want))
			indexOK = index.size >= want
		}
	}
	if !indexOK { // without rows the batches still stand one behind the other
		v.walk(sg, logName, log, next)
		return v.ctx.Err()
	}
	v.rows(sg, log, ok, index, next)
	return v.ctx.Err()
}

// rows checks the rows of a segment, and the batches and control entries that they are of; batches not, if logOK does not say that there
// is a file to look at.
func (v *verifier) rows(sg *wal.ImageSegment, log *source, logOK bool, index *source, next *cursor) {
	logName, indexName := path.Join("logs", v.l.Dir, sg.Key.Log()), path.Join("logs", v.l.Dir, sg.Key.Index())
	for i := sg.First; i <= sg.Last && v.ctx.Err() == nil; i++ {
		row, rowPos, err := v.row(sg, index, i)
		if err == nil {
			err = v.follows(sg, &row, next)
		}
		if err != nil {
			v.add(Finding{Severity: Damage, File: indexName, Position: rowPos, First: int64(next.offset), Next: int64(next.offset),
				Text: fmt.Sprintf("row of entry %d: %v", i, err)})
			v.walk(sg, logName, log, next)
			return
		}
		if row.Length > 0 && logOK {
			v.batch(sg, logName, log, &row)
		} else if row.Length == 0 {
			if got := segment.Checksum(v.l.Control(i)); got != row.Checksum {
				v.find(Damage, "meta", -1, fmt.Sprintf("control entry %d has checksum %08x, its row says %08x", i, got, row.Checksum))
			}
		}
		*next = cursor{index: i + 1, offset: row.NextOffset(), pos: row.End(), maxTime: row.MaxTimestamp}
	}
	if next.pos != sg.End && v.ctx.Err() == nil {
		v.find(Damage, indexName, -1, fmt.Sprintf("the rows end at position %d, the segment at %d", next.pos, sg.End))
	}
}

// open opens a file that may be missing if it is not needed.
func (v *verifier) open(name string, found, needed bool) (*source, bool, error) {
	if !found {
		if needed {
			v.find(Damage, name, -1, "the file is missing")
		}
		return nil, !needed, nil
	}
	s, err := openSource(v.o.FS, path.Join(v.dir, name))
	switch {
	case err == nil:
		return s, true, nil
	case disk.Unreadable(err) || disk.BadPath(err):
		v.find(Damage, name, -1, err.Error())
		return nil, false, nil
	}
	return nil, false, err
}

// length checks the length of a .log, and what lies behind what it has to hold.
func (v *verifier) length(sg *wal.ImageSegment, name string, log *source) bool {
	w := int64(sg.Watermark)
	switch {
	case log.size < w:
		v.find(Damage, name, log.size, fmt.Sprintf("the file ends at %d, it has to hold %d bytes", log.size, w))
	case sg.Sealed && log.size != int64(sg.End):
		v.find(Damage, name, int64(sg.End), fmt.Sprintf("the sealed file has %d bytes instead of %d", log.size, sg.End))
	case log.size > w && !sg.Sealed && !log.zeros(w) && !v.image.Stopped:
		v.find(Note, name, w, fmt.Sprintf("%d bytes beyond what was synced are not looked at: journal and cut have what belongs there", log.size-w))
	}
	return true
}

// row returns the row of an entry, and its position in the .index, -1 for one that journal or cut have.
func (v *verifier) row(sg *wal.ImageSegment, index *source, i id.Index) (row segment.Row, pos int64, err error) {
	if i >= sg.Indexed {
		if n := int(i - sg.Indexed); n < len(sg.Rows) {
			return sg.Rows[n], -1, nil
		}
		return row, -1, errors.New("neither the index nor the cut has it")
	}
	pos = int64(i-sg.First) * segment.RowSize
	b, err := index.bytes(pos, segment.RowSize)
	if err != nil {
		return row, pos, err
	}
	if err = row.Parse(b); err == nil && segment.StoredOwner(b) != segment.OwnerOf(v.l.Group, v.l.Replica) {
		err = errors.New("it is of another log: were files exchanged?")
	}
	return row, pos, err
}

// follows checks that a row is the one that follows, of the term that its entry has.
func (v *verifier) follows(sg *wal.ImageSegment, row *segment.Row, next *cursor) error {
	for v.epoch+1 < len(v.l.Epochs) && v.l.Epochs[v.epoch+1].First <= row.Index {
		v.epoch++
	}
	batch := wal.EntryKind(row.Kind) == wal.KindBatch
	switch {
	case row.Index != next.index || row.Offset != next.offset || row.Position != next.pos:
		return fmt.Errorf("it is of entry %d at offset %d, position %d; entry %d at offset %d, position %d follows",
			row.Index, row.Offset, row.Position, next.index, next.offset, next.pos)
	case batch != (row.Length > 0) || batch != (row.Records > 0):
		return fmt.Errorf("%v with %d bytes and %d records", wal.EntryKind(row.Kind), row.Length, row.Records)
	case row.End() > sg.End:
		return fmt.Errorf("it ends at %d, the segment at %d", row.End(), sg.End)
	case row.MaxTimestamp < next.maxTime:
		return fmt.Errorf("the largest timestamp falls from %d to %d", next.maxTime, row.MaxTimestamp)
	case v.epoch < len(v.l.Epochs) && row.Term != v.l.Epochs[v.epoch].Term:
		return fmt.Errorf("it is of term %d, the log says %d", row.Term, v.l.Epochs[v.epoch].Term)
	}
	return nil
}

// batch checks the bytes of a row.
func (v *verifier) batch(sg *wal.ImageSegment, name string, log *source, row *segment.Row) {
	v.o.Read(int64(row.Length))
	v.result.Batches++
	v.result.Bytes += int64(row.Length)
	bad := func(s Severity, text string) {
		where := name
		if row.Position >= sg.Watermark {
			where = "meta"
		}
		v.add(Finding{Severity: s, File: where, Position: int64(row.Position), First: int64(row.Offset), Next: int64(row.NextOffset()), Text: text})
	}
	b, err := v.bytes(sg, log, row)
	if err != nil {
		bad(Damage, err.Error())
		return
	}
	if err := checkBatch(row, b); err != nil {
		bad(Damage, err.Error())
		return
	}
	v.reader.Reset(b, batch.DefaultLimit)
	for v.reader.Next() {
	}
	if err := v.reader.Err(); err != nil { // its checksum is right: it was sent like this
		bad(Note, "the batch is as it was sent, and its records cannot be read: "+err.Error())
	}
}

// bytes returns the bytes of a row, from the file below the watermark and from journal or cut above it.
func (v *verifier) bytes(sg *wal.ImageSegment, log *source, row *segment.Row) (batch.Batch, error) {
	from, to, w := row.Position, row.End(), sg.Watermark
	if from >= w {
		if int64(to-w) > int64(len(sg.Tail)) {
			return nil, errors.New("neither file nor journal nor cut has the batch")
		}
		return batch.Batch(sg.Tail[from-w : to-w]), nil
	}
	if log == nil {
		return nil, errors.New("the file is missing")
	}
	head, err := log.bytes(int64(from), int64(min(to, w)-from))
	if err != nil || to <= w {
		return head, err
	}
	if int64(to-w) > int64(len(sg.Tail)) {
		return nil, errors.New("journal and cut do not have the end of the batch")
	}
	return append(append(make([]byte, 0, row.Length), head...), sg.Tail[:to-w]...), nil
}

// checkBatch compares a batch with its row.
func checkBatch(row *segment.Row, b batch.Batch) error {
	if err := batch.Check(b); err != nil {
		return err
	}
	switch got := segment.Checksum(b[:batch.PrefixSize]); {
	case got != row.Checksum:
		return fmt.Errorf("the row says checksum %08x of what stands before the batch's own, it is %08x", row.Checksum, got)
	case b.BaseOffset() != row.Offset || b.LastOffset()+1 != row.NextOffset():
		return fmt.Errorf("the batch has the offsets [%d, %d], its row [%d, %d)", b.BaseOffset(), b.LastOffset(), row.Offset, row.NextOffset())
	case b.Epoch() != id.EpochOf(row.Term):
		return fmt.Errorf("the batch is of epoch %d, its row of term %d", b.Epoch(), row.Term)
	case b.MaxTimestamp() > row.MaxTimestamp:
		return fmt.Errorf("the batch has a timestamp %d above the %d of its row", b.MaxTimestamp(), row.MaxTimestamp)
	}
	return nil
}

// walk checks the batches of a file whose rows are not to be had, from next on, as far as they can be told apart.
func (v *verifier) walk(sg *wal.ImageSegment, name string, log *source, next *cursor) {
	end := next.offset
	defer func() {
		// What follows is compared with the next segment's own beginning.
		next.index, next.offset = sg.Last+1, end
		for i := range v.l.Segments {
			if s := &v.l.Segments[i]; s == sg && i+1 < len(v.l.Segments) {
				next.offset = v.l.Segments[i+1].Key.Base
			} else if s == sg {
				next.offset = v.l.Next
			}
		}
	}()
	if log == nil {
		return
	}
	for pos := int64(next.pos); pos < int64(sg.Watermark); {
		if pos+batch.HeaderSize > int64(sg.Watermark) {
			return
		}
		head, err := log.bytes(pos, batch.HeaderSize)
		if err != nil {
			v.find(Damage, name, pos, err.Error())
			return
		}
		size, err := batch.Size(head)
		if err != nil || pos+size > int64(sg.End) {
			v.add(Finding{Severity: Damage, File: name, Position: pos, First: int64(end), Next: int64(v.l.Next), Text: "no batch begins here"})
			return
		}
		if pos+size > int64(sg.Watermark) {
			return
		}
		b, err := log.bytes(pos, size)
		if err == nil {
			err = batch.Check(b)
		}
		v.o.Read(size)
		v.result.Batches++
		v.result.Bytes += size
		if err != nil {
			v.add(Finding{Severity: Damage, File: name, Position: pos, First: int64(end), Next: int64(end), Text: err.Error()})
			return
		}
		if base := batch.Batch(b).BaseOffset(); base != end {
			v.add(Finding{Severity: Damage, File: name, Position: pos, First: int64(end), Next: int64(base), Text: fmt.Sprintf("offset %d instead of %d", base, end)})
		}
		end = batch.Batch(b).LastOffset() + 1
		pos += size
	}
}
