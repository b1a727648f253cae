package journal

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// windowBytes is how much of a file is read at once.
const windowBytes = 4 << 20

// window is a piece of a file in memory. Frames that wait for somebody to vouch for them hold it.
type window struct {
	buf  []byte // aligned
	off  int64
	n    int
	held int
}

// storedFile is a live file as it is found.
type storedFile struct {
	info  FileInfo
	size  int64 // readable bytes, whole blocks, at most info.Bytes; 0 also if the file is missing
	file  disk.File
	first Seq   // sequence of its first frame, lost ones included; 0 if there is none or it is not known
	last  Seq   // of its last vouched frame; MaxSeq if what was lost after it is not known
	end   int64 // position after its last vouched frame, or the end of what was lost
	tail  int64 // position after its last frame, vouched or not
	used  bool  // a frame was seen in it
	bad   error // why some of it cannot be read, nil if all of it can
	got   bool  // some of it could be read
	// pooled: nothing was found in it, so it may be the fresh file, or is left in the pool.
	pooled bool
}

func (f *storedFile) ended() bool { return f.info.End >= 0 }

// limit is the position from which on nothing is read.
func (f *storedFile) limit() int64 {
	if f.ended() {
		return min(f.size, f.info.End)
	}
	return f.size
}

// pending is a frame, or a gap where frames are missing, of which it is not known yet whether it is vouched.
type pending struct {
	StoredFrame
	file    *storedFile
	start   int64
	end     int64
	win     *window
	missing bool // Damage says what is missing
}

// scan reads the live files in order. A frame is passed on as soon as it is vouched, which is usually when the header of the
// next one has been read.
//
//	files ─▶ find (header, or else the next header or footer behind a bad place) ─▶ take ─▶ waiting ─▶ flush ─▶ visit
type scan struct {
	fs     disk.FS
	dir    string
	files  []*storedFile
	visit  func(*StoredFrame) error
	res    Replayed
	expect Seq // sequence of the next frame; 0: not known
	// completed is what the owner vouches for.
	completed Seq
	vouched   Seq // every frame up to this is vouched
	highest   Seq // of all that were seen
	waiting   []pending
	win       *window
	free      []*window
	// gap is a loss at the end of a file, unless the next frame that is found is the expected one. Until then its last
	// sequence is not known.
	gap *pending
}

func (s *scan) run() error {
	for _, f := range s.files {
		if err := s.open(f); err != nil {
			return err
		}
		err := s.scanFile(f)
		if f.file != nil {
			err = errors.Join(err, f.file.Close())
			f.file = nil
		}
		if err != nil {
			return err
		}
	}
	if err := s.gotNothing(); err != nil {
		return err
	}
	return s.finish()
}

// gotNothing returns an error when the disk gave not one block of any file. That is no damage of places, for which replicas are refused
// for good, but a disk that does not answer, or is not there: a controller, a cable, a mount. It may be well the next time.
func (s *scan) gotNothing() error {
	var bad *storedFile
	for _, f := range s.files {
		if f.got {
			return nil
		}
		if f.bad != nil {
			bad = f
		}
	}
	if bad == nil {
		return nil
	}
	return fmt.Errorf("journal: the disk gives nothing of %d files, as of %s: %w: see whether it answers and is mounted, and start again: "+
		"nothing was changed; if they are lost, wipe the node so that it is rebuilt from its peers", len(s.files), bad.info.Name, bad.bad)
}

// open also finds out how much of the file there is.
func (s *scan) open(f *storedFile) error {
	if s.win != nil && s.win.held == 0 {
		s.free = append(s.free, s.win)
	}
	s.win = nil
	file, err := s.fs.OpenRead(path.Join(s.dir, f.info.Name))
	if errors.Is(err, iofs.ErrNotExist) || disk.Unreadable(err) || disk.BadPath(err) {
		f.bad = err
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: open for recovery: %w", err)
	}
	f.file = file
	size, err := file.Size()
	if disk.Unreadable(err) {
		f.bad = err
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: size of %s: %w", f.info.Name, err)
	}
	f.size = disk.RoundDown(min(size, f.info.Bytes))
	return nil
}

// reason says why something is missing of a file.
func (f *storedFile) reason(what string) string {
	if f.bad == nil {
		return what
	}
	return fmt.Sprintf("%s; the disk says: %v", what, f.bad)
}

func (s *scan) scanFile(f *storedFile) error {
	if f.info.First != 0 {
		s.closeGap(f.info.First - 1)
		s.expect = f.info.First
	}
	pos := int64(0)
	for pos < f.limit() {
		h, start, err := s.find(f, pos)
		if err != nil {
			return err
		}
		if h.seq == 0 {
			break
		}
		if err := s.take(f, &h, pos, start); err != nil {
			return err
		}
		pos = start + h.total
	}
	f.tail = pos
	switch {
	case f.ended() && pos < f.info.End:
		s.openGap(f, pos, "frames are missing below the recorded end of the file")
		s.closeGap(f.info.Last)
	case !f.ended() && f.size < f.info.Bytes:
		s.openGap(f, pos, fmt.Sprintf("the file has %d of %d bytes", f.size, f.info.Bytes))
	}
	return nil
}

