package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/inspect"
)

// logDirectory makes the data directory of a node, with two batches in one log.
func logDirectory(t *testing.T) (dir string, o wal.Options) {
	t.Helper()
	dir = t.TempDir()
	args := []string{"format", "--node-id", "1", "--data-dir", dir, "--rpc-address", "127.0.0.1:0", "--gossip-address", "127.0.0.1:0"}
	if code, out, errs := runLine(args...); code != 0 {
		t.Fatalf("format: %d, %s%s", code, out, errs)
	}
	o = wal.Options{Dir: dir, FS: disk.NewBuffered(), JournalFileBytes: 128 << 10, CacheBytes: 8 << 20, ReserveBytes: 1}
	s, err := wal.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Create(context.Background(), wal.Spec{Group: 7, Replica: 17, Name: "orders-0", HardState: wal.HardState{Term: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var b batch.Builder
	b.Append(batch.Record{Timestamp: 1_700_000_000_000, Key: []byte("k"), Value: []byte("a\x1b[31mvalue")})
	b.Append(batch.Record{Timestamp: 1_700_000_000_001})
	data, err := b.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		t.Fatal(err)
	}
	data.Stamp(0, 1)
	done := make(chan struct{})
	s.Submit([]*wal.Append{{Log: l, Entries: []wal.Entry{{Index: 1, Term: 1, Kind: wal.KindBatch, Data: data}}, Done: func(*wal.Append) { close(done) }}})
	<-done
	l.SetCommit(1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, o
}

func runLine(words ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(context.Background(), words, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// TestLogVerifyExitCodes: 0 is for a directory without damage, 1 for one with it, 2 for what was not checked.
func TestLogVerifyExitCodes(t *testing.T) {
	t.Parallel()
	dir, o := logDirectory(t)
	expect := func(what string, want int, text string) {
		t.Helper()
		code, out, errs := runLine("log", "verify", dir)
		if code != want || !strings.Contains(out+errs, text) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s%s", what, code, want, text, out, errs)
		}
	}
	expect("a clean directory", 0, "orders-0.17")
	s, err := wal.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	expect("a running node", exitNotChecked, "a node runs on")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "meta.properties.copy")
	identity, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	identity[100] ^= 1
	if err := os.WriteFile(name, identity, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a torn copy of the identity", 0, "note")
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	expect("a copy of the identity less", exitFindings, "makes it again from meta.properties")
	if code, _, errs := runLine("log", "verify", filepath.Join(dir, "logs")); code != exitNotChecked || !strings.Contains(errs, "no data directory") {
		t.Errorf("another directory: %d, %s", code, errs)
	}
}

// TestLogVerifyOfSeveral: the directories of a node are checked one by one, and for what only all of them tell.
func TestLogVerifyOfSeveral(t *testing.T) {
	t.Parallel()
	home, _ := logDirectory(t)
	more := t.TempDir()
	args := []string{"format", "--node-id", "2", "--rpc-address", "127.0.0.1:0", "--gossip-address", "127.0.0.1:0"}
	two := t.TempDir()
	if code, out, errs := runLine(append(args, "--data-dir", two, "--data-dir", more)...); code != 0 {
		t.Fatalf("format: %d, %s%s", code, out, errs)
	}
	expect := func(what string, want int, texts []string, dirs ...string) {
		t.Helper()
		code, out, errs := runLine(append([]string{"log", "verify"}, dirs...)...)
		for _, text := range texts {
			if code != want || !strings.Contains(out+errs, text) {
				t.Errorf("%s: exit code %d, want %d with %q:\n%s%s", what, code, want, text, out, errs)
			}
		}
	}
	expect("two nodes", 0, []string{home + ":\n", "orders-0.17", two + ":\n"}, home, two, more)
	expect("one of two", 0, []string{"that was not checked"}, two)
	expect("one that is none", exitNotChecked, []string{"no data directory", "orders-0.17"}, filepath.Join(home, "logs"), home)
	twin := t.TempDir()
	if err := os.CopyFS(twin, os.DirFS(home)); err != nil {
		t.Fatal(err)
	}
	expect("a copy", exitFindings, []string{"it is in " + home + ", too"}, home, twin)
	if code, out, _ := runLine("log", "verify", "-o", "json", home, two); code != 0 || !strings.HasPrefix(out, "[\n") {
		t.Errorf("several as JSON: %d, %s", code, out)
	}
	if code, out, errs := runLine("log", "stats", home, twin); code != 0 || strings.Count(out, "orders-0.17") != 2 {
		t.Errorf("stats of two: %d, %s%s", code, out, errs)
	}
}

// TestLogDumpAndStats: what Kafka's tool prints of the same file is what is printed here.
func TestLogDumpAndStats(t *testing.T) {
	t.Parallel()
	dir, _ := logDirectory(t)
	file := filepath.Join(dir, "logs", "orders-0.17", "00000000000000000000.log")
	code, out, errs := runLine("log", "dump", "--records", file)
	want := "Dumping " + file + `
Log starting offset: 0
baseOffset: 0 lastOffset: 1 count: 2 baseSequence: -1 lastSequence: -1 producerId: -1 producerEpoch: -1 partitionLeaderEpoch: 1 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 1700000000001 size: 87 magic: 2 compresscodec: none crc: CRC isvalid: true
| offset: 0 CreateTime: 1700000000000 keySize: 1 valueSize: 11 sequence: -1 headerKeys: [] key: k payload: a.[31mvalue
| offset: 1 CreateTime: 1700000000001 keySize: -1 valueSize: -1 sequence: -1 headerKeys: []
`
	if i := strings.Index(out, "crc: "); i >= 0 {
		end := strings.Index(out[i:], " isvalid")
		out = out[:i] + "crc: CRC" + out[i+end:]
	}
	if code != 0 || out != want {
		t.Errorf("exit code %d, %s\n%s\nwant\n%s", code, errs, out, want)
	}
	if code, out, errs := runLine("log", "dump", "--records", "-o", "json", dir); code != 0 {
		t.Errorf("%d, %s", code, errs)
	} else {
		kinds := make(map[string]int)
		for line := range strings.Lines(out) {
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			kinds[v["kind"].(string)]++
		}
		for _, kind := range []string{"identity", "store", "log", "segment", "file", "frame", "batch", "record"} {
			if kinds[kind] == 0 {
				t.Errorf("no %s among %v", kind, kinds)
			}
		}
	}
	for _, name := range []string{"00.log", ".log", "notes.txt", "a.index/b"} { // which come before and behind the log's own
		name = filepath.Join(filepath.Dir(file), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte("something else"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, where := range []string{dir, filepath.Dir(file)} {
		code, out, errs := runLine("log", "dump", where)
		if code != exitFindings || !strings.Contains(errs, "2 files") || !strings.Contains(out, "\nPassed over "+filepath.Dir(file)+"/notes.txt: ") ||
			!strings.Contains(out, "/.log\n14 bytes") || !strings.Contains(out, "\nbaseOffset: 0") {
			t.Errorf("with files of somebody else: %d, %s\n%s", code, errs, out)
		}
	}
	if code, _, errs := runLine("log", "dump", filepath.Join(filepath.Dir(file), "notes.txt")); code != 1 || !strings.Contains(errs, "it is no .log") {
		t.Errorf("a file of somebody else: %d, %s", code, errs)
	}
	code, out, errs = runLine("log", "stats", "-o", "json", dir)
	var stats []inspect.Stats
	if err := json.Unmarshal([]byte(out), &stats); code != 0 || err != nil {
		t.Fatalf("%d, %v, %s", code, err, errs)
	}
	found := false
	for _, s := range stats {
		if s.Log == "orders-0.17" {
			found = true
			if s.Records != 2 || s.Next != 2 || s.Batches != 1 || s.Codecs["none"] != 1 || s.MaxTimestamp != 1_700_000_000_001 || s.BatchBytes.Max == 0 {
				t.Errorf("%+v", s)
			}
		}
	}
	if !found {
		t.Errorf("%+v", stats)
	}
}
