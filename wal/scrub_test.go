package wal

import (
	"strings"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// TestScrub: what rotted is found though nobody reads it, in whichever file, and the offsets are named; what is well is read once and
// condemned by nobody. It takes nothing from the caches, and its time.
func TestScrub(t *testing.T) {
	for what, rot := range map[string]func(sim *disksim.Disk, l *Log) error{
		"nothing": nil,
		"a bit of the log": func(sim *disksim.Disk, l *Log) error {
			return sim.Flip(fileOf(l, segment.LogSuffix), 1<<20+77, 4)
		},
		"a bit of the index": func(sim *disksim.Disk, l *Log) error { return sim.Flip(fileOf(l, segment.IndexSuffix), 52*64+8, 4) },
		"the log":            func(sim *disksim.Disk, l *Log) error { return sim.Remove(fileOf(l, segment.LogSuffix)) },
		"the index":          func(sim *disksim.Disk, l *Log) error { return sim.Remove(fileOf(l, segment.IndexSuffix)) },
	} {
		t.Run(what, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			sim := disksim.New(disksim.Options{Direct: true})
			o := testOptions(sim, sim.Pebble(), "/data")
			s, d := flushed(t, o, 200)
			closeStore(t, s)
			if rot != nil {
				if err := rot(sim, d.l); err != nil {
					t.Fatal(err)
				}
			}
			told := verdictsOf(&o)
			o.ScrubRate, o.scrubFirst = 16<<20, time.Millisecond
			begin := time.Now()
			s = mustOpen(t, o)
			defer closeStore(t, s)
			if len(s.Refused()) > 0 {
				if !strings.HasPrefix(what, "the ") {
					t.Errorf("refused: %v", s.Refused())
				}
				return // the start found out
			}
			eventually(t, "a pass", func() bool { return s.Metrics().ScrubPasses == 1 })
			m := s.Metrics()
			if rot == nil {
				if len(told) > 0 || m.ScrubErrors != 0 || m.LastScrub == 0 || m.ScrubbedBytes < 200*20<<10-64<<10 {
					t.Errorf("%d verdicts, %+v", len(told), m)
				}
				if took, least := time.Since(begin), time.Duration(m.ScrubbedBytes-scrubPiece)*time.Second/(16<<20); took < least {
					t.Errorf("%d bytes took %v, less than %v", m.ScrubbedBytes, took, least)
				}
				if m.ReadDiskBytes != 0 {
					t.Errorf("%d bytes were read for the caches", m.ReadDiskBytes)
				}
				return
			}
			v := awaitVerdict(t, told)
			if v.kind != CondemnedReads || m.ScrubErrors != 1 || what == "a bit of the log" && !strings.Contains(v.Reason, "offsets") {
				t.Errorf("%+v, %+v", v, m)
			}
		})
	}
}
