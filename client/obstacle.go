package client

import (
	"github.com/quorumlog/quorumlog/wal/id"
)

// obstacle is why the leader of a partition cannot be reached, as far as is known; nil: nothing is. Called with a queue's mutex.
func (p *Producer) obstacle(tp id.TopicPartition) error {
	l, ok := p.client.cache.current.Load().leader(tp)
	if !ok {
		return nil
	}
	if err := p.client.cache.foreign(l.addr); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.backoff[l.node].cause
}

// reached notes that a node can be talked to.
func (p *Producer) reached(node id.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.mu.backoff[node]; ok {
		b.cause = nil
		p.mu.backoff[node] = b
	}
}
