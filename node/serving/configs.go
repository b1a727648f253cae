package serving

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// kafkaKeys says of each config of topics what its values are, and under which name a node of Kafka has the default for all topics.
var kafkaKeys = map[string]struct {
	node  string
	typed broker.ConfigType
}{
	"cleanup.policy":                 {"log.cleanup.policy", broker.ListConfig},
	"compression.type":               {"compression.type", broker.StringConfig},
	"max.message.bytes":              {"message.max.bytes", broker.IntConfig},
	"message.timestamp.after.max.ms": {"log.message.timestamp.after.max.ms", broker.LongConfig},
	"message.timestamp.before.max.ms": {
		"log.message.timestamp.before.max.ms", broker.LongConfig,
	},
	"message.timestamp.type":         {"log.message.timestamp.type", broker.StringConfig},
	"min.insync.replicas":            {"min.insync.replicas", broker.IntConfig},
	"retention.bytes":                {"log.retention.bytes", broker.LongConfig},
	"retention.ms":                   {"log.retention.ms", broker.LongConfig},
	"segment.bytes":                  {"log.segment.bytes", broker.IntConfig},
	"segment.ms":                     {"log.roll.ms", broker.LongConfig},
	"unclean.leader.election.enable": {"unclean.leader.election.enable", broker.BooleanConfig},
}

// TopicConfigs implements broker.Configs.
func (b *Broker) TopicConfigs(_ context.Context, _ *broker.Caller, name string) ([]broker.Config, error) {
	view := b.o.Controller.View()
	t := view.Topic(name)
	if t == nil {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "Topic '%.249s' does not exist.", name)
	}
	return topicConfigs(t.Configs, view.Level(), b.o.SegmentBytes), nil
}

// topicConfigs returns what counts for a topic with these configs of its own.
func topicConfigs(own map[string]string, level placement.FeatureLevel, segmentBytes int64) []broker.Config {
	var list []broker.Config
	for _, key := range placement.ConfigKeys() {
		if key.Level > level { // nobody can set it yet
			continue
		}
		byDefault := defaultOf(key, segmentBytes)
		config := broker.Config{ConfigValue: byDefault, Type: kafkaKeys[key.Name].typed, Documentation: key.Values}
		if value, set := own[key.Name]; set {
			config.Value, config.Source = value, broker.TopicSource
			config.Synonyms = append(config.Synonyms, broker.ConfigValue{Name: key.Name, Value: value, Source: broker.TopicSource})
		}
		config.Name = key.Name
		config.Synonyms = append(config.Synonyms, byDefault)
		list = append(list, config)
	}
	return list
}

// defaultOf returns the default for topics, under its name at nodes.
func defaultOf(key placement.ConfigKey, segmentBytes int64) broker.ConfigValue {
	v := broker.ConfigValue{Name: kafkaKeys[key.Name].node, Value: key.Default, Source: broker.DefaultSource}
	if v.Value == "" { // each node has its own: there is one such key
		v.Value = strconv.FormatInt(segmentBytes, 10)
		if segmentBytes != usualSegmentBytes {
			v.Source = broker.NodeSource
		}
	}
	return v
}

// usualSegmentBytes is the segment.bytes of nodes that are told none, as it is Kafka's. Tools show what is no default with each topic.
const usualSegmentBytes = 1 << 30

// NodeConfigs implements broker.Configs: the defaults for topics, and what clients look up to know how the cluster behaves.
func (b *Broker) NodeConfigs(context.Context, *broker.Caller) ([]broker.Config, error) {
	view := b.o.Controller.View()
	var list []broker.Config
	add := func(v broker.ConfigValue, typed broker.ConfigType, documentation string) {
		list = append(list, broker.Config{ConfigValue: v, Type: typed, Documentation: documentation, Synonyms: []broker.ConfigValue{v}})
	}
	for _, key := range placement.ConfigKeys() {
		if key.Level <= view.Level() {
			add(defaultOf(key, b.o.SegmentBytes), kafkaKeys[key.Name].typed, "the default of "+key.Name+" for topics: "+key.Values)
		}
	}
	node := strconv.Itoa(int(b.o.Node))
	for _, c := range []struct {
		name, value   string
		source        broker.ConfigSource
		typed         broker.ConfigType
		documentation string
	}{
		{"auto.create.topics.enable", "false", broker.DefaultSource, broker.BooleanConfig, "topics are created by name"},
		{"broker.id", node, broker.NodeSource, broker.IntConfig, "the id of this node"},
		{
			"default.replication.factor", strconv.Itoa(placement.DefaultReplicationFactor(len(view.Nodes()))), broker.DefaultSource, broker.IntConfig,
			"of topics that are created without one: 3, or as many as there are nodes",
		},
		{"delete.topic.enable", "true", broker.DefaultSource, broker.BooleanConfig, "topics can be deleted"},
		{"log.dirs", b.o.Space().Dir, broker.NodeSource, broker.StringConfig, "where the records are"},
		{"node.id", node, broker.NodeSource, broker.IntConfig, "the id of this node"},
		{"num.partitions", strconv.Itoa(defaultPartitions), broker.DefaultSource, broker.IntConfig, "of topics that are created without a number"},
	} {
		add(broker.ConfigValue{Name: c.name, Value: c.value, Source: c.source}, c.typed, c.documentation)
	}
	if self := view.Node(b.o.Node); self != nil && self.Rack != "" {
		add(broker.ConfigValue{Name: "broker.rack", Value: self.Rack, Source: broker.NodeSource}, broker.StringConfig, "where this node is")
	}
	slices.SortFunc(list, func(a, b broker.Config) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// LogDirs implements broker.Cluster.
func (b *Broker) LogDirs(context.Context, *broker.Caller) ([]broker.LogDir, error) {
	view := b.o.Controller.View()
	byPath := map[string]*broker.LogDir{b.o.Space().Dir: {Path: b.o.Space().Dir}} // there is one before there is a replica
	for _, open := range b.o.Replicas.All() {
		log := open.Log()
		t, p := view.Partition(log.Group())
		if t == nil { // it is on its way out
			continue
		}
		replica := broker.LogDirReplica{Topic: t.Name, Partition: p.ID, Lag: max(open.HighWatermark()-log.NextOffset(), 0)}
		for _, segment := range log.Segments() {
			replica.Bytes += segment.Bytes
		}
		dir := byPath[log.StoreDir()]
		if dir == nil {
			dir = &broker.LogDir{Path: log.StoreDir()}
			byPath[dir.Path] = dir
		}
		dir.Replicas = append(dir.Replicas, replica)
	}
	var dirs []broker.LogDir
	for _, dir := range byPath {
		slices.SortFunc(dir.Replicas, func(a, b broker.LogDirReplica) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
		dirs = append(dirs, *dir)
	}
	slices.SortFunc(dirs, func(a, b broker.LogDir) int { return cmp.Compare(a.Path, b.Path) })
	return dirs, nil
}
