package client

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// isWanted tells whether the next refresh of everything asks for a topic.
func (m *metadataCache) isWanted(topic string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.mu.wanted[topic]
	return ok
}

// TestRefusedNamesDoNotAddUp: a program tries one name after the other. What the nodes refuse or do not know is forgotten once nobody asks for
// it; what somebody asks for is not, nor what there is.
func TestRefusedNamesDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestCache(t, "a:1")
		say := func(topic *pb.Topic) {
			m.want(topic.Name)
			_, err := m.take("a:1", &pb.MetadataRequest{Topics: []string{topic.Name}}, testAnswer("c", 0, topic))
			require.NoError(t, err)
		}
		say(testTopic(1, 5))
		for i := range 100 {
			say(&pb.Topic{Name: fmt.Sprint("denied-", i), ErrorCode: int32(kerr.TopicAuthorizationFailed)})
			say(&pb.Topic{Name: fmt.Sprint("nowhere-", i), ErrorCode: int32(kerr.UnknownTopicOrPartition)})
		}
		time.Sleep(wantedMemory / 2) // of the bubble's clock
		m.request()
		require.Len(t, m.mu.wanted, 201, "forgotten at once")
		m.requestFor("nowhere-1")
		m.want("denied-1")
		time.Sleep(wantedMemory * 3 / 4)
		m.request()
		require.Len(t, m.mu.wanted, 3)
		for _, topic := range []string{"t", "nowhere-1", "denied-1"} {
			require.True(t, m.isWanted(topic), topic)
		}
		require.Len(t, m.mu.denied, 1)
		require.Len(t, m.mu.missing, 1)
		require.Len(t, m.mu.fresh, 3)
	})
}

// TestForgottenTopicIsAskedForAgain: who waits for a topic at the moment at which it is forgotten goes on waiting for one that is wanted.
func TestForgottenTopicIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newTestCache(t, "a:1")
		m.want("x")
		m.introduced()
		time.Sleep(2 * wantedMemory) // of the bubble's clock
		m.request()
		require.False(t, m.isWanted("x"))
		m.requestFor("x")
		require.True(t, m.isWanted("x"), "who waits for it waits for ever")
	})
}

// introduced stands for the refresh that asks for what is new.
func (m *metadataCache) introduced() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.mu.fresh)
}
