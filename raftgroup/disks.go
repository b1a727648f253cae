package raftgroup

import (
	"github.com/quorumlog/quorumlog/wal/id"
)

// Condition returns what the host's disk allows, as of the last tick.
func (h *Host) Condition() Condition { return h.disk.condition() }

// NodeCondition tells what another node says of its disk. It costs nothing to be told again.
func (h *Host) NodeCondition(n id.Node, c Condition) {
	h.hearsay.mu.Lock()
	defer h.hearsay.mu.Unlock()
	if n == h.o.Node || h.hearsay.others[n] == c {
		return
	}
	if h.hearsay.others == nil {
		h.hearsay.others = make(map[id.Node]Condition)
	}
	h.hearsay.others[n] = c
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func() { w.noteCondition(n, c) }})
	}
}

// ConditionOf returns what is known of a node's disk: Good, where nobody said otherwise.
func (h *Host) ConditionOf(n id.Node) Condition {
	if n == h.o.Node {
		return h.Condition()
	}
	h.hearsay.mu.Lock()
	defer h.hearsay.mu.Unlock()
	return h.hearsay.others[n]
}
