package broker

import "context"

// Configs is what topics and nodes go by.
type Configs interface {
	// TopicConfigs returns all configs of a topic, those that were set and the defaults, sorted by name, from this node's copy of the metadata.
	TopicConfigs(ctx context.Context, c *Caller, topic string) ([]Config, error)
	// NodeConfigs returns what this node goes by, under Kafka's names for brokers, sorted by name. None of it can be changed while it runs.
	NodeConfigs(ctx context.Context, c *Caller) ([]Config, error)
}

// Config is what counts for one key.
type Config struct {
	ConfigValue
	Type          ConfigType
	Documentation string // what is allowed, for people
	// Synonyms are all values that there are for the key: this one, and those that would count without those before them. What is a default for
	// topics has its name among the configs of nodes.
	Synonyms []ConfigValue
}

// ConfigValue is a value, and where it comes from.
type ConfigValue struct {
	Name, Value string
	Source      ConfigSource
}

// ConfigSource is where a value comes from, in Kafka's numbers.
type ConfigSource int8

// The sources: set for the topic, given to the node at its start, what it is without either.
const (
	TopicSource   ConfigSource = 1
	NodeSource    ConfigSource = 4
	DefaultSource ConfigSource = 5
)

// ConfigType is what values of a key are, in Kafka's numbers.
type ConfigType int8

// The types. A list is separated by commas.
const (
	BooleanConfig ConfigType = 1
	StringConfig  ConfigType = 2
	IntConfig     ConfigType = 3
	ShortConfig   ConfigType = 4
	LongConfig    ConfigType = 5
	ListConfig    ConfigType = 7
)
