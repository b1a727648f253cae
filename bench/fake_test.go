package bench

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// fake is a target in memory, in which everything can go wrong.
type fake struct {
	mu    sync.Mutex
	log   [][]Message
	stall func() time.Duration // asked before each record
	bend  func([][]Message)    // before it is read
	pids  []int
}

func (*fake) Name() string { return "fake" }

func (f *fake) Start(context.Context, Setup) (System, error) { return f, nil }

func (*fake) Describe() Description { return Description{KeepsData: true, Nodes: 1} }

func (f *fake) Create(_ context.Context, l Layout) error {
	f.log = make([][]Message, l.Total())
	return nil
}

func (f *fake) Processes() []int { return f.pids }

func (*fake) Close() error { return nil }

func (f *fake) Ends(context.Context, Layout) ([]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bend != nil {
		f.bend(f.log)
	}
	ends := make([]int64, len(f.log))
	for p, messages := range f.log {
		for _, m := range messages {
			ends[p] = max(ends[p], m.Offset+1)
		}
	}
	return ends, nil
}

type fakeProducer struct {
	f     *fake
	next  []uint64
	ended func(Outcome)
}

func (f *fake) NewProducer(_ context.Context, l Layout, ended func(Outcome)) (Producer, error) {
	return &fakeProducer{f, make([]uint64, l.Total()), ended}, nil
}

func (p *fakeProducer) Send(_ context.Context, partition int, _, value []byte) error {
	if p.f.stall != nil {
		<-time.After(p.f.stall())
	}
	p.f.mu.Lock()
	offset := int64(len(p.f.log[partition]))
	p.f.log[partition] = append(p.f.log[partition], Message{Partition: partition, Offset: offset, Value: slices.Clone(value)})
	p.f.mu.Unlock()
	p.ended(Outcome{Partition: partition, First: p.next[partition], Count: 1, Offset: offset})
	p.next[partition]++
	return nil
}

func (*fakeProducer) Flush(context.Context) error { return nil }

func (*fakeProducer) Close() error { return nil }

type fakeConsumer struct {
	f  *fake
	at []int
}

func (f *fake) NewConsumer(context.Context, Layout) (Consumer, error) {
	return &fakeConsumer{f, make([]int, len(f.log))}, nil
}

