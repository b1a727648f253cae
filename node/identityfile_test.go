package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

var quiet = slog.New(slog.DiscardHandler)

// openForTest counts a start of node 1.
func openForTest(d *disksim.Disk, logger *slog.Logger) (identity, error) {
	return openIdentity(d, "/data", identity{NodeID: 1}, "c", wal.FsyncAll, logger)
}

// usedDirectory is a directory after its first start.
func usedDirectory(t *testing.T, seed uint64) (*disksim.Disk, identity) {
	t.Helper()
	d := disksim.New(disksim.Options{Seed: seed})
	if err := makeDirectory(d, "/data"); err != nil {
		t.Fatal(err)
	}
	ident, err := openForTest(d, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return d, ident
}

// TestIdentityOutlivesCrashes starts a node again and again, on a disk that is full from the second start on, and ends the machine at any
// operation: the directory remains whose it was, and no number of a start is given twice.
func TestIdentityOutlivesCrashes(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		d := disksim.New(disksim.Options{Seed: seed, Direct: seed%2 == 0})
		if err := makeDirectory(d, "/data"); err != nil {
			t.Fatal(err)
		}
		var known identity // as the last start that was told so knows it
		for boot := range 12 {
			if rng.IntN(4) > 0 {
				d.CrashAt(1 + rng.Int64N(14))
			}
			got, err := openForTest(d, quiet)
			if !d.Halted() {
				switch {
				case err != nil:
					t.Fatalf("seed %d, start %d: %v", seed, boot, err)
				case known.StoreID != "" && (got.StoreID != known.StoreID || got.ClusterID != known.ClusterID || got.Boot <= known.Boot):
					t.Fatalf("seed %d, start %d: %+v after %+v", seed, boot, got, known)
				}
				known = got
				if known.ClusterID == "" && rng.IntN(2) == 0 { // it joins a cluster
					got.ClusterID, got.Cluster = "cluster", "c"
					if err := got.store(d, "/data"); err == nil && !d.Halted() {
						known = got
					} else if !d.Halted() {
						t.Fatalf("seed %d, start %d: %v", seed, boot, err)
					} else if known.StoreID != "" {
						known.ClusterID = "" // it may be there or not
					}
				}
			}
			d = d.Crash(disksim.Kind(rng.IntN(2)))
			if known.StoreID != "" {
				if text, crash := Disagree(LookAtIdentity(d, "/data")); text != "" && !crash {
					t.Fatalf("seed %d, start %d: after a crash the copies are said to be damaged: %s", seed, boot, text)
				}
				d.SetCapacity(d.Used())
				if after, err := loadIdentity(d, "/data", quiet); err == nil && known.ClusterID == "" {
					known.ClusterID = after.ClusterID
				}
			}
		}
	}
}

// TestIdentityOutlivesAKillAndAPowerLoss ends the process at each operation of a start, and the machine at each of the next one: what the
// latter finds may be in the cache only, and is not to be relied on when it writes over the rest.
func TestIdentityOutlivesAKillAndAPowerLoss(t *testing.T) {
	for seed := range uint64(12) {
		for kill := range int64(8) {
			for loss := range int64(8) {
				d, before := usedDirectory(t, seed)
				d.CrashAt(1 + kill)
				_, _ = openForTest(d, quiet)
				d = d.Crash(disksim.Kill)
				d.CrashAt(1 + loss)
				_, _ = openForTest(d, quiet)
				d = d.Crash(disksim.PowerLoss)
				if after, err := openForTest(d, quiet); err != nil || after.StoreID != before.StoreID || after.Boot <= before.Boot {
					t.Fatalf("seed %d, killed at %d, power lost at %d: %+v, %v", seed, kill, loss, after, err)
				}
			}
		}
	}
}

