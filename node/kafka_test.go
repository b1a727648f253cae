package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// withKafka has the nodes serve Kafka's protocol.
func withKafka() nodetest.Setting {
	return nodetest.WithOptions(func(o *node.Options) { o.KafkaAddress = "127.0.0.1:0" })
}

// brokers are where the running nodes serve Kafka's protocol.
func brokers(c *nodetest.Cluster) []string {
	var addresses []string
	for _, n := range c.Nodes {
		if n.Node != nil {
			addresses = append(addresses, n.KafkaAddress())
		}
	}
	return addresses
}

func kafkaClient(t *testing.T, c *nodetest.Cluster, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers(c)...), kgo.DefaultProduceTopic("t"), kgo.MetadataMinAge(50 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.FetchMaxWait(time.Second), kgo.RequestRetries(1000), kgo.RecordRetries(1000),
	}, options...)...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// readUntil reads what there is, from where the options say, until done says that it is enough.
func readUntil(t *testing.T, c *nodetest.Cluster, from kgo.Offset, done func(*kgo.Record) bool) {
	t.Helper()
	consumer := kafkaClient(t, c, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(from))
	for {
		fetches := consumer.PollFetches(c.Context())
		require.NoError(t, fetches.Err0())
		for _, r := range fetches.Records() {
			if done(r) {
				return
			}
		}
	}
}

// TestKafka: a client of Kafka's finds the partitions, writes them in all the ways there are, and reads all that was acknowledged once, also
// with a leader lost in between.
func TestKafka(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3, withKafka())
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis = 10_000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "t", 3, 3
	create.Topics = append(create.Topics, topic)
	created, err := create.RequestWith(c.Context(), kafkaClient(t, c))
	require.NoError(t, err)
	require.Zero(t, created.Topics[0].ErrorCode)

	acknowledged := make(map[string]bool)
	produce := func(client *kgo.Client, records ...string) {
		t.Helper()
		var batch []*kgo.Record
		for _, text := range records {
			batch = append(batch, &kgo.Record{Value: []byte(text), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}})
		}
		require.NoError(t, client.ProduceSync(c.Context(), batch...).FirstErr())
		for _, text := range records {
			acknowledged[text] = true
		}
	}
	texts := func(what string, n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("%s-%d", what, i)
		}
		return list
	}
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		produce(kafkaClient(t, c, kgo.ProducerBatchCompression(codec)), texts(fmt.Sprint("idempotent ", i), 50)...)
		plain := kafkaClient(t, c, kgo.ProducerBatchCompression(codec), kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()))
		produce(plain, texts(fmt.Sprint("plain ", i), 50)...)
	}
	producer := kafkaClient(t, c)
	middle := time.Now()
	produce(producer, texts("before", 100)...)
	c.StopNode(0)
	produce(producer, texts("after", 300)...)

	got := make(map[string]int)
	readUntil(t, c, kgo.NewOffset().AtStart(), func(r *kgo.Record) bool {
		require.Equal(t, "v", string(r.Headers[0].Value))
		got[string(r.Value)]++
		return len(got) == len(acknowledged)
	})
	for text, times := range got {
		require.True(t, acknowledged[text], text)
		require.Equal(t, 1, times, text)
	}
	late := make(map[string]bool)
	readUntil(t, c, kgo.NewOffset().AfterMilli(middle.UnixMilli()), func(r *kgo.Record) bool {
		require.GreaterOrEqual(t, r.Timestamp.UnixMilli(), middle.UnixMilli())
		late[string(r.Value)] = true
		return len(late) == 400
	})
}

// TestKafkaUnacknowledged: what is sent without waiting for an answer arrives as long as the leader is there.
func TestKafkaUnacknowledged(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withKafka())
	_, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 1})
	require.NoError(t, err)
	producer := kafkaClient(t, c, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck()))
	require.NoError(t, producer.ProduceSync(c.Context(), kgo.StringRecord("unheard")).FirstErr())
	readUntil(t, c, kgo.NewOffset().AtStart(), func(r *kgo.Record) bool { return string(r.Value) == "unheard" })
}

// TestKafkaAddresses: clients are never told an address that nobody can dial.
func TestKafkaAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ listen, advertised, want string }{
		{"", "", ""},
		{"127.0.0.1:9092", "", ""},
		{"0.0.0.0:9092", "", "pass --kafka-advertised-address HOST:PORT"},
		{"0.0.0.0:9092", "0.0.0.0:9092", "--kafka-advertised-address \"0.0.0.0:9092\" cannot be dialled by other hosts"},
		{"0.0.0.0:9092", "broker.example:9092", "--allow-plaintext"},
		{"127.0.0.1:9092", "broker.example:0", "0 is no port"},
		{"", "broker.example:9092", "without --kafka-address"},
		{"nonsense", "", "is not host:port"},
	} {
		o := node.Options{
			NodeID: 1, DataDir: t.TempDir(), ClusterName: "c", RPCAddress: "127.0.0.1:9192", GossipAddress: "127.0.0.1:7946", Logger: slog.New(slog.DiscardHandler),
			KafkaAddress: test.listen, KafkaAdvertisedAddress: test.advertised,
		}
		if err := o.Validate(); test.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.want)
		}
	}
}

// TestKafkaStop: clients that wait for records do not hold up a node that stops.
func TestKafkaStop(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1, withKafka())
	_, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 1})
	require.NoError(t, err)
	consumer := kafkaClient(t, c, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(time.Minute))
	require.NoError(t, kafkaClient(t, c).ProduceSync(c.Context(), kgo.StringRecord("one")).FirstErr())
	require.Len(t, consumer.PollFetches(c.Context()).Records(), 1)
	begin := time.Now()
	c.StopNode(0)
	require.Less(t, time.Since(begin), 5*time.Second)
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	require.True(t, errors.Is(consumer.PollFetches(ctx).Err0(), context.Canceled))
}
