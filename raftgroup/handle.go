package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// redeem gives the entries of the proposals that were stepped since the last Ready their batches.
func (g *group) redeem(entries []*raftpb.Entry) {
	if len(g.fresh) == 0 {
		return
	}
	for _, e := range entries {
		if i := int64(e.GetIndex()) - int64(g.fresh[0].Result.Index); i >= 0 && i < int64(len(g.fresh)) && isHandle(e.GetData()) {
			p := g.fresh[i]
			e.Data = p.payload()
			if p.Command != nil { // the log's memory has no copy that Raft could refer to: see submitted
				e.Data = slices.Clone(e.Data)
			}
		}
	}
	clear(g.fresh)
	g.fresh = g.fresh[:0]
}
