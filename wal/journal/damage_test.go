package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// place says where a frame is.
type place struct {
	Written
	name    string
	off     int64
	records []Record
}

// filled returns an owner that has written n rounds of two or three records, and where they are. The last round is not
// vouched for.
func filled(t *testing.T, d *disksim.Disk, n int) (*owner, []place) {
	t.Helper()
	o := newOwner(t, d)
	o.mustOpen()
	var places []place
	for i := range n {
		records := []Record{entry(id.Group(3*i+1), 9000, byte(i)), entry(id.Group(3*i+2), 300, byte(i))}
		if i%2 == 1 {
			records = append(records, entry(id.Group(3*i+3), 0, 0))
		}
		w := o.round(records...)
		s := o.j.Files()[len(o.j.Files())-1]
		places = append(places, place{Written: w, name: "journal/" + s.Name, off: s.Used - int64(w.Bytes), records: records})
	}
	return o, places
}

func flip(t *testing.T, d *disksim.Disk, name string, off int64) {
	t.Helper()
	if err := d.Flip(name, off, 0x10); err != nil {
		t.Fatal(err)
	}
}

// wipe destroys a range of a file.
func wipe(t *testing.T, d *disksim.Disk, name string, off, n int64) {
	t.Helper()
	for i := range n {
		flip(t, d, name, off+i)
	}
}

// expectAllBut checks that all frames came back but for those that are named by damage, which must be want.
func (o *owner) expectAllBut(places []place, want ...Damage) {
	o.t.Helper()
	got := map[Seq][]Record{}
	for _, f := range append(slices.Clone(o.frames), o.res.Unvouched...) {
		got[f.Seq] = append(got[f.Seq], f.Records...)
	}
	if len(o.res.Damage) != len(want) {
		o.t.Fatalf("damage %v, want %v", o.res.Damage, want)
	}
	lost := map[Seq]*Damage{}
	for i, d := range o.res.Damage {
		w := want[i]
		if d.First != w.First || d.Last != w.Last || d.All != w.All || !slices.Equal(d.Records, w.Records) {
			o.t.Fatalf("damage %+v, want %+v", d, w)
		}
		for s := d.First; s <= min(d.Last, d.First+100); s++ {
			lost[s] = d
		}
	}
	for _, p := range places {
		records := p.records
		if d := lost[p.Seq]; d != nil {
			records = slices.DeleteFunc(slices.Clone(records), func(r Record) bool {
				return d.All || slices.Contains(d.Records, RecordKey{r.Kind, r.Group, r.Replica})
			})
		}
		if !sameRecords(got[p.Seq], records) {
			o.t.Fatalf("frame %d: %d records, want %d", p.Seq, len(got[p.Seq]), len(records))
		}
	}
}

func key(r Record) RecordKey { return RecordKey{r.Kind, r.Group, r.Replica} }