// find returns the next frame from pos on; its sequence is 0 if there is none. start is above pos if something that cannot
// be read lies between.
func (s *scan) find(f *storedFile, pos int64) (header, int64, error) {
	for at := pos; at < f.limit(); at += disk.BlockSize {
		b, err := s.view(f, at, disk.BlockSize)
		if err != nil {
			return header{}, 0, err
		}
		h, start, ok := blockFrame(b, at, f.info.Epoch)
		if !ok || start < pos || h.seq < s.expect || start > pos && h.seq == s.expect {
			continue
		}
		if !f.ended() && f.size == f.info.Bytes && start+h.total > f.size || f.ended() && start+h.total > f.info.End {
			continue // no frame was ever written across the end
		}
		return h, start, nil
	}
	return header{}, 0, nil
}

// take adds the frame at start, and what is missing between pos and it, to those that wait.
func (s *scan) take(f *storedFile, h *header, pos, start int64) error {
	f.used = true
	s.highest = max(s.highest, h.seq)
	s.vouched = max(s.vouched, h.prevDurable)
	if f.ended() {
		s.vouched = max(s.vouched, h.seq)
	}
	if s.gap != nil && h.seq == s.expect {
		s.gap = nil // the file lost only what was never written
	}
	s.closeGap(h.seq - 1)
	if start > pos || s.expect != 0 && h.seq > s.expect {
		s.addGap(f, pos, start, h.seq-1)
	}
	if f.first == 0 {
		f.first = h.seq
	}
	s.expect = h.seq + 1
	b, err := s.view(f, start, min(h.total, f.limit()-start))
	if err != nil {
		return err
	}
	s.waiting = append(s.waiting, s.frame(f, h, start, b))
	s.win.held++
	return s.flush()
}

// frame decodes b.
func (s *scan) frame(f *storedFile, h *header, start int64, b []byte) pending {
	p := pending{file: f, start: start, end: start + h.total, win: s.win}
	p.Seq, p.File = h.seq, f.info.Number
	var lost []RecordKey
	var ok bool
	p.Records, lost, ok = decode(b, h, make([]Record, 0, min(int(h.count), len(b)/rowBytes)), nil)
	switch {
	case !ok:
		p.Damage = &Damage{All: true, Reason: f.reason("both copies of the record headers are bad")}
	case len(lost) > 0:
		p.Damage = &Damage{Records: lost, Reason: f.reason("payload checksum")}
	}
	if p.Damage != nil {
		p.Damage.First, p.Damage.Last, p.Damage.File, p.Damage.Offset = h.seq, h.seq, f.info.Name, start
	}
	return p
}

// addGap adds the loss of the frames between the expected one and last, which were somewhere from pos to start, or, if nothing
// lies between, at the end of the file before: there it is found again by the next recovery, whatever becomes of f.
func (s *scan) addGap(f *storedFile, pos, start int64, last Seq) {
	if before := s.lastUsed(f); start == 0 && before != nil && !before.ended() {
		f, pos, start = before, before.tail, before.info.Bytes
	}
	p := pending{file: f, start: pos, end: start, missing: true}
	p.File = f.info.Number
	p.Seq = max(s.expect, 1)
	p.Damage = &Damage{First: p.Seq, Last: max(last, p.Seq), All: true, File: f.info.Name, Offset: pos, Reason: f.reason("no frame can be read here")}
	if s.expect == 0 {
		p.Damage.Reason = f.reason("the first frames of the oldest file cannot be read")
	} else if f.first == 0 {
		f.first = p.Seq
	}
	s.waiting = append(s.waiting, p)
}

// lastUsed returns the last file before f, or of all, in which a frame was seen; nil if there is none.
func (s *scan) lastUsed(f *storedFile) *storedFile {
	var used *storedFile
	for _, g := range s.files {
		if g == f {
			break
		}
		if g.used {
			used = g
		}
	}
	return used
}

// openGap notes that frames may be missing from pos to the end of the file and perhaps further.
func (s *scan) openGap(f *storedFile, pos int64, reason string) {
	if s.gap != nil {
		return // that loss goes on
	}
	end := f.info.Bytes
	if f.ended() {
		end = f.info.End
	}
	p := pending{file: f, start: pos, end: end, missing: true}
	p.File, p.Seq = f.info.Number, max(s.expect, 1)
	p.Damage = &Damage{First: p.Seq, All: true, File: f.info.Name, Offset: pos, Reason: f.reason(reason)}
	if f.first == 0 {
		f.first = s.expect
	}
	s.gap = &p
}

