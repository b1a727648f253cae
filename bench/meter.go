package bench

import (
	"context"
	"fmt"
	"time"
)

// meter measures a timed part.
type meter struct {
	t       *turn
	begun   time.Time
	records int64
	servers *account
	disk    int64 // bytes written by the whole disk, -1 unknown
	client  time.Duration
	cpus    []processorTime
	counts  map[string]float64
	memory  memory
}

// counter is a System whose servers count what they do: the sums over all of them, by the name of the metric.
type counter interface {
	Counters(ctx context.Context) (map[string]float64, error)
}

// mallocs is the metric of heap objects that the Go runtime has allocated.
const mallocs = "go_memstats_mallocs_total"

func (t *turn) begin(records int64) *meter {
	if p, ok := t.system.(profiler); ok {
		if err := p.StartProfiles(); err != nil {
			t.Say("no profiles: %v", err)
		}
	}
	return &meter{
		t: t, records: records, servers: newAccount(t.system.Processes()), disk: diskWritten(t.setup.Dir), client: ownCPU(), counts: t.counters(), cpus: processorTimes(), begun: time.Now(),
	}
}

func (t *turn) counters() map[string]float64 {
	c, ok := t.system.(counter)
	if !ok {
		return nil
	}
	counts, err := c.Counters(context.Background())
	if err != nil {
		t.Say("the servers' counters are left out: %v", err)
	}
	return counts
}

// end writes what was used since begin, and the rate, into the result.
func (m *meter) end(records int64) {
	seconds := time.Since(m.begun).Seconds()
	r := &m.t.result
	pids, disk := m.t.system.Processes(), diskWritten(m.t.setup.Dir)
	m.servers.look(pids)
	used := m.servers.used(pids)
	client := ownCPU() - m.client
	r.ProcessorsBusy, r.StolenPercent = processorsUsed(m.cpus, processorTimes())
	if p, ok := m.t.system.(profiler); ok {
		if err := p.StopProfiles(); err != nil {
			m.t.Say("no profiles: %v", err)
		}
	}
	records -= m.records
	mb := m.t.megabytes(records)
	r.Seconds = seconds
	r.RecordsPerSecond, r.MBPerSecond = float64(records)/seconds, mb/seconds
	r.ServerCPUPercent = 100 * used.cpu.Seconds() / seconds
	r.ServerRSSMB = float64(used.rss) / 1e6
	r.RSSSeries, r.RSSEvery = m.memory.points, float64(m.memory.every)*lookEvery.Seconds()
	if mb == 0 {
		return
	}
	r.ServerCPUPerMB = used.cpu.Seconds() * 1000 / mb
	r.ClientCPUPerMB = client.Seconds() * 1000 / mb
	r.ProcessBytesPerByte = float64(used.written) / 1e6 / mb
	r.SyscallsPerMB = float64(used.syscalls) / mb
	if disk >= 0 && m.disk >= 0 {
		r.DiskBytesPerByte = float64(disk-m.disk) / 1e6 / mb
	}
	if counts := m.t.counters(); counts != nil {
		for name, n := range counts {
			counts[name] = n - m.counts[name]
		}
		r.AllocationsPerRec = counts[mallocs] / float64(records)
		r.Counters = counts
	}
}

// leastFree is what a run must leave on the disk.
const leastFree = 2 << 30

// lookEvery is how often the servers are looked at.
const lookEvery = time.Second

// look notes what the servers use and hold, if they are this machine's.
func (m *meter) look() {
	pids := m.t.system.Processes()
	m.servers.look(pids)
	if rss := m.servers.rss(pids); rss > 0 {
		m.memory.add(float64(rss) / 1e6)
	}
}

// watch waits for the end of the timed part and notes the rate and the servers' memory of each second.
func (m *meter) watch(ctx context.Context, d time.Duration, records func() int64) error {
	end := time.NewTimer(time.Until(m.begun.Add(d)))
	defer end.Stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last, at := m.records, m.begun
	note := func(now time.Time) {
		n := records()
		rate := m.t.megabytes(n-last) / now.Sub(at).Seconds()
		last, at = n, now
		m.t.result.Series = append(m.t.result.Series, rate)
		m.t.Say("%2.0f s: %.1f MB/s", now.Sub(m.begun).Seconds(), rate)
	}
	for {
		select {
		case now := <-end.C:
			if now.Sub(at) > time.Second/2 {
				m.look()
				note(now)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			m.look()
			note(now)
			if free, err := freeBytes(m.t.setup.Dir); err == nil && free < leastFree {
				return fmt.Errorf("the disk is nearly full: %d MB are left", free/1e6)
			}
		}
	}
}
