package client

import (
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// denial is that nodes refuse to say anything about a topic, for good: it may not be described, or has a name that no topic can have.
type denial struct {
	at  time.Time
	err *kerr.Error
}

// denialOf returns the refusal in what a node says about a topic; nil: it is none.
func denialOf(t *pb.Topic) *kerr.Error {
	code := kerr.Code(t.ErrorCode)
	if code == kerr.None || code == kerr.Unknown || code.Retriable() {
		return nil
	}
	return &kerr.Error{Code: code, Message: t.ErrorMessage, Leader: NoNode}
}

// noteDenialLocked keeps whether a node refuses to say anything about a topic.
func (m *metadataCache) noteDenialLocked(t *pb.Topic) {
	err := denialOf(t)
	if err == nil {
		delete(m.mu.denied, t.Name)
		return
	}
	if m.mu.denied == nil {
		m.mu.denied = make(map[string]denial)
	}
	m.mu.denied[t.Name] = denial{time.Now(), err}
}

// deniedLocked returns what nodes refused a topic with, lately: if that was long ago, it may have been allowed since.
func (m *metadataCache) deniedLocked(topic string) error {
	if d, ok := m.mu.denied[topic]; ok && time.Since(d.at) <= unknownMemory {
		return d.err
	}
	return nil
}
