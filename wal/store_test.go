package wal

import (
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

func TestRoundTripOnRealFiles(t *testing.T) {
	defer leaktest.AfterTest(t)()
	o := testOptions(nil, nil, t.TempDir())
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	for i := range 200 {
		switch {
		case i%10 == 3:
			d.submit(d.controlEntry(KindEmpty, nil))
		case i%10 == 7:
			d.submit(d.controlEntry(KindConfChangeV2, []byte{byte(i)}))
		default:
			d.submit(d.batchEntry(100 + i*i*7%200000))
		}
		d.wait(1)
		d.commitAll()
	}
	d.check()
	t.Logf("%+v", s.Metrics())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	for i := range 50 {
		d.submit(d.batchEntry(70000 - i*1000))
		d.wait(1)
	}
	d.check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRecoverAfterKill(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for _, kind := range []disksim.Kind{disksim.Kill, disksim.PowerLoss} {
		t.Run(kind.String(), func(t *testing.T) {
			sim := disksim.New(disksim.Options{Seed: 1})
			s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
			d := newDriver(t, s, mustCreate(t, s, 1))
			for round := range 4 {
				for i := range 20 {
					d.submit(d.batchEntry(100 + (i*7919+round*131)%90000))
					if i%3 == 0 {
						d.wait(1)
					}
				}
				d.wait(13)
				d.check()
				if round%2 == 0 {
					d.commitAll()
				}
				sim.Halt()
				_ = s.Close()
				sim = sim.Crash(kind)
				s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
				d.s, d.l = s, findLog(t, s, 1)
				d.check()
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
