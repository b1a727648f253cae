package node

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// aloneOptions are those of a cluster of one node.
func aloneOptions() Options {
	return Options{
		NodeID: 1, DataDir: "node-1", ClusterName: "alone", RPCAddress: "127.0.0.1:0", GossipAddress: "127.0.0.1:0",
		Storage: StorageOptions{CacheBytes: 32 << 20, JournalFileBytes: 8 << 20},
		Timing:  TimingOptions{TickInterval: 50 * time.Millisecond, HeartbeatTicks: 2, ElectionTicks: 20, Gossip: GossipTest},
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

const alonePatience = 60 * time.Second

func startAlone(t *testing.T, d *disksim.Disk) (*Node, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(onDisk(d), alonePatience)
	defer cancel()
	return Start(ctx, aloneOptions())
}

// formatted is a disk with an identity for a cluster of one node.
func formatted(t *testing.T) *disksim.Disk {
	t.Helper()
	d := disksim.New(disksim.Options{Seed: 1})
	if _, err := Format(onDisk(d), aloneOptions()); err != nil {
		t.Fatal(err)
	}
	return d
}

func onDisk(d *disksim.Disk) context.Context {
	return simulated.WithDisk(context.Background(), simulated.Disk{Files: d, Pebble: d.Pebble()})
}

// awaitReady waits until the node is ready, or fails: it returns why.
func awaitReady(t *testing.T, n *Node) error {
	t.Helper()
	deadline := time.After(alonePatience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n.State() != Ready {
		select {
		case err := <-n.Fatal():
			return err
		case <-deadline:
			t.Fatal("neither ready nor failed")
		case <-tick.C:
		}
	}
	return nil
}

// commitRaw puts a record into the metadata log as a node of any release might, and returns when it is committed.
func commitRaw(t *testing.T, n *Node, key, value string) {
	t.Helper()
	var b batch.Builder
	b.Append(batch.Record{Timestamp: time.Now().UnixMilli(), Key: []byte(key), Value: []byte(value)})
	wire, err := b.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	n.controller.Group().Propose(&raftgroup.Proposal{Batch: wire, Acks: raftgroup.AcksAll, Done: func(*raftgroup.Proposal) { close(done) }})
	select {
	case <-done:
	case <-time.After(alonePatience):
		t.Fatal("not committed")
	}
}

// TestUnknownEntryStops: so does an entry that is no record, which only a later release writes into the metadata log.
func TestUnknownEntryStops(t *testing.T) {
	d := formatted(t)
	n, err := startAlone(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := awaitReady(t, n); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	n.controller.Group().Propose(&raftgroup.Proposal{
		Command: command.Command{Kind: 1, Version: 1, Body: []byte("of later")}.Append(nil), Acks: raftgroup.AcksAll,
		Done: func(*raftgroup.Proposal) { close(done) },
	})
	<-done
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), alonePatience)
		defer cancel()
		_ = n.Stop(ctx)
	}
	defer func() { stop() }()
	const want = "does not know entries of this kind"
	select {
	case err = <-n.Fatal():
	case <-time.After(alonePatience):
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("fatal: %v", err)
	}
	stop()
	if n, err = startAlone(t, d); err != nil {
		t.Fatal(err)
	}
	if err := awaitReady(t, n); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("started again: %v", err)
	}
}

// TestUnknownCommandStops: a command that this release does not know stops the metadata where it is. Nothing behind it is carried out, and
// however the node ends, it does not come back with a table that leaves the command out.
func TestUnknownCommandStops(t *testing.T) {
	ends := map[string]func(*testing.T, *Node, *disksim.Disk) *disksim.Disk{
		"orderly stop": func(_ *testing.T, n *Node, d *disksim.Disk) *disksim.Disk {
			ctx, cancel := context.WithTimeout(context.Background(), alonePatience)
			defer cancel()
			_ = n.Stop(ctx)
			return d
		},
		"kill": func(_ *testing.T, n *Node, d *disksim.Disk) *disksim.Disk {
			d.Halt()
			now, cancel := context.WithCancel(context.Background())
			cancel()
			_ = n.Stop(now)
			return d.Crash(disksim.Kill)
		},
	}
	const want = "this release does not know metadata command MoveReplica/99 (feature level 99; it knows levels up to "
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := formatted(t)
			n, err := startAlone(t, d)
			if err != nil {
				t.Fatal(err)
			}
			if err := awaitReady(t, n); err != nil {
				t.Fatal(err)
			}
			before := n.controller.View()
			commitRaw(t, n, "MoveReplica/99", `{"group":2,"to":3}`)
			key, value, err := placement.Encode(placement.AllocateProducerIDs{Node: 1, Count: 7}, placement.FirstLevel)
			if err != nil {
				t.Fatal(err)
			}
			commitRaw(t, n, string(key), string(value))
			if err := <-n.Fatal(); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "upgrade this node") {
				t.Errorf("fatal: %v", err)
			}
			if _, err := n.controller.Group().Status(context.Background()); err != nil { // a turn of the worker later
				t.Error(err)
			}
			if after := n.controller.View(); after != before {
				t.Errorf("the table went on from index %d to %d", before.Index(), after.Index())
			}
			if err := n.readiness(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("/readyz: %v", err)
			}
			if s := n.selfStatus(); s.State != "failed" || !strings.Contains(s.Trouble, want) {
				t.Errorf("status: %v", s)
			}
			d = end(t, n, d)
			for range 2 { // the first start ends in order
				if n, err = startAlone(t, d); err != nil {
					t.Fatal(err)
				}
				if err := awaitReady(t, n); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("started again: %v, at index %d of the metadata", err, n.controller.View().Index())
				}
				if got := n.controller.View().Index(); got > before.Index() {
					t.Errorf("started again: the table is at index %d, the command is behind %d", got, before.Index())
				}
				d = ends["orderly stop"](t, n, d)
			}
		})
	}
}