// closeGap says that the open gap ends with the given sequence. A file that is too short, or ends before its end, is damage
// whoever vouches: nothing tears in this way.
func (s *scan) closeGap(last Seq) {
	if s.gap == nil {
		return
	}
	p := s.gap
	s.gap = nil
	p.Damage.Last = max(last, p.Seq)
	s.vouched = max(s.vouched, p.Seq)
	s.waiting = append(s.waiting, *p)
	s.expect = p.Damage.Last + 1
}

// flush passes on what is vouched.
func (s *scan) flush() error {
	n := 0
	for ; n < len(s.waiting) && s.waiting[n].Seq <= s.vouched; n++ {
		p := &s.waiting[n]
		if err := s.pass(p); err != nil {
			return err
		}
		s.drop(p)
	}
	s.waiting = s.waiting[:copy(s.waiting, s.waiting[n:])]
	return nil
}

func (s *scan) pass(p *pending) error {
	p.file.end = max(p.file.end, p.end)
	last := p.Seq
	if p.Damage != nil {
		last = p.Damage.Last
		s.res.Damage = append(s.res.Damage, p.Damage)
	}
	if p.file.last = last; last != MaxSeq {
		s.res.Last = last
	}
	if p.Damage == nil {
		s.res.Frames++
		s.res.Bytes += p.end - p.start
	}
	return s.visit(&p.StoredFrame)
}

// drop lets go of the frame's memory.
func (s *scan) drop(p *pending) {
	if p.win == nil {
		return
	}
	if p.win.held--; p.win.held == 0 && p.win != s.win {
		s.free = append(s.free, p.win)
	}
	p.win = nil
}

// finish decides about what nobody vouched for.
func (s *scan) finish() error {
	if s.gap != nil {
		s.closeGap(MaxSeq)
	} else if n := len(s.files); n > 0 && s.expect <= s.completed {
		f := s.lastUsed(nil)
		if f == nil || f.ended() {
			f = s.files[n-1]
		}
		s.openGap(f, f.tail, fmt.Sprintf("frames up to %d were complete", s.completed))
		s.closeGap(s.completed)
	}
	if err := s.flush(); err != nil {
		return err
	}
	for _, p := range s.waiting {
		if p.Damage != nil {
			s.res.Torn = true
			break
		}
		s.res.Unvouched = append(s.res.Unvouched, p.StoredFrame)
	}
	s.res.Last = max(s.res.Last, s.completed)
	s.waiting, s.win, s.free = nil, nil, nil
	return nil
}

// view returns n bytes of the file at pos, both multiples of the block size and inside the file. They stay valid as long as
// nothing else is viewed, or as the window is held.
func (s *scan) view(f *storedFile, pos, n int64) ([]byte, error) {
	w := s.win
	if w == nil || pos < w.off || pos+n > w.off+int64(w.n) {
		var err error
		if w, err = s.load(f, pos, n); err != nil {
			return nil, err
		}
	}
	at := pos - w.off
	return w.buf[at : at+n : at+n], nil
}

// load reads at least n bytes from pos into a window that nobody holds, and makes it the current one.
func (s *scan) load(f *storedFile, pos, n int64) (*window, error) {
	n = min(max(n, windowBytes), f.limit()-pos)
	w := s.win
	if w == nil || w.held > 0 {
		w = &window{}
		if k := len(s.free) - 1; k >= 0 {
			w, s.free = s.free[k], s.free[:k]
		}
	}
	if int64(len(w.buf)) < n {
		w.buf = disk.AlignedBytes(int(max(n, min(windowBytes, f.info.Bytes))))
	}
	w.off, w.n = pos, int(n)
	s.win = w
	got, err := f.file.ReadAt(w.buf[:n], pos)
	if disk.Unreadable(err) {
		got, err = f.readBlocks(w.buf[:n], pos)
	} else {
		f.got = true
	}
	if err != nil && !(errors.Is(err, io.EOF) && int64(got) == n) {
		return nil, fmt.Errorf("journal: reading %s at %d: %w: the disk does not give back what was written; have it checked, "+
			"or wipe the node so that it is rebuilt from its peers", f.info.Name, pos, err)
	}
	return w, nil
}

// readBlocks reads block by block what cannot be read at once. A block that cannot be read is as good as one of zeros: no frame begins or
// ends in it, and what a frame had there does not check. So it is damage of that place, and not the end of the journal.
func (f *storedFile) readBlocks(b []byte, pos int64) (int, error) {
	for at := 0; at < len(b); at += disk.BlockSize {
		block := b[at : at+disk.BlockSize]
		n, err := f.file.ReadAt(block, pos+int64(at))
		switch {
		case disk.Unreadable(err):
			clear(block)
			f.bad = fmt.Errorf("block at %d: %w", pos+int64(at), err)
		case err != nil && !(errors.Is(err, io.EOF) && n == len(block)):
			return at + n, err
		default:
			f.got = true
		}
	}
	return len(b), nil
}
