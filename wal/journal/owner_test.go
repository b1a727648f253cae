package journal

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

const testFileBytes = 16 * disk.BlockSize

// owner is what package wal is to the journal, as small as can be: it keeps FileInfos in a map that survives crashes.
type owner struct {
	t    testing.TB
	fs   disk.FS
	opts Options

	mu        sync.Mutex
	live      map[string]FileInfo
	completed Seq
	refuse    error // what Register returns
	epochs    map[uint64]string

	j      *Journal
	frame  Frame
	prev   Seq
	res    Replayed
	frames []StoredFrame // replayed and vouched; payloads are copies
	// unvouched are the frames that nobody vouched for, with payloads that stay.
	unvouched []StoredFrame
}

func newOwner(t testing.TB, fs disk.FS) *owner {
	return &owner{
		t: t, fs: fs, opts: Options{FileBytes: testFileBytes}, live: map[string]FileInfo{}, epochs: map[uint64]string{},
	}
}

// store puts infos into the map, checking that nobody gets an epoch that was used before.
func (o *owner) store(infos ...FileInfo) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range infos {
		parsed, err := ParseFileInfo(i.Append(nil))
		if err != nil || parsed != i {
			o.t.Errorf("%v does not survive its encoding: %v", i, err)
		}
		use := fmt.Sprint(i.Name, " ", i.Number)
		if was, ok := o.epochs[i.Epoch]; ok && was != use {
			o.t.Errorf("epoch of %v was that of %v", i, was)
		}
		o.epochs[i.Epoch] = use
		o.live[i.Name] = i
	}
}

func (o *owner) register(i FileInfo) error {
	o.mu.Lock()
	refuse := o.refuse
	o.mu.Unlock()
	if d, ok := o.fs.(*disksim.Disk); ok && d.Halted() {
		return disksim.ErrHalted
	}
	if refuse == nil {
		o.store(i)
	}
	return refuse
}

func (o *owner) setRefuse(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuse = err
}

func (o *owner) infos() []FileInfo {
	o.mu.Lock()
	defer o.mu.Unlock()
	var infos []FileInfo
	for _, i := range o.live {
		infos = append(infos, i)
	}
	return infos
}

// open recovers: what was found unvouched is kept whole.
func (o *owner) open() error {
	o.opts.Register = o.register
	o.frames, o.res, o.j = nil, Replayed{}, nil
	r, err := Open(o.fs, "journal", o.infos(), o.opts)
	if err != nil {
		return err
	}
	defer func() {
		if o.j == nil {
			r.Close()
		}
	}()
	if o.res, err = r.Replay(o.completed, func(f *StoredFrame) error {
		o.frames = append(o.frames, cloneFrame(f))
		return nil
	}); err != nil {
		return err
	}
	o.frame.Reset()
	o.unvouched = nil
	for i := range o.res.Unvouched {
		o.unvouched = append(o.unvouched, cloneFrame(&o.res.Unvouched[i]))
		addAll(&o.frame, o.res.Unvouched[i].Records)
	}
	done, err := r.Restart(&o.frame)
	if err != nil {
		return err
	}
	if d, ok := o.fs.(*disksim.Disk); ok && d.Halted() {
		return disksim.ErrHalted
	}
	o.restarted(done)
	o.j, err = r.Start()
	return err
}

// restarted is the batch after Restart.
func (o *owner) restarted(done Restarted) {
	o.store(done.Live...)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range done.Dropped {
		delete(o.live, i.Name)
	}
	if len(o.live) != len(done.Live) {
		o.t.Errorf("%d files are live, Restart said %d", len(o.live), len(done.Live))
	}
	o.completed, o.prev = done.Completed, done.Completed
}

func cloneFrame(f *StoredFrame) StoredFrame {
	c := *f
	c.Records = slices.Clone(f.Records)
	for i := range c.Records {
		c.Records[i].Payload = slices.Clone(c.Records[i].Payload)
	}
	return c
}

func (o *owner) mustOpen() {
	o.t.Helper()
	if err := o.open(); err != nil {
		o.t.Fatal(err)
	}
}

func (o *owner) reopen() {
	o.t.Helper()
	o.close()
	o.mustOpen()
}

func (o *owner) close() {
	o.t.Helper()
	if o.j == nil {
		return
	}
	if err := o.j.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.j = nil
}

func (o *owner) write(records ...Record) (Written, error) {
	o.frame.Reset()
	addAll(&o.frame, records)
	return o.j.Write(&o.frame, o.prev)
}

// round commits one round.
func (o *owner) round(records ...Record) Written {
	o.t.Helper()
	w, err := o.write(records...)
	if err == nil {
		err = o.j.Sync()
	}
	if err != nil {
		o.t.Fatal(err)
	}
	o.prev = w.Seq
	return w
}

func (o *owner) retire(covered Seq) int {
	o.t.Helper()
	r := o.j.Retirable(covered)
	o.mu.Lock()
	for _, i := range r.Remove {
		delete(o.live, i.Name)
	}
	o.mu.Unlock()
	o.store(r.Put...)
	if err := o.j.Retire(r); err != nil {
		o.t.Fatal(err)
	}
	return len(r.Remove)
}

// awaitSpare waits until the preparer has nothing to do.
func (o *owner) awaitSpare() {
	o.t.Helper()
	o.await("spare files", func() bool { return o.j.Metrics().SpareFiles == max(o.opts.SpareFiles, 2) })
}

func (o *owner) await(what string, cond func() bool) {
	o.t.Helper()
	if !poll(cond) {
		o.t.Fatalf("no %s after 10 s: %+v, %v", what, o.j.Metrics(), o.j.Err())
	}
}

func (o *owner) records() []Record {
	var all []Record
	for _, f := range o.frames {
		all = append(all, f.Records...)
	}
	return all
}

func entry(g id.Group, n int, fill byte) Record {
	p := make([]byte, n)
	for i := range p {
		p[i] = fill
	}
	return Record{Kind: KindEntry, Group: g, Replica: id.Replica(g * 10), Payload: p}
}

func mustFail(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
