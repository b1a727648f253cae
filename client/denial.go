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

// denials are the topics that nodes refuse to say anything about.
type denials map[string]denial

// denialMemory is for how long a denial counts: if the topic was asked for long ago, it may have been allowed since.
const denialMemory = 4 * time.Second

// note keeps what a node says about a topic.
func (d *denials) note(t *pb.Topic) {
	err := denialOf(t)
	if err == nil {
		delete(*d, t.Name)
		return
	}
	if *d == nil {
		*d = make(denials)
	}
	(*d)[t.Name] = denial{time.Now(), err}
}

// of returns what nodes refused a topic with, lately.
func (d denials) of(topic string) error {
	if denied, ok := d[topic]; ok && time.Since(denied.at) <= denialMemory {
		return denied.err
	}
	return nil
}
