package kafka

import (
	"errors"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/bench"
)

// TestSaysWhatIsMissing looks for programs where there are none.
func TestSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	w, err := bench.WorkloadNamed("max-12-partitions-1kb")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Target{}.Start(t.Context(), bench.Setup{Dir: t.TempDir(), Workload: w, Log: t.Logf})
	if !errors.Is(err, errNoJava) || !strings.Contains(err.Error(), "--servers") {
		t.Errorf("got %v", err)
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	text := properties(2, "127.0.0.1:1", "127.0.0.1:2", []string{"1@a:1", "2@b:2"}, "/data")
	for _, want := range []string{
		"node.id=2\n", "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n", "advertised.listeners=PLAINTEXT://127.0.0.1:1\n",
		"controller.quorum.voters=1@a:1,2@b:2\n", "log.dirs=/data\n", "min.insync.replicas=2\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestDescribesDurability(t *testing.T) {
	t.Parallel()
	for fsync, want := range map[Fsync]string{FsyncDefault: "NOT before", FsyncAlways: "before the acknowledgement, on all"} {
		s := &system{target: Target{Fsync: fsync}, nodes: 3}
		if d := s.Describe(); !strings.HasPrefix(d.Fsync, want) || d.Replication != 3 || d.Quorum != 2 || !d.KeepsData {
			t.Errorf("%+v", d)
		}
	}
}

// TestMeasuresQuorumlogByItsKafkaAddresses: a cluster that runs already is named by addresses of another protocol.
func TestMeasuresQuorumlogByItsKafkaAddresses(t *testing.T) {
	t.Parallel()
	q := bench.Quorumlog{Protocol: Protocol{}}
	if q.Name() != "quorumlog-kafka" {
		t.Errorf("the target's name is %s", q.Name())
	}
	if err := q.Check(bench.Setup{Servers: []string{"127.0.0.1:1"}}); err == nil || !strings.Contains(err.Error(), "the target kafka") {
		t.Errorf("got %v", err)
	}
}
