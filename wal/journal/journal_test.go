package journal

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

func poll(cond func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			return cond()
		}
	}
	return true
}

// Rounds over many files, restarts between them, on a real file system and on the simulated one.
func TestRoundTrip(t *testing.T) {
	for name, fs := range map[string]disk.FS{"sim": disksim.New(disksim.Options{}), "buffered": disk.NewBuffered()} {
		t.Run(name, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			if name != "sim" {
				t.Chdir(t.TempDir())
			}
			o := newOwner(t, fs)
			o.mustOpen()
			var want []Record
			var last Seq
			for i := range 60 {
				records := []Record{entry(id.Group(i), 100*i, byte(i)), {Kind: KindHardState, Group: id.Group(i), Replica: 1}}
				w := o.round(records...)
				if w.Seq <= last {
					t.Fatalf("sequence %d after %d", w.Seq, last)
				}
				last = w.Seq
				want = append(want, records...)
				if i%20 == 19 {
					o.reopen()
					// The frame that nobody vouched for was written anew, and is vouched for by Pebble.
					if len(o.res.Unvouched) != 1 || o.res.Torn || len(o.res.Damage) > 0 {
						t.Fatalf("replayed %+v", o.res)
					}
				}
			}
			o.reopen()
			if !sameRecords(o.records(), want) {
				t.Fatalf("%d of %d records came back", len(o.records()), len(want))
			}
			o.close()
		})
	}
}