func (c *fakeConsumer) Poll(ctx context.Context, visit func(Message)) error {
	for ctx.Err() == nil {
		c.f.mu.Lock()
		some := false
		for p, messages := range c.f.log {
			for ; c.at[p] < len(messages); c.at[p]++ {
				some = true
				visit(messages[c.at[p]])
			}
		}
		c.f.mu.Unlock()
		if some {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	return ctx.Err()
}

func (*fakeConsumer) Close() error { return nil }

func (f *fake) run(t *testing.T, w Workload) Result {
	t.Helper()
	w.Name = "test"
	w = w.withDefaults()
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	r, err := Run{Target: f, Workload: w, Dir: t.TempDir(), Servers: []string{"nowhere"}, Say: t.Logf}.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAuditFindsEachFault runs a load against a target that spoils what it holds in one way, and sees which.
func TestAuditFindsEachFault(t *testing.T) {
	t.Parallel()
	edit := func(f func([]Message) []Message) func([][]Message) {
		return func(log [][]Message) { log[1] = f(log[1]) }
	}
	renumber := func(m []Message) []Message {
		for i := range m {
			m[i].Offset = int64(i)
		}
		return m
	}
	for _, tt := range []struct {
		name string
		bend func([][]Message)
		want Audit
	}{
		{"good", nil, Audit{}},
		{"tail lost", edit(func(m []Message) []Message { return m[:len(m)-3] }), Audit{Lost: 3}},
		{"head lost and renumbered", edit(func(m []Message) []Message { return renumber(m[2:]) }), Audit{Lost: 2, Reordered: -1}},
		{"hole", edit(func(m []Message) []Message { return slices.Delete(m, 4, 6) }), Audit{Lost: 2}},
		{"twice", edit(func(m []Message) []Message {
			last := m[3]
			last.Offset = int64(len(m))
			return append(m, last)
		}), Audit{Duplicated: 1}},
		{"read again", edit(func(m []Message) []Message { return slices.Insert(m, 4, m[3]) }), Audit{Duplicated: 2}},
		{"swapped", edit(func(m []Message) []Message {
			m[3].Value, m[4].Value = m[4].Value, m[3].Value
			return m
		}), Audit{Reordered: 2}},
		{"bit flipped", edit(func(m []Message) []Message {
			m[5].Value[60] ^= 1
			return m
		}), Audit{Lost: 1, Changed: 1}},
		{"number changed", edit(func(m []Message) []Message {
			m[5].Value[11] ^= 1
			return m
		}), Audit{Lost: 1, Changed: 1}},
		{"another partition's", func(log [][]Message) {
			m := log[0][0]
			m.Partition, m.Offset = 1, int64(len(log[1]))
			log[1] = append(log[1], m)
		}, Audit{Foreign: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{bend: tt.bend}
			r := f.run(t, Workload{Mode: ModeRate, Rate: 2000, Partitions: 3, RecordBytes: 100, WarmUp: time.Millisecond, Duration: 200 * time.Millisecond})
			got := r.Audit
			if got.Acked < 100 || got.Sent != got.Acked { // a quarter of what there is time for: the machine may be busy
				t.Fatalf("%d sent, %d acknowledged", got.Sent, got.Acked)
			}
			if tt.want.Reordered < 0 && got.Reordered > 0 {
				tt.want.Reordered = got.Reordered
			}
			tt.want.Sent, tt.want.Acked, tt.want.Read, tt.want.First = got.Sent, got.Acked, got.Read, got.First
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if good := tt.bend == nil; r.Verified != good || (r.Headline() == nil) != good || (got.First == "") != good {
				t.Errorf("verified %v, headline %v, first problem %q", r.Verified, r.Headline(), got.First)
			}
		})
	}
}

// TestOpenLoopCountsFromTheDueTime lets the target stand still once. A loop that waited for it would see one slow record; in an
// open loop all records that were due meanwhile are late.
func TestOpenLoopCountsFromTheDueTime(t *testing.T) {
	t.Parallel()
	const pause = 200 * time.Millisecond
	begin := time.Now()
	var once sync.Once
	f := &fake{stall: func() (d time.Duration) {
		if time.Since(begin) > 300*time.Millisecond {
			once.Do(func() { d = pause })
		}
		return d
	}}
	r := f.run(t, Workload{Mode: ModeRate, Rate: 1000, RecordBytes: 100, Consumers: 1, WarmUp: 50 * time.Millisecond, Duration: time.Second})
	if r.AckMS.P90 < 50 || r.AckMS.Max < 190 || r.EndToEndMS.Max < 190 {
		t.Errorf("a fifth of the records were due while the target stood still: ack %+v, end to end %+v", r.AckMS, r.EndToEndMS)
	}
	if r.AckMS.N < 950 || r.AckMS.N > 1100 || r.EndToEndMS.N != r.AckMS.N {
		t.Errorf("%d acknowledgements and %d reads are timed, want about 1000", r.AckMS.N, r.EndToEndMS.N)
	}
	if r.LateMS.Max < 150 {
		t.Errorf("the generator says that it was late by at most %.1f ms", r.LateMS.Max)
	}
	if !r.Verified || r.RecordsPerSecond < 800 || r.RecordsPerSecond > 1200 {
		t.Errorf("verified %v at %.0f records/s", r.Verified, r.RecordsPerSecond)
	}
}

// TestModes runs the other modes.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, w := range []Workload{
		{Mode: ModeMaximum, Partitions: 4, RecordBytes: 1000, Keys: KeysUniform, Producers: 2, WarmUp: 10 * time.Millisecond, Duration: 100 * time.Millisecond},
		{Mode: ModeMaximum, Topics: 3, Partitions: 2, RecordBytes: 1000, WarmUp: 10 * time.Millisecond, Duration: 100 * time.Millisecond},
		{Mode: ModeCatchUp, Partitions: 3, RecordBytes: 1000, BacklogBytes: 2e6},
	} {
		r := (&fake{}).run(t, w)
		if !r.Verified || r.Read != r.Acked || r.Acked == 0 || r.MBPerSecond <= 0 {
			t.Errorf("%+v: %+v", w, r)
		}
		if w.Mode == ModeMaximum && (r.AckMS == nil || r.EndToEndMS != nil) {
			t.Errorf("ack %+v, end to end %+v", r.AckMS, r.EndToEndMS)
		}
		if w.Mode == ModeCatchUp && r.Read != 2000 {
			t.Errorf("%d records read", r.Read)
		}
	}
}
