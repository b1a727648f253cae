package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/client"
)

// TestUnsafeNoFsync runs a node that does not sync: it says so wherever one may look, its directory is as good as any other after
// a stop in order, and is refused after a kill.
func TestUnsafeNoFsync(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	args := founderArgs(t, t.TempDir(), 1)
	unsafe := append(args[:len(args):len(args)], "--unsafe-no-fsync", "--metrics", "127.0.0.1:0")
	d := launch(t, unsafe...)
	port, _, metrics := d.ports()
	makeTopic(t, newClient(t, port), client.TopicSpec{Name: "numbers", Partitions: 2, ReplicationFactor: 1})
	produceNumbers(t, newClient(t, port), "numbers", 0, 1000)
	if lines := d.errout.lines("WILL lose"); len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") {
		t.Errorf("it starts with %q", lines)
	}
	if text := clusterStatus(t, port); !strings.Contains(text, "WARNING: nodes that run with --unsafe-no-fsync: 1.") {
		t.Errorf("cluster status says\n%s", text)
	}
	if text := clusterStatus(t, port, "-o", "json"); !strings.Contains(text, `"fsync_class": "none (unsafe)"`) {
		t.Errorf("cluster status -o json says\n%s", text)
	}
	if text := httpGet(t, "http://"+metrics+"/metrics"); !strings.Contains(text, "\nquorumlog_unsafe_no_fsync 1\n") {
		t.Errorf("the metrics do not say it:\n%s", text)
	}
	d.terminate()

	d = launch(t, args...)
	port, _, _ = d.ports()
	readNumbers(t, newClient(t, port), "numbers", 1000)
	if text := clusterStatus(t, port); strings.Contains(text, "WARNING") {
		t.Errorf("cluster status says\n%s", text)
	}
	d.terminate()

	d = launch(t, unsafe...)
	d.serves(1)
	d.kill()
	d = launch(t, args...)
	if code := d.code(); code != 1 || !strings.Contains(d.lastWords(), "storage=unsynced") {
		t.Errorf("after a kill it exits with %d: %s", code, d.lastWords())
	}
}

func clusterStatus(t *testing.T, server string, more ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(testContext(t), append([]string{"cluster", "status", "--servers", server}, more...), strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	return out.String()
}

func httpGet(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
