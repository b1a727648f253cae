package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal"
)

func TestFilesAreShared(t *testing.T) {
	t.Parallel()
	for limit := uint64(leastOpenFiles); limit < 100_000; limit++ {
		s, err := shareFiles(limit)
		if err != nil {
			t.Fatal(err)
		}
		sum := ownFiles + leastOutbound + s.storage + s.clients + s.peers + s.gossip + s.console
		if uint64(sum) > limit || s.storage < wal.LeastOpenFiles || s.clients < leastClients || s.peers < leastPeers || s.console < leastConsole {
			t.Fatalf("of %d files: %+v", limit, s)
		}
	}
	for limit, want := range map[uint64]fileShares{
		leastOpenFiles: {leastOpenFiles, wal.LeastOpenFiles, leastClients, leastPeers, leastGossip, leastConsole},
		1024:           {1024, 481, 271, 62, 62, 62},
		16384:          {16384, 11048, 4096, 512, 128, 64},
		^uint64(0):     {^uint64(0), mostStorage, mostClients, mostPeers, mostGossip, mostConsole},
	} {
		if s, err := shareFiles(limit); err != nil || s != want {
			t.Errorf("of %d files: %+v, %v, want %+v", limit, s, err, want)
		}
	}
	if _, err := shareFiles(leastOpenFiles - 1); err == nil || !strings.Contains(err.Error(), "ulimit -n") || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("too few files: %v", err)
	}
}

func TestWarningOfFewFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit    uint64
		replicas int
		want     string
	}{
		{1024, 100, ""},
		{1024, 1200, "limit=1024 replicas=1200 files_for_storage=481 files_wanted=2530 advised_limit=16384"},
		{1024, 10_000, "advised_limit=32768"},
		{1 << 20, 1_000_000, ""},
	} {
		s, err := shareFiles(c.limit)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s.warnOfFewFiles(slog.New(slog.NewTextHandler(&log, nil)), c.replicas)
		if !strings.Contains(log.String(), c.want) || c.want == "" && log.Len() > 0 {
			t.Errorf("%d files for %d replicas: %q", c.limit, c.replicas, log.String())
		}
	}
}