// A round that is not synced, as those with nothing but commits, does not vouch for itself, and is vouched for with the next.
func TestUnsyncedRounds(t *testing.T) {
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.mustOpen()
	o.round(entry(1, 10, 'a'))
	synced := o.prev
	for range 3 {
		if _, err := o.write(Record{Kind: KindHardState, Group: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.j.Write(&o.frame, synced+1); !errors.Is(err, ErrInvalid) {
		t.Fatalf("an unsynced frame was called durable: %v", err)
	}
	o.reopen()
	if o.res.Last != synced || len(o.res.Unvouched) != 3 {
		t.Fatalf("last %d of %d, %d unvouched", o.res.Last, synced, len(o.res.Unvouched))
	}
	// A file whose frames are not all synced is not retired, whatever the owner says.
	synced = o.round().Seq
	for range 40 {
		if _, err := o.write(entry(1, 9000, 'x')); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range o.j.Retirable(MaxSeq).Remove {
		for _, s := range o.j.Files() {
			if s.Name == i.Name && s.Newest > synced {
				t.Errorf("%v would be retired", s)
			}
		}
	}
	o.close()
}

// A round that is written and synced at once makes those before it durable, too, that were only written: also one at the end of the file
// before.
func TestWriteSyncCoversWhatCameBefore(t *testing.T) {
	for seed := range uint64(40) {
		d := disksim.New(disksim.Options{Seed: seed})
		o := newOwner(t, d)
		o.mustOpen()
		o.awaitSpare()
		var want []Record
		var files []uint64
		for i, sync := range []bool{true, true, false, false, true} { // two to a file: the third is in one, the others in the next
			r := entry(id.Group(i+1), 6*disk.BlockSize, byte(i))
			want = append(want, r)
			commit, syncs := o.j.Write, o.j.Metrics().Syncs
			if sync {
				commit, syncs = o.j.WriteSync, syncs+1
			}
			o.frame.Reset()
			addAll(&o.frame, []Record{r})
			w, err := commit(&o.frame, o.prev)
			if err != nil {
				t.Fatal(err)
			}
			if n := o.j.Metrics().Syncs; n != syncs {
				t.Fatalf("%d syncs are counted, %d expected", n, syncs)
			}
			if files = append(files, w.File); sync {
				o.prev = w.Seq
			}
		}
		if files[2] == files[4] {
			t.Fatalf("the rounds that were only written are in the file of the one that was synced: %v", files)
		}
		crashed := d.Crash(disksim.PowerLoss)
		o.close()
		o.fs = crashed
		o.mustOpen()
		got := o.records()
		for _, f := range o.unvouched {
			got = append(got, f.Records...)
		}
		if !sameRecords(got, want) {
			t.Fatalf("seed %d: %d of %d records came back", seed, len(got), len(want))
		}
		o.close()
	}
}

// An error of the write that syncs is final, like any other; the frame does not count as durable.
func TestWriteSyncErrorsAreFinal(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o := newOwner(t, d)
	o.mustOpen()
	o.awaitSpare()
	broken := errors.New("medium error")
	d.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpSync {
			return broken
		}
		return nil
	})
	o.frame.Reset()
	addAll(&o.frame, []Record{entry(1, 100, 'a')})
	_, err := o.j.WriteSync(&o.frame, o.prev)
	mustFail(t, err, ErrFailed)
	mustFail(t, err, broken)
	d.SetHook(nil)
	mustFail(t, o.j.Sync(), broken)
	o.close()
}

func TestFrameLargerThanFile(t *testing.T) {
	defer leaktest.AfterTest(t)()
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.mustOpen()
	var want []Record
	for i := range 20 {
		n := 1000
		if i%3 == 2 {
			n = 3*testFileBytes + i
		}
		r := entry(id.Group(i), n, byte(i))
		o.round(r)
		want = append(want, r)
	}
	o.reopen()
	got := o.records()
	for _, f := range o.res.Unvouched {
		got = append(got, f.Records...)
	}
	if !sameRecords(got, want) {
		t.Fatalf("%d of %d records came back", len(got), len(want))
	}
	o.round(entry(1, 5*testFileBytes, 'z'))
	o.round(entry(1, 1, 'z'))
	if n := o.retire(o.prev - 1); n < 8 {
		t.Fatalf("%d files retired", n)
	}
	names, _ := o.fs.List("journal")
	for _, n := range names {
		if info, _ := o.fs.Stat("journal/" + n); info.Size > testFileBytes && o.live[n].Bytes != info.Size {
			t.Errorf("%s, %d bytes, is kept", n, info.Size)
		}
	}
	o.close()
}

// Recycled files are full of frames, older ones of the same journal: none of them may come back.
func TestRecycledFilesHoldNothing(t *testing.T) {
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.opts.SpareFiles = 1
	o.mustOpen()
	o.opts.SpareFiles = 2
	for lap := range 6 {
		for i := range 30 {
			o.round(entry(id.Group(lap), 3000, byte(i)))
		}
		o.retire(o.prev)
	}
	for _, s := range o.j.Files() {
		if !s.Current {
			t.Errorf("%v is still live", s)
		}
	}
	if m := o.j.Metrics(); m.PooledFiles > 6 || m.LiveFiles != 1 {
		t.Fatalf("%+v", m)
	}
	current := o.j.Files()[0]
	o.reopen()
	for _, f := range append(o.frames, o.res.Unvouched...) {
		if f.Seq < current.First || f.Records[0].Group != 5 {
			t.Errorf("frame %d of an earlier life came back", f.Seq)
		}
	}
	if got := Seq(len(o.frames) + len(o.res.Unvouched)); got != current.Newest-current.First+1 {
		t.Errorf("%d frames came back, want %d to %d", got, current.First, current.Newest)
	}
	o.close()
}

func TestRetirable(t *testing.T) {
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.mustOpen()
	var first []Seq // of each file
	for file := uint64(0); len(first) < 4; {
		if w := o.round(entry(1, 9000, 'x')); w.File != file {
			file, first = w.File, append(first, w.Seq)
		}
	}
	for covered, want := range map[Seq]int{0: 0, first[1] - 2: 0, first[1] - 1: 1, first[2] - 2: 1, first[3] - 1: 3, first[3]: 3, MaxSeq: 3} {
		r := o.j.Retirable(covered)
		if len(r.Remove) != want || (len(r.Put) == 1) != (want > 0) {
			t.Errorf("covered %d: %+v, want %d files", covered, r, want)
		}
		if want > 0 && r.Put[0].First != first[want] {
			t.Errorf("covered %d: the oldest file starts with %d, want %d", covered, r.Put[0].First, first[want])
		}
	}
	all := o.j.Retirable(MaxSeq)
	mustFail(t, o.j.Retire(Retirement{Remove: all.Remove[1:]}), ErrInvalid)
	if n := o.retire(first[2] - 1); n != 2 {
		t.Fatalf("%d files retired", n)
	}
	o.reopen()
	if o.frames[0].Seq != first[2] || len(o.res.Damage) > 0 {
		t.Fatalf("replay starts with %d, want %d; %v", o.frames[0].Seq, first[2], o.res.Damage)
	}
	o.close()
}

// A node that crashes whenever it starts must not eat up the disk.
func TestRestartsLeaveNothingBehind(t *testing.T) {
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.mustOpen()
	o.round(entry(1, 10, 'x'))
	o.reopen()
	o.reopen()
	o.awaitSpare()
	names, _ := o.fs.List("journal")
	for range 10 {
		o.reopen()
		o.awaitSpare()
	}
	if now, _ := o.fs.List("journal"); len(now) > len(names)+1 {
		t.Fatalf("%d files became %d", len(names), len(now))
	}
	if len(o.frames) != 1 || len(o.j.Files()) > 2 {
		t.Fatalf("%d frames in %d files", len(o.frames), len(o.j.Files()))
	}
	o.close()
}

func TestNoSpace(t *testing.T) {
	defer leaktest.AfterTest(t)()
	d := disksim.New(disksim.Options{})
	o := newOwner(t, d)
	o.mustOpen()
	o.awaitSpare()
	d.SetCapacity(1) // full
	rounds := 0
	for ; o.j.Room() > 2*testFileBytes; rounds++ {
		o.round(entry(1, 3000, 'x'))
	}
	if rounds != 16 {
		t.Fatalf("%d rounds fitted into the current file", rounds)
	}
	// Two spare files are good for two starts, and the last one for as many as there are if nothing is written.
	o.reopen()
	o.reopen()
	o.reopen()
	if o.res.Last == 0 || len(o.res.Damage) > 0 {
		t.Fatalf("%+v", o.res)
	}
	for rounds = 0; ; rounds++ {
		room := o.j.Room()
		w, err := o.write(entry(1, 3000, 'x'))
		if errors.Is(err, disk.ErrNoSpace) {
			if room >= disk.BlockSize {
				t.Fatalf("no space although there is room for %d bytes", room)
			}
			break
		}
		if err != nil || o.j.Sync() != nil {
			t.Fatal(err)
		}
		o.prev = w.Seq
	}
	if rounds != 16 {
		t.Fatalf("%d rounds fitted into the last file", rounds)
	}
	// An oversize frame fails the same way, and leaves nothing.
	_, err := o.write(entry(1, 2*testFileBytes, 'x'))
	mustFail(t, err, disk.ErrNoSpace)
	// Retired files make it possible to go on.
	if o.retire(MaxSeq) == 0 {
		t.Fatal("nothing was retired")
	}
	for range 20 {
		o.round(entry(1, 3000, 'x'))
	}
	d.SetCapacity(0)
	o.awaitSpare()
	o.close()
}

// TestLeftoversHoldNoSpace: starts that ended while they made a file left the space that it had taken. On a full disk the next start has
// it back, and needs it.
func TestLeftoversHoldNoSpace(t *testing.T) {
	defer leaktest.AfterTest(t)()
	d := disksim.New(disksim.Options{})
	o := newOwner(t, d)
	o.mustOpen()
	o.awaitSpare()
	f, err := d.Create("journal/00000099" + tempSuffix)
	if err != nil || f.Preallocate(testFileBytes) != nil || f.Close() != nil || d.SyncDir("journal") != nil {
		t.Fatal("the leftover cannot be made")
	}
	d.SetCapacity(d.Used())
	for err == nil { // all that is spare
		var w Written
		if w, err = o.write(entry(1, 3000, 'x')); err == nil && o.j.Sync() != nil {
			t.Fatal("sync")
		}
		o.prev = max(o.prev, w.Seq)
	}
	mustFail(t, err, disk.ErrNoSpace)
	o.reopen()
	o.round(entry(1, 3000, 'x'))
	o.close()
}

func TestRegisterWithoutSpaceIsTriedAgain(t *testing.T) {
	synctest.Test(t, registerWithoutSpace)
}

func registerWithoutSpace(t *testing.T) {
	o := newOwner(t, disksim.New(disksim.Options{}))
	o.setRefuse(disk.ErrNoSpace)
	o.mustOpen()
	for range 16 {
		o.round(entry(1, 3000, 'x'))
	}
	_, err := o.write(entry(1, 3000, 'x'))
	mustFail(t, err, disk.ErrNoSpace)
	o.setRefuse(nil)
	o.awaitSpare()
	o.round(entry(1, 3000, 'x'))
	o.close()

	o = newOwner(t, disksim.New(disksim.Options{}))
	cause := errors.New("pebble is broken")
	o.setRefuse(cause)
	o.mustOpen()
	o.await("failure", func() bool { return o.j.Err() != nil })
	_, err = o.write()
	mustFail(t, err, ErrFailed)
	mustFail(t, err, cause)
	o.close()
}

// After an error of a write or sync nothing succeeds, whatever the disk says later.
func TestErrorsAreFinal(t *testing.T) {
	for _, kind := range []disksim.OpKind{disksim.OpWrite, disksim.OpSync} {
		d := disksim.New(disksim.Options{})
		o := newOwner(t, d)
		o.mustOpen()
		o.awaitSpare()
		w := o.round(entry(1, 10, 'a'))
		cause := errors.New("the disk is broken")
		d.SetHook(func(op disksim.Op) error {
			if op.Kind == kind {
				return cause
			}
			return nil
		})
		_, err := o.write(entry(1, 10, 'b'))
		if err == nil {
			err = o.j.Sync()
		}
		mustFail(t, err, ErrFailed)
		mustFail(t, err, cause)
		d.SetHook(nil)
		_, err = o.write(entry(1, 10, 'b'))
		mustFail(t, err, ErrFailed)
		mustFail(t, o.j.Sync(), ErrFailed)
		mustFail(t, o.j.Retire(Retirement{}), ErrFailed)
		o.reopen()
		if got := append(o.frames, o.res.Unvouched...); len(got) == 0 || got[0].Seq != w.Seq {
			t.Fatalf("%v: replayed %v", kind, got)
		}
		o.close()
	}
}

// What is left of a directory, whatever it is, is not taken for the journal.
func TestForeignFiles(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o := newOwner(t, d)
	o.mustOpen()
	o.round(entry(1, 10, 'a'))
	o.close()
	for _, name := range []string{"00000900.preparing", "00000901.journal", "notes", "x.journal"} {
		f, err := d.Create("journal/" + name)
		if err != nil || f.Preallocate(disk.BlockSize) != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	o.mustOpen()
	o.awaitSpare()
	names, _ := d.List("journal")
	for _, n := range names {
		if strings.HasPrefix(n, "000009") && n <= "00000901.journal" {
			t.Errorf("%s is still there", n)
		}
	}
	if !slices.Contains(names, "notes") || !slices.Contains(names, "x.journal") {
		t.Errorf("a file that is not ours is gone: %v", names)
	}
	o.close()
}

func TestOrderOfCalls(t *testing.T) {
	o := newOwner(t, disksim.New(disksim.Options{}))
	opts := o.opts
	_, err := Open(o.fs, "journal", nil, opts)
	mustFail(t, err, ErrInvalid)
	opts.Register = o.register
	r, err := Open(o.fs, "journal", nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Start()
	mustFail(t, err, ErrInvalid)
	if _, err = r.Replay(0, nil); err != nil {
		t.Fatal(err)
	}
	_, err = r.Replay(0, nil)
	mustFail(t, err, ErrInvalid)
	for _, live := range [][]FileInfo{
		{{Name: "1.journal", Number: 1, Epoch: 1, Bytes: 100, End: -1}},
		{{Name: "1.journal", Number: 1, Epoch: 1, Bytes: 4096, End: 8192}},
		{{Name: "1.journal", Number: 1, Bytes: 4096, End: -1}},
		{{Name: "1.journal", Number: 1, Epoch: 1, Bytes: 4096}, {Name: "2.journal", Number: 1, Epoch: 2, Bytes: 4096}},
		{{Name: "1.journal", Number: 1, Epoch: 1, Bytes: 4096}, {Name: "1.journal", Number: 2, Epoch: 2, Bytes: 4096}},
		{{Name: "1.journal", Number: 1, Epoch: 1, Bytes: 8192, End: 4096}},
		{{Name: "1.journal", Number: 1, Epoch: 1, Bytes: 8192, End: -1, Last: 3}},
	} {
		_, err := Open(o.fs, "journal", live, opts)
		mustFail(t, err, ErrInvalid)
	}
	r, err = Open(o.fs, "journal", nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Replay(5, nil)
	mustFail(t, err, ErrInvalid)
}

// Close ends a Write that waits for a file, and a file that is being prepared.
func TestCloseInTheMiddle(t *testing.T) {
	defer leaktest.AfterTest(t)()
	d := disksim.New(disksim.Options{})
	o := newOwner(t, d)
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.mustOpen()
	d.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpPreallocate {
			once.Do(func() { close(blocked) })
			<-release
		}
		return nil
	})
	result := make(chan error)
	go func() {
		for {
			w, err := o.write(entry(1, 9000, 'x'))
			if err == nil {
				err = o.j.Sync()
			}
			if err != nil {
				result <- err
				return
			}
			o.prev = w.Seq
		}
	}()
	<-blocked
	closed := make(chan error)
	j := o.j
	go func() { closed <- j.Close() }()
	mustFail(t, <-result, ErrClosed)
	close(release)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if _, err := o.write(); !errors.Is(err, ErrClosed) || o.j.Sync() == nil || o.j.Close() != nil {
		t.Fatal("a closed journal goes on:", err)
	}
}
