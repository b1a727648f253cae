package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestNewTopicsAreAskedForAlone: the first record to each of many topics waits for nothing but one answer about that topic, although there is a
// partition without a leader that is asked about again and again.
func TestNewTopicsAreAskedForAlone(t *testing.T) {
	cluster, c := newCluster(t, 1)
	const topics = 300
	for i := range topics {
		cluster.CreateTopic(fmt.Sprint("topic-", i), 1, nil)
	}
	cluster.CreateTopic("leaderless", 1, nil)
	cluster.MoveLeader(tp("leaderless", 0), id.NoNode)
	k := newConsumer(t, c, client.ConsumerOptions{})
	require.NoError(t, k.Assign(tp("leaderless", 0), 0))
	p := newProducer(t, c, client.ProducerOptions{})
	begin := time.Now()
	for i := range topics {
		require.NoError(t, p.Produce(testContext(t), client.Record{Topic: fmt.Sprint("topic-", i)}, nil))
	}
	took := time.Since(begin)
	require.NoError(t, p.Flush(testContext(t)))
	if took > 5*time.Second {
		t.Errorf("the first records to %d topics took %v", topics, took)
	}
	if n := cluster.TopicsAskedFor(); n > 3*topics {
		t.Errorf("%d topics were asked for with %d requests, there are %d", n, cluster.MetadataRequests(), topics)
	}
}
