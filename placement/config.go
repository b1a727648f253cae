package placement

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// MaxMessageBytesLimit is the largest max.message.bytes that a topic may have. A batch has to fit into one message between nodes, of
// 2 MiB with everything around it: one that a leader could take and not pass on would stop its partition.
const MaxMessageBytesLimit = 2_000_000

// TopicConfig is the effective configuration of a topic: what was set, and the defaults for the rest.
type TopicConfig struct {
	MinInSyncReplicas int   // min.insync.replicas
	MaxMessageBytes   int   // max.message.bytes: of a batch, as sent
	SegmentBytes      int64 // segment.bytes; 0: not set, each node takes its own default
	SegmentMS         int64 // segment.ms
	RetentionMS       int64 // retention.ms; -1: no limit by time
	RetentionBytes    int64 // retention.bytes, of one partition; -1: no limit by size
	TimestampBeforeMS int64 // message.timestamp.before.max.ms
	TimestampAfterMS  int64 // message.timestamp.after.max.ms
}

// DefaultTopicConfig returns what a topic has of which nothing was set.
func DefaultTopicConfig() TopicConfig {
	var c TopicConfig
	for _, k := range configKeys {
		if k.Default == "" {
			continue
		}
		if err := k.apply(&c, k.Default); err != nil {
			panic("placement: default of " + k.Name + ": " + err.Error())
		}
	}
	return c
}

// ConfigKey describes one key of a topic's configuration.
type ConfigKey struct {
	Name    string       // Kafka's
	Default string       // "" if each node has its own
	Values  string       // what is allowed, for people
	Level   FeatureLevel // with which it came; 0: FirstLevel
	apply   func(*TopicConfig, string) error
}

// ConfigKeys returns the known keys, sorted by name.
func ConfigKeys() []ConfigKey { return slices.Clone(configKeys) }

var configKeys = []ConfigKey{
	oneOf("cleanup.policy", "delete", "compaction is not supported"),
	oneOf("compression.type", "producer", "batches are stored as the producer compressed them"),
	integer("max.message.bytes", "1048576", 1024, MaxMessageBytesLimit, func(c *TopicConfig, v int64) { c.MaxMessageBytes = int(v) }),
	integer("message.timestamp.after.max.ms", "3600000", 0, math.MaxInt64, func(c *TopicConfig, v int64) { c.TimestampAfterMS = v }).from(LogStartLevel),
	integer("message.timestamp.before.max.ms", "9223372036854775807", 0, math.MaxInt64,
		func(c *TopicConfig, v int64) { c.TimestampBeforeMS = v }).from(LogStartLevel),
	oneOf("message.timestamp.type", "CreateTime", "batches are stored with the timestamps that the producer gave them"),
	integer("min.insync.replicas", "1", 1, math.MaxInt16, func(c *TopicConfig, v int64) { c.MinInSyncReplicas = int(v) }),
	integer("retention.bytes", "-1", -1, math.MaxInt64, func(c *TopicConfig, v int64) { c.RetentionBytes = v }),
	integer("retention.ms", "604800000", -1, math.MaxInt64, func(c *TopicConfig, v int64) { c.RetentionMS = v }),
	integer("segment.bytes", "", 64<<10, math.MaxInt32, func(c *TopicConfig, v int64) { c.SegmentBytes = v }),
	integer("segment.ms", "604800000", 1, math.MaxInt64, func(c *TopicConfig, v int64) { c.SegmentMS = v }).from(LogStartLevel),
	oneOf("unclean.leader.election.enable", "false", "a replica that misses acknowledged records is never elected"),
}

// kafkaOnly are keys that Kafka has and this release has not: people who bring their scripts along get a better answer than the
// nearest spelling.
var kafkaOnly = []string{
	"delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms", "follower.replication.throttled.replicas",
	"index.interval.bytes", "leader.replication.throttled.replicas", "local.retention.bytes", "local.retention.ms",
	"max.compaction.lag.ms", "message.downconversion.enable", "message.format.version", "message.timestamp.difference.max.ms", "min.cleanable.dirty.ratio",
	"min.compaction.lag.ms", "preallocate", "remote.storage.enable", "segment.index.bytes", "segment.jitter.ms",
}

