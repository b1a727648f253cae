package client

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/rpc/pb"
)

// run is the refreshing goroutine.
func (m *metadataCache) run() {
	ctx := m.ctx
	old := time.NewTimer(m.opts.MetadataMaxAge)
	defer old.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	wanted, ended, notBefore := false, time.Time{}, time.Time{}
	for {
		var due <-chan time.Time
		if wanted {
			timer.Reset(time.Until(notBefore))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-m.fresh:
			m.introduce(ctx)
		case <-m.hurry:
			if soon := ended.Add(refreshInterval); soon.Before(notBefore) {
				notBefore = soon
			}
		case <-m.kick:
			wanted = true
		case <-old.C: // refreshes of what is in doubt do not put it off: they are about other topics
			old.Reset(m.opts.MetadataMaxAge)
			m.request()
		case <-due:
			wanted = false
			pause := m.refresh(ctx)
			ended = time.Now()
			notBefore = ended.Add(pause)
		}
	}
}

// introduce asks for the topics that are wanted for the first time. What that brings says nothing about those that are waited for already.
func (m *metadataCache) introduce(ctx context.Context) {
	m.mu.Lock()
	names := slices.Sorted(maps.Keys(m.mu.fresh))
	clear(m.mu.fresh)
	m.mu.Unlock()
	if len(names) == 0 {
		return
	}
	err := m.askAll(ctx, names, false)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endedLocked(ctx, err)
}

// refresh asks for what is in doubt, and returns how long to leave the nodes alone then.
func (m *metadataCache) refresh(ctx context.Context) time.Duration {
	m.mu.Lock()
	var names []string
	for name := range m.mu.doubted {
		if _, ok := m.mu.wanted[name]; ok {
			names = append(names, name)
			delete(m.mu.fresh, name)
		}
	}
	clear(m.mu.doubted)
	if time.Since(m.mu.ended) > 2*refreshIntervalMax {
		m.mu.trouble = time.Time{} // it is over: nobody has asked
	}
	before := m.current.Load()
	all := !m.mu.trouble.IsZero()
	m.mu.Unlock()
	slices.Sort(names)

	err := m.askAll(ctx, names, all)

	m.mu.Lock()
	defer m.mu.Unlock()
	news := m.current.Load().news(before)
	m.mu.sources.refreshed(news)
	m.endedLocked(ctx, err)
	return m.restLocked(news, time.Now())
}

// restLocked is pauseLocked with what keeps clients out of step.
func (m *metadataCache) restLocked(news bool, now time.Time) time.Duration {
	pause := m.pauseLocked(news, now)
	return pause + rand.N(pause/4)
}

// pauseLocked is how long to leave the nodes alone after a refresh that ends now.
func (m *metadataCache) pauseLocked(news bool, now time.Time) time.Duration {
	m.mu.ended = now
	switch {
	case news:
		m.mu.trouble = time.Time{}
	case m.mu.trouble.IsZero():
		m.mu.trouble = now
	default:
		return min(max(refreshInterval, now.Sub(m.mu.trouble)/troubleShare), refreshIntervalMax)
	}
	return refreshInterval
}

// endedLocked notes the end of a refresh.
func (m *metadataCache) endedLocked(ctx context.Context, err error) {
	m.mu.refreshes++
	if err != nil && m.mu.err == nil && ctx.Err() == nil {
		m.opts.Logger.Warn("no node answers with metadata that is up to date", "error", err)
	}
	m.mu.err = err
	m.mu.reach.refreshed(m.mu.began, err)
	m.announceLocked()
}

// askAll asks for topics, as many at a time as one answer may have.
func (m *metadataCache) askAll(ctx context.Context, names []string, all bool) error {
	if len(names) == 0 {
		return m.ask(ctx, &pb.MetadataRequest{NodesOnly: true}, all)
	}
	for len(names) > 0 {
		n := m.current.Load().atOnce(names)
		if err := m.ask(ctx, &pb.MetadataRequest{Topics: names[:n]}, all); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// errNoMajority says that nodes answer, and none of them knows more than it did when it lost its peers.
var errNoMajority = errors.New("client: no node that answers has had word from a majority of the cluster lately")

// ask asks one node after the other, each as soon as the one before has failed, is slow or has not enough to say, and takes what they
// answer. It ends with the first answer that is enough; where there is none, a moment after the first one.
//
// Once a refresh has brought nothing new, all are asked: in a cut cluster those who hear the majority of the metadata, and are up to date by
// that, may not hear the majority of a partition. Whoever leads it now is known on the other side only.
func (m *metadataCache) ask(ctx context.Context, req *pb.MetadataRequest, all bool) error {
	type result struct {
		resp   *pb.MetadataResponse
		server string
		err    error
	}
	ctx, cancel := context.WithTimeout(ctx, m.opts.RequestTimeout)
	defer cancel()
	m.mu.Lock()
	m.mu.began = time.Now()
	m.mu.Unlock()
	servers := m.addresses()
	results := make(chan result, len(servers))
	open := make(map[string]time.Time) // since when
	defer func() { m.shunSlow(open) }()
	asked := 0
	next := func() {
		if asked == len(servers) {
			return
		}
		server := servers[asked]
		asked++
		open[server] = time.Now()
		m.wg.Go(func() {
			resp, err := m.dialer.Admin(server).Metadata(ctx, req)
			results <- result{resp, server, err}
		})
	}
	var failures []error
	var settle <-chan time.Time // set by the first answer that was not enough
	answered := false
	next()
	for len(open) > 0 {
		select {
		case r := <-results:
			delete(open, r.server)
			enough, err := false, r.err
			if err == nil {
				enough, err = m.take(r.server, req, r.resp)
			} else {
				err = m.refused(r.server, err)
			}
			switch {
			case enough && !all:
				return nil
			case err != nil:
				failures = append(failures, err)
			case settle == nil:
				settle = time.After(2 * hedgeDelay)
			}
			answered = answered || enough
			next()
			continue
		case <-time.After(hedgeDelay):
			next()
			continue
		case <-settle:
		}
		break
	}
	switch {
	case answered:
		return nil
	case settle != nil:
		return m.unsettled(failures)
	}
	return allOf(failures)
}

// unsettled is the error of a refresh that had answers, and none that was enough.
func (m *metadataCache) unsettled(failures []error) error {
	if !m.settled() {
		return errors.Join(failures...) // the topic is unknown to all of them
	}
	return errors.Join(append([]error{errNoMajority}, failures...)...)
}

// allOf joins errors. If all servers are of another cluster, it is the first one itself: nothing is to be waited for.
func allOf(failures []error) error {
	if len(failures) == 0 || slices.ContainsFunc(failures, func(err error) bool { return !errors.Is(err, ErrWrongCluster) }) {
		return errors.Join(failures...)
	}
	return failures[0]
}

// shunSlow has those asked later in the future who were overtaken by others.
func (m *metadataCache) shunSlow(open map[string]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for server, since := range open {
		if now.Sub(since) >= hedgeDelay {
			m.mu.sources.shun(server, now)
		}
	}
}
