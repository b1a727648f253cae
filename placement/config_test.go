package placement

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestDefaults(t *testing.T) {
	const week = 7 * 24 * 3600 * 1000
	want := TopicConfig{
		MinInSyncReplicas: 1, MaxMessageBytes: 1 << 20, RetentionMS: week, RetentionBytes: -1, SegmentMS: week,
		TimestampAfterMS: 3600 * 1000, TimestampBeforeMS: math.MaxInt64,
	}
	if got := DefaultTopicConfig(); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if !slices.IsSortedFunc(ConfigKeys(), func(a, b ConfigKey) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("keys are not sorted: they are searched")
	}
}

func TestParseConfigs(t *testing.T) {
	c, err := ParseConfigs(map[string]string{
		"min.insync.replicas": "2", "max.message.bytes": "1500000", "segment.bytes": "1048576", "retention.ms": "-1", "retention.bytes": "10",
		"cleanup.policy": "delete", "compression.type": "producer", "unclean.leader.election.enable": "false", "message.timestamp.type": "CreateTime",
		"segment.ms": "1", "message.timestamp.after.max.ms": "0", "message.timestamp.before.max.ms": "0",
	}, LogStartLevel)
	want := TopicConfig{MinInSyncReplicas: 2, MaxMessageBytes: 1_500_000, SegmentBytes: 1 << 20, SegmentMS: 1, RetentionMS: -1, RetentionBytes: 10}
	if err != nil || c != want {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tc := range []struct{ key, value, want string }{
		{"min.insync.replica", "2", `Unknown topic config "min.insync.replica", did you mean min.insync.replicas?`},
		{"retention_ms", "2", `did you mean retention.ms?`},
		{"retentionMs", "2", `did you mean retention.ms?`},
		{"Segment.Bytes", "2", `did you mean segment.bytes?`},
		{"color", "red", `Unknown topic config "color"; known are: cleanup.policy, `},
		{strings.Repeat("x", 5000), "1", `…"; known are:`},
		{"segment.jitter.ms", "2", "Topic config segment.jitter.ms of Kafka is not supported"},
		{"segment.ms", "0", "from 1 to"},
		{"message.timestamp.after.max.ms", "-1", "from 0 to"},
		{"message.timestamp.before.max.ms", "9223372036854775808", "from 0 to"},
		{"segment.bytes", "big", `Invalid value "big" for topic config segment.bytes: it must be an integer from 65536 to 2147483647`},
		{"max.message.bytes", "99999999999999999999", "it must be an integer from 1024 to 2000000"},
		{"retention.ms", "-2", "from -1 to"},
		{"cleanup.policy", "compact", "it must be delete (compaction is not supported)"},
		{"unclean.leader.election.enable", "true", "it must be false (a replica that misses acknowledged records is never elected)"},
	} {
		_, err := ParseConfigs(map[string]string{tc.key: tc.value}, LogStartLevel)
		if !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s=%s: got %v\nwant %s", quote(tc.key), tc.value, err, tc.want)
		}
	}
}

// TestConfigOfALaterLevel: a key that nodes do not honour before a level is not taken before it.
func TestConfigOfALaterLevel(t *testing.T) {
	for _, key := range []string{"segment.ms", "message.timestamp.after.max.ms", "message.timestamp.before.max.ms"} {
		if _, err := ParseConfigs(map[string]string{key: "5"}, LogStartLevel-1); !errors.Is(err, ErrFeatureLevel) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestAlterConfig(t *testing.T) {
	tab := clusterOf(t, 3)
	topic := mustCreate(t, tab, "a", 1, 3)
	changed := apply(t, tab, AlterTopicConfig{Name: "a", Set: map[string]string{"min.insync.replicas": "2", "retention.ms": "7"}}).(*Topic)
	if changed.Config.MinInSyncReplicas != 2 || changed.Config.RetentionMS != 7 || topic.Config.MinInSyncReplicas != 1 {
		t.Errorf("set: %+v", changed.Config)
	}
	changed = apply(t, tab, AlterTopicConfig{Name: "a", Remove: []string{"retention.ms", "segment.bytes"}}).(*Topic)
	if changed.Config.RetentionMS != DefaultTopicConfig().RetentionMS || len(changed.Configs) != 1 {
		t.Errorf("removed: %+v", changed)
	}
	if _, p := tab.View().Partition(topic.Partitions[0].Group); p != &tab.View().Topic("a").Partitions[0] {
		t.Error("the group leads to the topic as it was")
	}
	err := tab.View().Check(AlterTopicConfig{Name: "a", Set: map[string]string{"retention.ms": "1"}, Remove: []string{"retention.ms"}})
	if !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("both set and removed: %v", err)
	}
}
