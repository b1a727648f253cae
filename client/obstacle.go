package client

import (
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

// misplaced returns the error for an address at which another node answers than the one that was said to be there. What else is said there is
// no better: others are asked for metadata first.
func (m *metadataCache) misplaced(addr string, answers, expected id.Node) error {
	m.doubtful(addr)
	return fmt.Errorf("client: at %s answers node %d, node %d was expected there", addr, answers, expected)
}

// foreign returns what is known of an address if a node of another cluster answers there.
func (m *metadataCache) foreign(addr string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wrong := m.mu.sources.foreign[addr]; wrong != nil {
		return wrong
	}
	return nil
}

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

// because adds to err why some partition is not read, if one is not.
func (c *Consumer) because(err error) error {
	known := c.client.cache.current.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for tp, cur := range c.mu.cursors {
		l, ok := known.leader(tp)
		if !ok {
			return c.client.cache.because(err)
		}
		cause := c.client.cache.foreign(l.addr)
		if cause == nil && (cur.stream == nil || cur.stream.conn.Load() == nil) {
			cause = c.mu.backoff[l.node].cause
		}
		if cause != nil {
			return fmt.Errorf("%w (%s: %w)", err, tp, cause)
		}
	}
	return err
}
