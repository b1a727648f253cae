package wal

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// ruleSeeds is within how many seeds a hole must show; most show within ten.
const ruleSeeds = 1000

// TestEachRuleIsNeeded switches one rule of durability off at a time: the crash test must find the hole that the rule closes.
func TestEachRuleIsNeeded(t *testing.T) {
	if testing.Short() {
		t.Skip("searches for losses, and there are no other goroutines than in TestCrashes")
	}
	slow := func(c *crashConfig) { c.slow = 80 }
	busy := func(c *crashConfig) { // many segments, many checkpoints
		c.slow, c.tune = 50, func(o *Options) { o.SegmentBytes, o.CheckpointBytes, o.DirectAppendBytes = 16<<10, 8<<10, 1 }
	}
	small := func(c *crashConfig) { // evictions all the time
		c.slow, c.ops, c.boots = 30, 150, 3
		c.tune = func(o *Options) { o.CacheBytes, o.DirectAppendBytes, o.SegmentBytes = 16<<10, 1, 256<<10 }
	}
	for _, c := range []struct {
		rule string
		rare bool // takes hundreds of seeds: only with QUORUMLOG_CRASH_SEEDS
		off  rules
		tune func(*crashConfig)
	}{
		{rule: "truncateFragment", off: rules{truncateFragment: true}},
		{rule: "truncateWaits", off: rules{truncateWaits: true}, tune: slow},
		{rule: "recoverySync", off: rules{recoverySync: true}},
		{rule: "recoveryCopy", off: rules{recoveryCopy: true}},
		{rule: "cutUncommitted", off: rules{cutUncommitted: true}},
		{rule: "cutWaits", off: rules{cutWaits: true}},
		{rule: "directSync", off: rules{directSync: true}},
		{rule: "flushSync", off: rules{flushSync: true}},
		{rule: "unlinkWaits", rare: true, off: rules{unlinkWaits: true}, tune: busy},
		{rule: "evictWaits", rare: true, off: rules{evictWaits: true}, tune: small},
		{rule: "freshNames", off: rules{freshNames: true}},
		{rule: "sealCommitted", off: rules{sealCommitted: true}},
		{rule: "nameSync", off: rules{nameSync: true}},
		{rule: "retireCovered", off: rules{retireCovered: true}},
		{rule: "replayCovered", off: rules{replayCovered: true}},
		{rule: "referenceCheck", off: rules{referenceCheck: true}},
		{rule: "deletionSync", off: rules{deletionSync: true}},
		{rule: "tombstones", off: rules{tombstones: true}},
		{rule: "tombstonesStand", off: rules{tombstonesStand: true}},
		{rule: "trimApplied", off: rules{trimApplied: true}, tune: busy},
		{rule: "startStored", rare: true, off: rules{startStored: true}, tune: busy},
		{rule: "startTold", rare: true, off: rules{startTold: true}, tune: busy},
		{rule: "stopMark", off: rules{stopMark: true}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if _, long := os.LookupEnv("QUORUMLOG_CRASH_SEEDS"); c.rare && !long {
				t.Skip("takes long; set QUORUMLOG_CRASH_SEEDS")
			}
			for seed := range uint64(ruleSeeds) {
				cfg := crashConfig{seed: seed, boots: 8, ops: 60, off: c.off}
				if c.tune != nil {
					c.tune(&cfg)
				}
				if err := runOrPanic(cfg); err != nil {
					t.Logf("found by seed %d: %.300v", seed, err)
					return
				}
			}
			t.Errorf("without the rule nothing goes wrong in %d seeds", ruleSeeds)
		})
	}
}

// runOrPanic takes a panic on the owner's goroutine for a violation.
func runOrPanic(c crashConfig) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return newCrashRun(c).run()
}

// TestVoteOutlivesBadReference damages a segment before anything vouches for its round: the entries go, term and vote, which
// others may have heard of, stay. Without the rule they go too.
func TestVoteOutlivesBadReference(t *testing.T) {
	vote := func(off rules) HardState {
		r := newCrashRun(crashConfig{seed: 8, off: off})
		r.opts.DirectAppendBytes, r.opts.SegmentBytes = 1, 1<<20
		r.open(0)
		r.create()
		m := r.live()[0]
		m.stuck = true
		for range 10 { // until there is a segment to be written directly
			r.store.Submit([]*Append{r.makeAppend(m, r.extend(m, true))})
			r.settle()
			r.poll("files", func() bool { return r.ready(m) })
		}
		sub := r.extend(m, true)
		sub.hs = r.newTerm(m)
		sub.hs.Vote = 2
		for _, e := range sub.ents {
			e.Term = sub.hs.Term
		}
		a := r.makeAppend(m, sub)
		done := a.Done
		a.Done = func(a *Append) {
			done(a)
			r.disk.Halt() // before a later frame vouches for the round
		}
		r.store.Submit([]*Append{a})
		r.settle()
		dir, name := r.logs[m].dir, ""
		if err := r.failure(); err != nil {
			t.Fatal(err)
		}
		r.end()
		r.disk = r.disk.Crash(disksim.Kill)
		pos := int64(0)
		for _, e := range m.base.ents {
			pos += int64(len(e.Data))
		}
		for i := range m.subs {
			for _, e := range m.subs[i].ents {
				if i < len(m.subs)-1 {
					pos += int64(len(e.Data))
				}
			}
		}
		names, err := r.disk.List("/data/logs/" + dir)
		for _, n := range names {
			if strings.HasSuffix(n, ".log") {
				name = n
			}
		}
		if err != nil || name == "" {
			t.Fatal("there is no segment")
		}
		if err := r.disk.Flip("/data/logs/"+dir+"/"+name, pos+100, 1); err != nil {
			t.Fatal(err)
		}
		r.open(1)
		if err := r.failure(); err != nil {
			t.Fatal(err)
		}
		defer r.end()
		for _, l := range r.store.Logs() {
			if l.Replica() == m.replica {
				if l.LastIndex() != sub.ents[0].Index-1 {
					t.Fatalf("the log ends with %d; the damage begins at %d", l.LastIndex(), sub.ents[0].Index)
				}
				return l.HardState()
			}
		}
		t.Fatalf("the log is not there: %+v", r.store.Refused())
		return HardState{}
	}
	if hs := vote(rules{}); hs.Vote != 2 {
		t.Errorf("the vote was lost with the entries: %+v", hs)
	}
	if hs := vote(rules{droppedTerm: true}); hs.Vote == 2 {
		t.Errorf("the vote did not need the rule: %+v", hs)
	}
}

// ready tells whether the log's segment can be written directly.
func (r *crashRun) ready(m *replica) bool {
	l := r.logs[m]
	l.mu.Lock()
	defer l.mu.Unlock()
	sg := l.active()
	return sg != nil && sg.names == namesReady
}