// Each part of a frame in the middle, and in the last place of a file, is destroyed while the node is down.
func TestDamageOfVouchedFrames(t *testing.T) {
	const rounds = 20 // of 3 blocks: five to a file
	for _, victim := range []int{0, 2, 4, 5, 18} {
		o, places := filled(t, disksim.New(disksim.Options{}), rounds)
		o.close()
		p := places[victim]
		end := p.off + int64(p.Bytes)
		payload := p.off + headBytes + int64(len(p.records))*rowBytes
		all := Damage{First: p.Seq, Last: p.Seq, All: true}
		for _, c := range []struct {
			what  string
			wipes [][2]int64
			want  []Damage
		}{
			{"header", [][2]int64{{p.off + 17, 1}}, nil},
			{"footer", [][2]int64{{end - 20, 1}}, nil},
			{"record headers", [][2]int64{{p.off + headBytes + 9, 1}}, nil},
			{"record headers at the end", [][2]int64{{end - headBytes - 9, 1}}, nil},
			{"header and record headers", [][2]int64{{p.off + 3, 100}}, nil},
			{"padding", [][2]int64{{end - headBytes - 200, 1}}, nil},
			{"first payload", [][2]int64{{payload + 8999, 1}}, []Damage{{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[0])}}}},
			{"second payload", [][2]int64{{payload + 9000, 300}}, []Damage{{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[1])}}}},
			{"first block", [][2]int64{{p.off, disk.BlockSize}}, []Damage{{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[0])}}}},
			{"last block", [][2]int64{{end - disk.BlockSize, disk.BlockSize}}, []Damage{{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[0]), key(p.records[1])}}}},
			{"header and footer", [][2]int64{{p.off + 50, 1}, {end - 1, 1}}, []Damage{all}},
			{"record headers twice", [][2]int64{{p.off + headBytes, 1}, {end - headBytes - 1, 1}}, []Damage{all}},
			{"everything", [][2]int64{{p.off, int64(p.Bytes)}}, []Damage{all}},
		} {
			t.Run(fmt.Sprint(victim, " ", c.what), func(t *testing.T) {
				d := o.fs.(*disksim.Disk)
				for _, w := range c.wipes {
					wipe(t, d, p.name, w[0], w[1])
				}
				defer func() { // flips undo themselves
					for _, w := range c.wipes {
						wipe(t, d, p.name, w[0], w[1])
					}
				}()
				// Look, but do not restart: the next case needs the journal as it is.
				o.t = t
				o.look()
				o.expectAllBut(places, c.want...)
				if o.res.Torn {
					t.Error("a vouched frame was called torn")
				}
			})
		}
	}
}

// look replays without restarting.
func (o *owner) look() {
	o.t.Helper()
	o.opts.Register = o.register
	r, err := Open(o.fs, "journal", o.infos(), o.opts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.frames = nil
	if o.res, err = r.Replay(o.completed, func(f *StoredFrame) error {
		o.frames = append(o.frames, cloneFrame(f))
		return nil
	}); err != nil {
		o.t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		o.t.Fatal(err)
	}
}

// Several frames in a row, to the end of a file and into the next.
func TestDamageOfManyFrames(t *testing.T) {
	o, places := filled(t, disksim.New(disksim.Options{}), 20)
	o.close()
	for _, p := range places[3:7] { // two in the first file, two in the second
		wipe(t, o.fs.(*disksim.Disk), p.name, p.off, int64(p.Bytes))
	}
	o.mustOpen()
	o.expectAllBut(places, Damage{First: places[3].Seq, Last: places[6].Seq, All: true})
	first := o.res.Damage[0]
	o.prev = o.round(entry(1, 10, 'x')).Seq
	o.reopen() // and it is found again, as long as its files are live
	o.expectAllBut(places[:19], Damage{First: first.First, Last: first.Last, All: true})
	o.retire(MaxSeq)
	o.reopen()
	o.expectAllBut(nil)
	o.close()
}

// The only frame of the last file vouches for the lost one at the end of the file before. It is written anew, and its file
// goes; the damage must stay.
func TestDamageBetweenFilesStays(t *testing.T) {
	for _, seal := range []int{0, 1} {
		o, places := filled(t, disksim.New(disksim.Options{}), 6)
		for range seal {
			o.round()
		}
		o.close()
		p := places[4]
		wipe(t, o.fs.(*disksim.Disk), p.name, p.off, int64(p.Bytes))
		for range 3 {
			o.mustOpen()
			o.expectAllBut(places[:5], Damage{First: p.Seq, Last: p.Seq, All: true})
			o.close()
		}
	}
}

// Pebble vouches for frames that are gone without a trace.
func TestCompletedBeyondTheEnd(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o, places := filled(t, d, 6)
	o.awaitSpare()
	o.close()
	o.completed = o.prev
	for _, p := range places[2:] {
		wipe(t, d, p.name, p.off, int64(p.Bytes))
	}
	for range 3 {
		o.mustOpen()
		o.expectAllBut(places[:2], Damage{First: places[2].Seq, Last: places[5].Seq, All: true})
		o.close()
	}
}

// The last frame is torn if nobody vouches for it, and damaged if Pebble does or a seal frame.
func TestLastFrame(t *testing.T) {
	for _, c := range []struct {
		what    string
		vouch   func(o *owner)
		damaged bool
	}{
		{"nobody", func(*owner) {}, false},
		{"seal", func(o *owner) { o.round() }, true},
		{"clean shutdown", func(o *owner) { o.completed = o.prev }, true},
	} {
		for _, part := range []string{"payload", "headers", "all"} {
			t.Run(c.what+" "+part, func(t *testing.T) {
				d := disksim.New(disksim.Options{})
				o, places := filled(t, d, 3)
				c.vouch(o)
				o.close()
				p := places[2]
				end := p.off + int64(p.Bytes)
				want := Damage{First: p.Seq, Last: p.Seq, All: true}
				switch part {
				case "payload":
					flip(t, d, p.name, p.off+2000)
					want = Damage{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[0])}}
				case "headers":
					flip(t, d, p.name, p.off+2)
					flip(t, d, p.name, end-3)
				case "all":
					wipe(t, d, p.name, p.off, int64(p.Bytes))
				}
				o.mustOpen()
				if c.damaged {
					o.expectAllBut(places, want)
				} else {
					o.expectAllBut(places[:2])
				}
				if torn := !c.damaged && part == "payload"; o.res.Torn != torn {
					t.Errorf("torn: %v", o.res.Torn)
				}
				o.round(entry(77, 10, 'x'))
				o.reopen()
				if c.damaged { // still there
					o.expectAllBut(places, want)
				} else if !sameRecords(o.records(), append(slices.Clone(places[0].records), places[1].records...)) || len(o.res.Damage) > 0 {
					t.Errorf("%d records came back, damage %v", len(o.records()), o.res.Damage)
				}
				o.close()
			})
		}
	}
}

