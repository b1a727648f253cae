package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Run is one turn of one target.
type Run struct {
	Target   Target
	Workload Workload
	Round    int
	Dir      string   // where the target may put its data; it is removed after the turn
	Servers  []string // empty: the target starts its own
	Profile  Profile
	Say      func(format string, args ...any) // progress
}

// Do starts the target, measures, reads everything back, ends the target and removes its data. After a failure of the target the
// data and logs stay.
func (r Run) Do(ctx context.Context) (result Result, err error) {
	dir := filepath.Join(r.Dir, fmt.Sprintf("%s-%d", r.Target.Name(), r.Round))
	setup := Setup{Dir: dir, Servers: r.Servers, Workload: r.Workload, Profile: r.Profile, Log: r.Say}
	if c, ok := r.Target.(Checker); ok {
		if err := c.Check(setup); err != nil {
			return Result{}, fmt.Errorf("%s: cannot start it: %w", r.Target.Name(), err)
		}
	}
	prefix := "bench"
	if len(r.Servers) > 0 {
		prefix = fmt.Sprintf("bench-%d", time.Now().UnixNano()) // others may have used the cluster before
	} else if err := r.checkSpace(); err != nil {
		return Result{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Result{}, fmt.Errorf("cannot make a directory for the target: %w", err)
	}
	t := turn{Run: r, setup: setup, layout: NewLayout(prefix, r.Workload.Topics, r.Workload.Partitions)}
	t.result = Result{Target: r.Target.Name(), Workload: r.Workload.Name, Round: r.Round, LoadBefore: loadAverage()}
	if err = t.play(ctx); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	} else if err != nil {
		err = fmt.Errorf("%s: %w", r.Target.Name(), err)
		if os.Remove(dir) != nil { // it is not empty
			err = fmt.Errorf("%w (data and logs are in %s)", err, dir)
		}
		return Result{}, err
	}
	return t.result, errors.Join(err, os.RemoveAll(dir))
}

// play is the turn, between the start of the target and its end.
func (t *turn) play(ctx context.Context) (err error) {
	t.system, err = t.Target.Start(ctx, t.setup)
	if err != nil {
		return fmt.Errorf("cannot start it: %w", err)
	}
	err = t.measure(ctx)
	if r, ok := t.system.(Remover); ok && len(t.Servers) > 0 {
		err = errors.Join(err, r.Remove(context.WithoutCancel(ctx), t.layout))
	}
	return errors.Join(err, t.system.Close())
}

// assumedMBPerSecond is what a maximum-rate run is taken to write at most, for the check of the disk's space.
const assumedMBPerSecond = 450

// Space returns how many bytes of disk a turn of a workload may need, all copies.
func (w Workload) Space() int64 {
	seconds := (w.WarmUp + w.Duration).Seconds()
	payload := 0.0
	switch w.Mode {
	case ModeMaximum:
		payload = seconds * assumedMBPerSecond * 1e6
	case ModeRate:
		payload = seconds * w.Rate * float64(w.RecordBytes)
	case ModeCatchUp:
		payload = float64(w.BacklogBytes)
	}
	const copies, overhead, base = 3, 1.1, 4e9 // journals and files allocated ahead
	perPartition := 4e6 * float64(w.Topics*w.Partitions)
	return int64(payload*copies*overhead + base + perPartition)
}

// SpaceError says that a disk has not the space that a workload may need.
type SpaceError struct {
	Workload, Dir string
	Need, Free    int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("workload %s may need %.0f GB of disk and %s has %.0f GB free: free some, name another directory with --dir, or shorten the run with --duration",
		e.Workload, float64(e.Need)/1e9, e.Dir, float64(e.Free)/1e9)
}

func (r Run) checkSpace() error {
	free, err := freeBytes(r.Dir)
	if err != nil {
		return err
	}
	if need := r.Workload.Space(); free < need {
		return &SpaceError{r.Workload.Name, r.Dir, need, free}
	}
	return nil
}

// turn is a Run under way.
type turn struct {
	Run
	system System
	setup  Setup
	layout Layout
	load   *load
	result Result
}

func (t *turn) measure(ctx context.Context) error {
	if h, ok := t.system.(Heater); ok && len(t.Servers) == 0 && h.HeatFor() > 0 && t.Workload.Mode != ModeIdle {
		if err := t.heat(ctx, h.HeatFor()); err != nil {
			return fmt.Errorf("cannot warm it up: %w", err)
		}
	}
	if err := t.system.Create(ctx, t.layout); err != nil {
		return fmt.Errorf("cannot create the topics: %w", err)
	}
	t.result.Description = t.system.Describe()
	t.load = newLoad(t.Workload, t.layout)
	switch t.Workload.Mode {
	case ModeIdle:
		return t.idle(ctx)
	case ModeCatchUp:
		return t.catchUp(ctx)
	}
	if err := t.produce(ctx); err != nil {
		return err
	}
	return t.verify(ctx)
}

// heatPart is how long one topic is written before it is removed, so that heating does not fill the disk.
const heatPart = 10 * time.Second

