package wal

import "testing"

// TestEachRuleIsNeeded switches one rule of durability off at a time: the crash test must find the hole that the rule closes.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, c := range []struct {
		rule  string
		seeds int // within which the hole shows, with room to spare
		off   rules
		tune  func(*crashConfig)
	}{
		{rule: "truncateFragment", seeds: 300, off: rules{truncateFragment: true}},
		{rule: "truncateWaits", seeds: 300, off: rules{truncateWaits: true}, tune: func(c *crashConfig) { c.slow = 80 }},
		{rule: "recoverySync", seeds: 300, off: rules{recoverySync: true}},
		{rule: "recoveryCopy", seeds: 300, off: rules{recoveryCopy: true}},
		{rule: "cutUncommitted", seeds: 300, off: rules{cutUncommitted: true}},
		{rule: "cutWaits", seeds: 300, off: rules{cutWaits: true}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			for seed := range uint64(c.seeds) {
				cfg := crashConfig{seed: seed, boots: 8, ops: 60, off: c.off}
				if c.tune != nil {
					c.tune(&cfg)
				}
				if err := newCrashRun(cfg).run(); err != nil {
					t.Logf("found by seed %d: %.300v", seed, err)
					return
				}
			}
			t.Errorf("without the rule nothing goes wrong in %d seeds", c.seeds)
		})
	}
}