func integer(name, def string, low, high int64, set func(*TopicConfig, int64)) ConfigKey {
	values := fmt.Sprintf("an integer from %d to %d", low, high)
	return ConfigKey{Name: name, Default: def, Values: values, apply: func(c *TopicConfig, text string) error {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < low || v > high {
			return refuse(ErrInvalidConfig, "Invalid value %s for topic config %s: it must be %s", quote(text), name, values)
		}
		set(c, v)
		return nil
	}}
}

// from says with which level a key came.
func (k ConfigKey) from(level FeatureLevel) ConfigKey {
	k.Level = level
	return k
}

func oneOf(name, only, why string) ConfigKey {
	return ConfigKey{Name: name, Default: only, Values: "only " + only, apply: func(_ *TopicConfig, text string) error {
		if text != only {
			return refuse(ErrInvalidConfig, "Invalid value %s for topic config %s: it must be %s (%s)", quote(text), name, only, why)
		}
		return nil
	}}
}

// effective returns what this release makes of configs that are in the table. What it does not understand counts as not set: the feature
// level keeps such things away, and a node that cannot start would be worse.
func effective(configs map[string]string) TopicConfig {
	c := DefaultTopicConfig()
	for _, k := range configKeys {
		if value, set := configs[k.Name]; set {
			_ = k.apply(&c, value) // leaves the default if it is refused
		}
	}
	return c
}

// ParseConfigs checks keys and values, for a cluster at the feature level, and returns the effective configuration. When several are wrong,
// the first in the order of keys is reported, so that every node refuses with the same words.
func ParseConfigs(configs map[string]string, level FeatureLevel) (TopicConfig, error) {
	c := DefaultTopicConfig()
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		key, err := lookupKey(name, level)
		if err != nil {
			return TopicConfig{}, err
		}
		if err := key.apply(&c, configs[name]); err != nil {
			return TopicConfig{}, err
		}
	}
	return c, nil
}

// parseFor is ParseConfigs, and checks what depends on the replication factor.
func parseFor(configs map[string]string, replicationFactor int, level FeatureLevel) (TopicConfig, error) {
	c, err := ParseConfigs(configs, level)
	if err != nil {
		return c, err
	}
	if c.MinInSyncReplicas > replicationFactor {
		return c, refuse(ErrInvalidConfig, "min.insync.replicas: %d larger than replication factor: %d: nothing could be produced with acks=all",
			c.MinInSyncReplicas, replicationFactor)
	}
	return c, nil
}

func lookupKey(name string, level FeatureLevel) (ConfigKey, error) {
	i, found := slices.BinarySearchFunc(configKeys, name, func(k ConfigKey, name string) int { return strings.Compare(k.Name, name) })
	if found {
		if key := configKeys[i]; key.Level > level {
			return ConfigKey{}, tooNew("topic config "+name, key.Level, level)
		}
		return configKeys[i], nil
	}
	if slices.Contains(kafkaOnly, name) {
		return ConfigKey{}, refuse(ErrInvalidConfig, "Topic config %s of Kafka is not supported; supported are: %s", name, keyNames())
	}
	if near := nearestKey(name); near != "" {
		return ConfigKey{}, refuse(ErrInvalidConfig, "Unknown topic config %s, did you mean %s?", quote(name), near)
	}
	return ConfigKey{}, refuse(ErrInvalidConfig, "Unknown topic config %s; known are: %s", quote(name), keyNames())
}

func keyNames() string {
	names := make([]string, len(configKeys))
	for i, k := range configKeys {
		names[i] = k.Name
	}
	return strings.Join(names, ", ")
}

// nearestKey returns the known key that is the fewest edits away, or "" if none is near: more than a third of it would have
// to change.
func nearestKey(name string) string {
	if len(name) > 100 {
		return ""
	}
	best, bestDistance := "", len(name)
	for _, k := range configKeys {
		if d := levenshtein.ComputeDistance(normalKey(name), normalKey(k.Name)); d < bestDistance && d <= len(k.Name)/3 {
			best, bestDistance = k.Name, d
		}
	}
	return best
}

// normalKey makes spellings of other configuration systems (Retention_MS, retentionMs) near to Kafka's.
func normalKey(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return '.'
		}
		return r
	}, strings.ToLower(name))
}
