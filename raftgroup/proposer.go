package raftgroup

import "go.etcd.io/raft/v3/raftpb"

// proposer is a worker's memory for proposing. Raft clones what it is given, so it is used again for each message.
type proposer struct {
	message raftpb.Message
	slab    []raftpb.Entry
	entries []*raftpb.Entry
	batch   []*Proposal // those of the message
}

// add adds an entry for a proposal.
func (pr *proposer) add(p *Proposal) {
	if n := len(pr.entries); n < len(pr.slab) {
		pr.entries = append(pr.entries, &pr.slab[n])
	} else {
		pr.entries = append(pr.entries, &raftpb.Entry{Data: handle})
	}
	pr.batch = append(pr.batch, p)
}

func (pr *proposer) reset() {
	clear(pr.entries)
	clear(pr.batch)
	pr.entries, pr.batch = pr.entries[:0], pr.batch[:0]
	if pr.slab == nil {
		pr.slab = make([]raftpb.Entry, 256)
		for i := range pr.slab {
			pr.slab[i].Data = handle
		}
		pr.message.Type = raftpb.MsgProp.Enum()
	}
}