// TestIdentityIsSyncedBeforeTheRestGoes looks at what a start does after a kill: it writes over a file only when it has itself synced the
// other one, and the names. That it may lose both otherwise takes two accidents at once.
func TestIdentityIsSyncedBeforeTheRestGoes(t *testing.T) {
	for kill := range int64(9) {
		d, _ := usedDirectory(t, 1)
		d.CrashAt(1 + kill)
		_, _ = openForTest(d, quiet)
		d = d.Crash(disksim.Kill)
		synced := make(map[string]bool)
		d.SetAfter(func(op disksim.Op, err error) {
			switch {
			case err != nil:
			case op.Kind == disksim.OpSync || op.Kind == disksim.OpSyncDir:
				synced[op.Name] = true
			case op.Kind == disksim.OpWrite:
				other := "/data/" + identityFile
				if op.Name == other {
					other = "/data/" + identityCopy
				}
				if !synced[other] || !synced["/data"] {
					t.Errorf("killed at %d: %v before %s and its name are synced", kill, op, other)
				}
				synced[op.Name] = false
			}
		})
		if _, err := openForTest(d, quiet); err != nil {
			t.Error(err)
		}
	}
}

// TestIdentityIsRepaired damages one of the files in many ways: the other one makes up for it, and the log says so. Both damaged in the
// same way are refused.
func TestIdentityIsRepaired(t *testing.T) {
	flip := func(off int64) func(*disksim.Disk, string) error {
		return func(d *disksim.Disk, name string) error { return d.Flip(name, off, 4) }
	}
	ways := map[string]func(*disksim.Disk, string) error{
		"missing": func(d *disksim.Disk, name string) error { return d.Remove(name) },
		"empty":   func(d *disksim.Disk, name string) error { return d.WriteFile(name, nil) },
		"edited": func(d *disksim.Disk, name string) error {
			return d.WriteFile(name, []byte("version=2\nnode.id=1\nstore.id=x\nboot=1\n"))
		},
	}
	for off := int64(0); off < disk.BlockSize; off += 53 {
		ways[fmt.Sprintf("bit flipped in byte %d", off)] = flip(off)
	}
	for way, damage := range ways {
		for _, name := range identityFiles {
			d, before := usedDirectory(t, 1)
			if err := damage(d, "/data/"+name); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			after, err := openForTest(d, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil || after.StoreID != before.StoreID || after.Boot != before.Boot+1 {
				t.Errorf("%s %s: %+v, %v", name, way, after, err)
			}
			if !strings.Contains(log.String(), "/data/"+name) {
				t.Errorf("%s %s: the log says %q", name, way, log.String())
			}
			if name != identityFile || way == "missing" {
				continue
			}
			for _, name := range identityFiles {
				if err := damage(d, "/data/"+name); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := openForTest(d, quiet); err == nil || !strings.Contains(err.Error(), "backup") && !strings.Contains(err.Error(), "release") {
				t.Errorf("both %s: %v", way, err)
			}
		}
	}
}

// TestHalfAnIdentityIsNoNewDirectory: what is left of an identity, or cannot be repaired, must not be taken for a directory that nobody
// has used.
func TestHalfAnIdentityIsNoNewDirectory(t *testing.T) {
	d, before := usedDirectory(t, 1)
	if err := errors.Join(d.Remove("/data/"+identityCopy), d.Flip("/data/"+identityFile, 100, 1)); err != nil {
		t.Fatal(err)
	}
	if got, err := openForTest(d, quiet); err == nil || !strings.Contains(err.Error(), "backup") {
		t.Errorf("one missing, the other damaged: %+v, %v", got, err)
	}
	if err := d.Flip("/data/"+identityFile, 100, 1); err != nil {
		t.Fatal(err)
	}
	d.SetCapacity(d.Used())
	if got, err := openForTest(d, quiet); !errors.Is(err, disk.ErrNoSpace) {
		t.Errorf("one missing, and no space for it: %+v, %v", got, err)
	}
	d.SetCapacity(0)
	if got, err := openForTest(d, quiet); err != nil || got.StoreID != before.StoreID {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestIdentityOfAnother puts a file of another directory, or of another format, in the place of one of the two.
func TestIdentityOfAnother(t *testing.T) {
	other := &identity{NodeID: 2, StoreID: "other", Boot: 70, Revision: 70}
	block, err := other.block()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range identityFiles {
		d, _ := usedDirectory(t, 1)
		if err := d.WriteFile("/data/"+name, block); err != nil {
			t.Fatal(err)
		}
		_, err := openForTest(d, quiet)
		if err == nil || !strings.Contains(err.Error(), "store other of node 2") || !strings.Contains(err.Error(), "remove") {
			t.Errorf("%s: %v", name, err)
		}
		if err := d.WriteFile("/data/"+name, []byte("version=4\nanything=else\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := openForTest(d, quiet); err == nil || !strings.Contains(err.Error(), "data format 4") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestIdentityIsReadable: people and their scripts read the file as key=value.
func TestIdentityIsReadable(t *testing.T) {
	d, ident := usedDirectory(t, 1)
	for _, name := range identityFiles {
		data, err := d.ReadFile("/data/" + name)
		line := []byte("\nstore.id=" + ident.StoreID + "\n")
		if err != nil || !bytes.Contains(data, line) || bytes.ContainsRune(data, 0) || data[len(data)-1] != '\n' {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

// TestUnusableDirectory starts a node where it may not write, or not even read.
func TestUnusableDirectory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cause syscall.Errno
		want  string
	}{
		{syscall.EROFS, "mounted read-only"},
		{syscall.EACCES, "chown"},
	} {
		sim := disksim.New(disksim.Options{})
		o := Options{NodeID: 1, DataDir: "/data", RPCAddress: "127.0.0.1:0", GossipAddress: "127.0.0.1:0", Logger: quiet}
		ctx := simulated.WithDisk(context.Background(), simulated.Disk{Files: sim, Pebble: sim.Pebble()})
		if _, err := Format(ctx, o); err != nil {
			t.Fatal(err)
		}
		n, err := Start(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		sim.SetHook(func(op disksim.Op) error {
			if c.cause == syscall.EROFS && (op.Kind == disksim.OpRead || op.Kind == disksim.OpOpen) {
				return nil
			}
			return c.cause
		})
		if _, err := Start(ctx, o); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/data") {
			t.Errorf("%v: %v", c.cause, err)
		}
	}
}

// TestCopiesThatDisagree: what no crash leaves is damage.
func TestCopiesThatDisagree(t *testing.T) {
	t.Parallel()
	whole := IdentityCopy{ClusterID: "id", Cluster: "c", NodeID: 1, StoreID: "s", Boot: 3, Revision: 5, More: []string{"m"}}
	for _, tt := range []struct {
		name   string
		change func(c *IdentityCopy)
		text   string
		crash  bool
	}{
		{"equal", func(*IdentityCopy) {}, "", false},
		{"torn", func(c *IdentityCopy) { c.Err = fmt.Errorf("%w: checksum", errIdentityDamaged) }, "makes it again", true},
		{"missing", func(c *IdentityCopy) { c.Err = fs.ErrNotExist }, "makes it again", false},
		{"a bad sector", func(c *IdentityCopy) { c.Err = syscall.EIO }, "makes it again", false},
		{"one write ahead", func(c *IdentityCopy) { c.Revision, c.Boot, c.More = 6, 4, nil }, "makes them equal", true},
		{"not in the cluster yet", func(c *IdentityCopy) { c.Revision, c.ClusterID, c.Cluster = 4, "", "" }, "makes them equal", true},
		{"two writes ahead", func(c *IdentityCopy) { c.Revision = 7 }, "makes them equal", false},
		{"another store's", func(c *IdentityCopy) { c.StoreID = "t" }, "of store t", false},
		{"another cluster's", func(c *IdentityCopy) { c.ClusterID, c.Revision = "other", 6 }, "not written here", false},
		{"beside another", func(c *IdentityCopy) { c.Home, c.Revision = "h", 6 }, "not written here", false},
		{"another list", func(c *IdentityCopy) { c.More = []string{"n"} }, "not equal", false},
		{"another cluster id, same write", func(c *IdentityCopy) { c.ClusterID = "" }, "not equal", false},
	} {
		other := whole
		tt.change(&other)
		for _, copies := range [][]IdentityCopy{{whole, other}, {other, whole}} {
			if text, crash := Disagree(copies); crash != tt.crash || !strings.Contains(text, tt.text) || (text == "") != (tt.text == "") {
				t.Errorf("%s: %q, %t", tt.name, text, crash)
			}
		}
	}
}