func TestDamageBelowRecordedEnd(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o, places := filled(t, d, 4)
	o.reopen() // the file ends after the third frame; the fourth one stands in a fresh file
	o.expectAllBut(places)
	p := places[2]
	wipe(t, d, p.name, p.off, int64(p.Bytes)) // below the end
	wipe(t, d, places[3].name, places[3].off, int64(places[3].Bytes))
	o.reopen()
	o.expectAllBut(places[:3], Damage{First: p.Seq, Last: o.res.Damage[0].Last, All: true})
	if last := o.frames[len(o.frames)-1]; !sameRecords(last.Records, places[3].records) || last.Damage != nil {
		t.Fatalf("the last frame is %+v", last)
	}
	o.close()
}

// The recorded end vouches by itself, also when nothing else does.
func TestRecordedEndVouches(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o, places := filled(t, d, 4)
	o.j.Close()
	live := o.infos()
	for i := range live {
		if "journal/"+live[i].Name == places[0].name {
			live[i].End, live[i].Last = places[3].off+int64(places[3].Bytes), places[3].Seq
			o.store(live[i])
		}
	}
	p := places[3]
	flip(t, d, p.name, p.off+2000)
	o.look()
	o.expectAllBut(places, Damage{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[0])}})
}

func TestShortAndMissingFiles(t *testing.T) {
	for _, c := range []struct {
		what  string
		file  int   // of three
		size  int64 // -1: removed
		first int   // damaged frames
		last  int   // -1: to the end of the world
	}{
		{"removed, the first", 0, -1, 0, 4},
		{"removed, in the middle", 1, -1, 5, 9},
		{"removed, the last", 2, -1, 10, -1},
		{"empty, in the middle", 1, 0, 5, 9},
		{"cut in a frame", 1, 4 * disk.BlockSize, 7, 9},
		{"cut between frames", 1, 6*disk.BlockSize + 17, 7, 9},
		{"cut where nothing was, in the middle", 1, 15 * disk.BlockSize, -1, -1},
		{"cut where nothing was, the last", 2, 9 * disk.BlockSize, 13, -1},
	} {
		t.Run(c.what, func(t *testing.T) {
			d := disksim.New(disksim.Options{})
			o, places := filled(t, d, 13)
			o.awaitSpare()
			o.close()
			var err error
			if name := places[c.file*5].name; c.size < 0 {
				err = d.Remove(name)
			} else {
				var f disk.File
				if f, err = d.Open(name); err == nil {
					err = f.Truncate(c.size)
					f.Close()
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			o.look()
			if c.first < 0 {
				o.expectAllBut(places)
				return
			}
			if len(o.res.Damage) == 0 {
				t.Fatal("no damage")
			}
			got := *o.res.Damage[len(o.res.Damage)-1]
			first, last := places[0].Seq+Seq(c.first), MaxSeq
			if c.last >= 0 {
				last = places[c.last].Seq
			}
			if d := o.res.Damage[0]; c.what == "cut in a frame" { // of that one the headers are left
				if d.First != places[6].Seq || d.Last != d.First || d.All || len(d.Records) != 2 {
					t.Fatalf("first damage %v", d)
				}
			}
			if got.First != first || got.Last != last || !got.All {
				t.Fatalf("damage %+v, want %d to %d", got, first, last)
			}
			// After the restart the same damage is found again, and bounded.
			o.mustOpen()
			o.round(entry(1, 10, 'x'))
			o.reopen()
			again := *o.res.Damage[len(o.res.Damage)-1]
			if again.First != first || !again.All || again.Last < got.First || again.Last == MaxSeq || c.last >= 0 && again.Last != last {
				t.Fatalf("damage %+v became %+v", got, again)
			}
			if f := o.frames[len(o.frames)-1]; f.Damage != nil && len(o.res.Unvouched) != 1 {
				t.Fatalf("the round after the damage is gone: %+v", o.res)
			}
			o.close()
		})
	}
}

// A batch may hold what looks like frames: images of frames of other epochs, and of this very journal's older files.
func TestPayloadsThatLookLikeFrames(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o := newOwner(t, d)
	o.opts.FileBytes = 64 * disk.BlockSize
	o.mustOpen()
	forged := bytes.Repeat(buildFrame(t, []Record{entry(666, 100, 'f')}, 1000, 999), 9)
	first := o.round(entry(1, 10, 'a'))
	// Blocks of the payload are aligned like blocks of the file if the pieces before them fill the first block.
	pad := make([]byte, disk.BlockSize-headBytes-rowBytes)
	w := o.round(Record{Kind: KindEntry, Group: 2, Replica: 2, Payload: append(pad, forged...)})
	o.round(entry(3, 10, 'a'))
	name := "journal/" + o.j.Files()[0].Name
	o.close()
	start := int64(first.Bytes)
	flip(t, d, name, start)                    // header
	flip(t, d, name, start+int64(w.Bytes)-100) // record header at the end
	flip(t, d, name, start+int64(w.Bytes)-1)   // footer
	o.mustOpen()
	if len(o.res.Damage) != 1 || !o.res.Damage[0].All || o.res.Damage[0].First != w.Seq || o.res.Damage[0].Last != w.Seq {
		t.Fatalf("damage %v", o.res.Damage)
	}
	for _, r := range append(o.records(), o.res.Unvouched[0].Records...) {
		if r.Group == 666 {
			t.Fatal("a forged record came back")
		}
	}
	o.close()
}

// Any bits of any file flip while the node is down: what comes back is what was written, and what does not is named.
func TestRandomRotIsNamed(t *testing.T) {
	for seed := range uint64(80) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := disksim.New(disksim.Options{Seed: seed})
		o, places := filled(t, d, 12)
		o.round() // seal
		o.close()
		for range 1 + rng.IntN(6) {
			p := places[rng.IntN(len(places))]
			if rng.IntN(3) == 0 {
				b := int64(rng.IntN(p.Bytes / disk.BlockSize))
				wipe(t, d, p.name, p.off+b*disk.BlockSize, disk.BlockSize)
			} else {
				flip(t, d, p.name, p.off+rng.Int64N(int64(p.Bytes)))
			}
		}
		for range 2 { // a second recovery finds the same
			o.mustOpen()
			o.checkNamed(seed, places)
			o.round(entry(1, 1, 0))
			o.close()
		}
	}
}

func (o *owner) checkNamed(seed uint64, places []place) {
	o.t.Helper()
	got := map[Seq][]Record{}
	for _, f := range o.frames {
		got[f.Seq] = append(got[f.Seq], f.Records...)
	}
	named := func(s Seq, r Record) bool {
		return slices.ContainsFunc(o.res.Damage, func(d *Damage) bool {
			return d.First <= s && s <= d.Last && (d.All || slices.Contains(d.Records, key(r)))
		})
	}
	for _, p := range places {
		for _, r := range p.records {
			back := slices.ContainsFunc(got[p.Seq], func(g Record) bool { return sameRecords([]Record{g}, []Record{r}) })
			if back == named(p.Seq, r) {
				o.t.Fatalf("seed %d: record of group %d in frame %d: back %v, damage %v", seed, r.Group, p.Seq, back, o.res.Damage)
			}
		}
		if len(got[p.Seq]) > len(p.records) {
			o.t.Fatalf("seed %d: frame %d has records that were not written", seed, p.Seq)
		}
	}
}

// A block that the disk does not give is damage of that place: what else the frame has comes back, and so do the others. If nobody vouches
// for the frame it is torn.
func TestUnreadableBlocks(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o, places := filled(t, d, 12)
	o.close()
	bad := func(p place, block int64) {
		at := p.off + block*disk.BlockSize
		d.SetHook(func(op disksim.Op) error {
			if op.Kind == disksim.OpRead && strings.HasSuffix(op.Name, p.name) && op.Offset <= at && op.Offset+op.Bytes > at {
				return syscall.EIO
			}
			return nil
		})
	}
	for _, victim := range []int{1, 4, 5, 10} { // the payload of the first is zeros: it comes back
		p := places[victim]
		bad(p, 1) // of the first payload
		o.look()
		o.expectAllBut(places, Damage{First: p.Seq, Last: p.Seq, Records: []RecordKey{key(p.records[0])}})
		if !strings.Contains(o.res.Damage[0].Reason, "input/output error") {
			t.Errorf("the reason is %q", o.res.Damage[0].Reason)
		}
	}
	bad(places[11], 1)
	o.look()
	o.expectAllBut(places[:11])
	if !o.res.Torn {
		t.Error("a frame that nobody vouched for is not torn")
	}
	d.SetHook(func(op disksim.Op) error { // a whole file
		if op.Kind == disksim.OpOpen && strings.HasSuffix(op.Name, places[5].name) {
			return syscall.EIO
		}
		return nil
	})
	o.look()
	o.expectAllBut(places, Damage{First: places[5].Seq, Last: places[9].Seq, All: true})
	d.SetHook(nil)
	o.mustOpen()
	o.expectAllBut(places)
	o.close()
}

// Skip looks at nothing, reuses no sequence, and what comes after is as safe as ever.
func TestSkip(t *testing.T) {
	d := disksim.New(disksim.Options{})
	o, places := filled(t, d, 12)
	last := o.j.Last()
	o.awaitSpare()
	o.close()
	for i, p := range places {
		wipe(t, d, p.name, p.off, 100)
		if i == 11 {
			if err := d.Remove(p.name); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := Open(d, "journal", o.infos(), o.opts)
	if err == nil {
		err = r.Skip(last)
	}
	if err != nil {
		t.Fatal(err)
	}
	done, err := r.Restart(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Live) != 1 || done.Live[0].First <= last || done.Completed != last || len(done.Dropped) < 3 {
		t.Fatalf("after %d: %+v", last, done)
	}
	o.restarted(done)
	if o.j, err = r.Start(); err != nil {
		t.Fatal(err)
	}
	w := o.round(entry(1, 10, 'x'))
	o.prev = w.Seq
	o.round()
	o.reopen()
	if got := o.records(); len(got) != 1 || len(o.res.Damage) != 0 || w.Seq <= last {
		t.Fatalf("%d records came back, damage %v", len(got), o.res.Damage)
	}
	o.close()
}
