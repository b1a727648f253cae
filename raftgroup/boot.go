package raftgroup

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// boot makes the RawNode from what the log recovered. It runs on the goroutine of Host.Open: no worker knows the group yet.
//
// Raft panics unless first-1 <= applied <= commit <= last and term >= that of the last entry. Commit is a hint in the log's
// hard state: raising it to what was applied is safe since only committed entries are, and lowering it to last is safe since
// it need not be durable.
func (g *Group) boot(s Spec) error {
	state, hs := g.log.State(), g.log.HardState()
	g.confState = &raftpb.ConfState{}
	if err := proto.Unmarshal(state.ConfState, g.confState); err != nil {
		return fmt.Errorf("raftgroup: group %d: %w: decode configuration: %w", g.id, ErrUnusableLog, err)
	}
	if len(state.ConfState) == 0 {
		for _, m := range s.Members {
			g.confState.Voters = append(g.confState.Voters, uint64(m.Replica))
		}
	}
	g.confBytes = mustMarshal(g.confState)
	g.order = orderOf(s.Members, votersOf(g.confState))

	first, last := g.log.FirstIndex(), g.log.LastIndex()
	lastTerm, ok := g.log.Term(last)
	if !ok {
		return fmt.Errorf("raftgroup: group %d: %w: it does not know the term of its last entry %d", g.id, ErrUnusableLog, last)
	}
	g.applied = min(max(state.Applied, first-1), last)
	g.handled = g.applied
	g.commit = min(max(hs.Commit, g.applied), last)
	g.term = max(hs.Term, lastTerm)
	vote := hs.Vote
	if g.term != hs.Term {
		vote = id.NoReplica
	}
	g.last, g.leo = last, g.log.NextOffset()
	g.voted = wal.HardState{Term: hs.Term, Vote: hs.Vote}
	g.storage.hardState = &raftpb.HardState{Term: new(uint64(g.term)), Vote: new(uint64(vote)), Commit: new(uint64(g.commit))}
	g.storage.confState = g.confState
	if err := g.replay(); err != nil {
		return err
	}
	return g.newRawNode()
}

func (g *Group) newRawNode() (err error) {
	o := &g.h.o
	g.guard(func() {
		g.rn, err = raft.NewRawNode(&raft.Config{
			ID:                        uint64(g.replica),
			ElectionTick:              o.ElectionTicks,
			HeartbeatTick:             o.HeartbeatTicks,
			Storage:                   &g.storage,
			Applied:                   uint64(g.applied),
			AsyncStorageWrites:        true,
			MaxSizePerMsg:             uint64(o.MaxMessageBytes),
			MaxCommittedSizePerReady:  8 * mib,
			MaxUncommittedEntriesSize: 0,  // Propose counts
			MaxInflightMsgs:           64, // of up to MaxMessageBytes: what counts, since Raft sees the size of handles
			MaxInflightBytes:          uint64(o.MaxInflightBytes),
			CheckQuorum:               true,
			PreVote:                   true,
			ReadOnlyOption:            raft.ReadOnlySafe,
			DisableProposalForwarding: true,
			StepDownOnRemoval:         true,
			Logger:                    newRaftLogger(o.Logger, g.id, g.replica),
		})
	})
	if g.broken != nil {
		err = g.broken
	}
	if err != nil {
		return fmt.Errorf("raftgroup: group %d: start raft: %w", g.id, err)
	}
	return nil
}

// replay shows the machine what the log has above applied.
func (g *Group) replay() error {
	for i := g.applied + 1; i <= g.last; {
		entries, err := g.log.ReadEntries(i, g.last+1, mib)
		if err != nil {
			return fmt.Errorf("raftgroup: group %d: replay from %d: %w", g.id, i, err)
		}
		if len(entries) == 0 {
			return fmt.Errorf("raftgroup: group %d: replay from %d: %w", g.id, i, wal.ErrUnavailable)
		}
		for _, e := range entries {
			if e.Kind == wal.KindBatch {
				g.machine.Append(e.Index, e.Term, e.Data)
			}
		}
		i += id.Index(len(entries))
	}
	return nil
}

// start is the group's first act on its worker.
func (g *Group) start(hint CampaignHint) {
	g.rebuildMembers()
	g.commitIndex.Store(uint64(g.commit))
	g.appliedIndex.Store(uint64(g.applied))
	g.log.SetCommit(g.commit)
	g.hw.Store(int64(g.log.OffsetAt(g.commit + 1)))
	g.lead.Store(&LeaderChange{Term: g.term, Node: id.NoNode})
	g.machine.Leader(*g.lead.Load())
	g.machine.Committed(g.HighWatermark())
	if hint != CampaignPreferred || !g.isVoter(g.replica) {
		return
	}
	every := 2 * g.h.o.TickInterval
	if g.conditionOf(g.replica) != Good || g.log.Condemned() != 0 {
		g.hurryUp(time.Duration(len(g.members)+1)*failoverStep, every) // behind all others
		return
	}
	g.campaign()
	g.hurryUp(every, every)
}
