package quota

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker"
)

const (
	// maxBuckets bounds the entities that are counted at a time: strangers make client ids up. The one that was not looked at for longest is
	// forgotten, and begins anew.
	maxBuckets = 10_000
	// refresh is how long a meter uses the bucket that it has found, without telling that it is in use.
	refresh = time.Second
	// Who is mostAhead of his quota is refused until he is leastAhead.
	mostAhead, leastAhead = 10 * time.Second, 5 * time.Second
)

// Engine has the buckets of a node.
type Engine struct {
	rules func() *quota.Set

	mu      sync.Mutex
	buckets *simplelru.LRU[bucketKey, *bucket]

	counts [kinds]counts
}

type bucketKey struct {
	key quota.Key
	who quota.Bucket
}

// bucket is what clients that are counted together have used. Its tokens are bytes, or microseconds of a node's time.
type bucket struct {
	limiter *rate.Limiter
	value   atomic.Uint64 // the limit, as bits of a float
	gone    atomic.Bool   // forgotten: another one counts
}

const kinds = int(quota.RequestPercentage) + 1

type counts struct{ throttled, refused, nanoseconds atomic.Uint64 }

// Metrics are what was done about clients that use more than their quotas, by key.
type Metrics struct {
	Throttled uint64        // times that somebody was told to pause, or was not sent anything
	Time      time.Duration // for how long
	Refused   uint64        // of whom did not
}

// New returns an engine for the rules that hold at a time. A change of them is another *quota.Set.
func New(rules func() *quota.Set) *Engine {
	e := &Engine{rules: rules}
	e.buckets, _ = simplelru.NewLRU(maxBuckets, func(_ bucketKey, b *bucket) { b.gone.Store(true) }) // fails for no size
	return e
}

// Metrics returns the counts of a key.
func (e *Engine) Metrics(key quota.Key) Metrics {
	c := &e.counts[key]
	return Metrics{Throttled: c.throttled.Load(), Time: time.Duration(c.nanoseconds.Load()), Refused: c.refused.Load()}
}

// Meter counts what one connection uses of one kind. One goroutine at a time.
type Meter struct {
	engine *Engine
	key    quota.Key
	caller *broker.Caller

	rules    *quota.Set
	bucket   *bucket // nil: no quota holds for the client
	found    time.Time
	refusing bool
}

// Meter returns a connection's meter.
func (e *Engine) Meter(key quota.Key, c *broker.Caller) Meter {
	return Meter{engine: e, key: key, caller: c}
}

// Limited tells whether there is a quota for the client. Otherwise nothing needs to be counted. It is to be asked before the others.
func (m *Meter) Limited(now time.Time) bool {
	rules := m.engine.rules()
	switch {
	case rules != m.rules:
	case m.bucket == nil:
		return false
	case !m.bucket.gone.Load() && now.Sub(m.found) < refresh:
		return true
	}
	m.rules, m.found, m.bucket = rules, now, nil
	if limit, ok := rules.Find(m.key, m.caller.Principal.Name, m.caller.ClientID); ok {
		m.bucket = m.engine.bucket(bucketKey{m.key, limit.Bucket}, limit.Value, now)
	}
	return m.bucket != nil
}

// bucket finds or makes a bucket, and has it stay.
func (e *Engine) bucket(key bucketKey, value float64, now time.Time) *bucket {
	perSecond, burst := pace(key.key, value)
	e.mu.Lock()
	defer e.mu.Unlock()
	b, ok := e.buckets.Get(key)
	switch bits := math.Float64bits(value); {
	case !ok:
		b = &bucket{limiter: rate.NewLimiter(perSecond, burst)}
		b.value.Store(bits)
		e.buckets.Add(key, b)
	case b.value.Load() != bits:
		b.value.Store(bits)
		b.limiter.SetLimitAt(now, perSecond)
		b.limiter.SetBurstAt(now, burst)
	}
	return b
}

// pace returns the tokens that come in a second, and how many there may be: what may be used at once after a pause. It is a second's worth,
// but not so little that large batches would take thousands of reservations.
func pace(key quota.Key, value float64) (rate.Limit, int) {
	least := 64 << 10
	if key == quota.RequestPercentage {
		value, least = value*1e4, 10_000 // percent of a thread's time, in microseconds each second
	}
	value = min(max(value, 0.001), 1e12)
	return rate.Limit(value), max(int(value), least)
}

// Ahead returns for how long the client would have to use nothing to be within its quota.
func (m *Meter) Ahead(now time.Time) time.Duration {
	tokens := m.bucket.limiter.TokensAt(now)
	if tokens >= 0 {
		return 0
	}
	return seconds(-tokens / float64(m.bucket.limiter.Limit()))
}

// seconds is a duration that does not overflow.
func seconds(s float64) time.Duration { return time.Duration(min(s, 1e9) * float64(time.Second)) }

// Refuses tells whether the client is so far ahead of its quota that it is to be given nothing, and for how long.
func (m *Meter) Refuses(now time.Time) (time.Duration, bool) {
	ahead := m.Ahead(now)
	m.refusing = ahead > mostAhead || m.refusing && ahead > leastAhead
	if m.refusing {
		m.engine.counts[m.key].refused.Add(1)
	}
	return ahead, m.refusing
}

// Use counts n bytes, or microseconds, and returns for how long the client is to pause.
func (m *Meter) Use(n int64, now time.Time) time.Duration {
	l := m.bucket.limiter
	for burst := int64(l.Burst()); n > 0; n -= burst {
		l.ReserveN(now, int(min(n, burst)))
	}
	ahead := m.Ahead(now)
	if ahead > 0 {
		c := &m.engine.counts[m.key]
		c.throttled.Add(1)
		c.nanoseconds.Add(uint64(min(ahead, mostAhead)))
	}
	return ahead
}