// heat loads the system with a maximum rate that does not count.
func (t *turn) heat(ctx context.Context, d time.Duration) error {
	t.Say("warming up at full load for %v", d)
	w := t.Workload
	w.Mode, w.Rate, w.Linger = ModeMaximum, 0, 5*time.Millisecond
	for i := 0; d > 0; i, d = i+1, d-heatPart {
		layout := NewLayout(fmt.Sprintf("heat-%d", i), 1, w.Topics*w.Partitions)
		if err := t.system.Create(ctx, layout); err != nil {
			return err
		}
		l := newLoad(w, layout)
		finish, err := l.start(ctx, t.system)
		if err != nil {
			return err
		}
		err = sleepFor(ctx, min(d, heatPart))
		if err := errors.Join(err, finish()); err != nil {
			return err
		}
		t.Say("warming up: %.0f MB/s", float64(l.acked.Load())*float64(w.RecordBytes)/1e6/min(d, heatPart).Seconds())
		if r, ok := t.system.(Remover); ok {
			if err := r.Remove(ctx, layout); err != nil {
				return err
			}
		}
	}
	return nil
}

// produce is the timed part of the modes that send.
func (t *turn) produce(ctx context.Context) error {
	endToEnd := NewLatency()
	var followers []*follower
	defer func() {
		for _, f := range followers {
			_ = f.stop() // again, after an error
		}
	}()
	for range t.Workload.Consumers {
		f, err := t.load.follow(ctx, t.system, endToEnd)
		if err != nil {
			return err
		}
		followers = append(followers, f)
	}
	finish, err := t.load.start(ctx, t.system)
	if err != nil {
		return err
	}
	err = t.timed(ctx)
	if err := errors.Join(err, finish()); err != nil {
		return errors.Join(err, t.load.firstError())
	}
	if err := t.catchFollowers(ctx, followers); err != nil {
		return err
	}
	t.result.AckMS, t.result.EndToEndMS = t.load.ack.Percentiles(), endToEnd.Percentiles()
	if t.Workload.Mode == ModeRate {
		t.result.LateMS = t.load.late.Percentiles()
	}
	t.result.Failed = t.load.failed.Load()
	if err := t.load.firstError(); err != nil {
		t.result.FirstFailure = err.Error()
	}
	if t.Workload.Fault != FaultNone {
		t.result.UnavailableMS = t.load.longestGap().Seconds() * 1000
	}
	return nil
}

// timed waits for the warm-up, and measures from its end on.
func (t *turn) timed(ctx context.Context) error {
	if err := sleepFor(ctx, t.Workload.WarmUp); err != nil {
		return err
	}
	l := t.load
	m := t.begin(l.acked.Load())
	l.from.Store(int64(l.now()))
	faults := make(chan error, 1)
	go func() { faults <- t.inject(ctx) }()
	err := m.watch(ctx, t.Workload.Duration, l.acked.Load)
	l.to.Store(int64(l.now()))
	m.end(l.acked.Load())
	return errors.Join(err, <-faults)
}

// catchFollowers waits until the consumers have read what was acknowledged, so that the last records are in the latencies.
func (t *turn) catchFollowers(ctx context.Context, followers []*follower) error {
	deadline := time.Now().Add(pollPatience)
	for _, f := range followers {
		for f.records.Load() < t.load.acked.Load() && time.Now().Before(deadline) {
			if err := sleepFor(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
		if err := f.stop(); err != nil {
			return err
		}
		if f.records.Load() < t.load.acked.Load() {
			return fmt.Errorf("a consumer that read along saw %d of %d records", f.records.Load(), t.load.acked.Load())
		}
	}
	return nil
}

// verify reads everything back.
func (t *turn) verify(ctx context.Context) error {
	if !t.result.Description.KeepsData {
		return nil
	}
	t.Say("reading back")
	r, err := newReadBack(ctx, t.load, t.system)
	if err != nil {
		return err
	}
	begin := time.Now()
	t.result.Audit, err = r.run(ctx, t.system)
	if err != nil {
		return err
	}
	t.result.Verified = t.result.OK()
	t.result.ReadMBPerSec = t.megabytes(r.records.Load()) / time.Since(begin).Seconds()
	return nil
}

// catchUp writes a backlog and times its reading.
func (t *turn) catchUp(ctx context.Context) error {
	records := int64(t.Workload.BacklogBytes) / int64(t.Workload.RecordBytes)
	t.Say("writing a backlog of %d records", records)
	if err := t.load.fill(ctx, t.system, records); err != nil {
		return fmt.Errorf("cannot write the backlog: %w", errors.Join(err, t.load.firstError()))
	}
	if t.Workload.Cache == CacheCold {
		if err := t.chill(ctx); err != nil {
			return err
		}
	}
	r, err := newReadBack(ctx, t.load, t.system)
	if err != nil {
		return err
	}
	m := t.begin(0)
	stop, stopped := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() { watched <- m.watch(stop, time.Hour, r.records.Load) }()
	t.result.Audit, err = r.run(ctx, t.system)
	stopped()
	<-watched
	m.end(r.records.Load())
	if err != nil {
		return err
	}
	t.result.Verified = t.result.OK()
	t.result.ReadMBPerSec = t.result.MBPerSecond
	return nil
}

// idle waits and measures.
func (t *turn) idle(ctx context.Context) error {
	t.Say("%d partitions are there; waiting %v", t.layout.Total(), t.Workload.WarmUp)
	if err := sleepFor(ctx, t.Workload.WarmUp); err != nil {
		return err
	}
	m := t.begin(0)
	err := sleepFor(ctx, t.Workload.Duration)
	m.end(0)
	t.result.Verified = true // there is nothing to lose
	return err
}

func (t *turn) megabytes(records int64) float64 {
	return float64(records) * float64(t.Workload.RecordBytes) / 1e6
}

// sleepFor waits, or returns the context's error.
func sleepFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
