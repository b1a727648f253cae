package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// boot makes the RawNode from what the log recovered. It runs on the goroutine of Host.Open: no worker knows the group yet.
//
// Raft panics unless first-1 <= applied <= commit <= last and term >= that of the last entry. Commit is a hint in the log's
// hard state: raising it to what was applied is safe since only committed entries are (what the log has of them, if it began anew with a
// state that is ahead of it, it has from leaders who had all of them), and lowering it to last is safe since it need not be durable.
func (g *group) boot(s Spec) error {
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
	g.applied = max(state.Applied, first-1)
	g.handled = min(g.applied, last) // the state may have come with a snapshot, and be ahead of the log
	g.commit = min(max(hs.Commit, g.applied), last)
	g.term = max(hs.Term, lastTerm)
	vote := hs.Vote
	if g.term != hs.Term {
		vote = id.NoReplica
	}
	g.last, g.leo = last, g.log.NextOffset()
	g.voted = wal.HardState{Term: hs.Term, Vote: hs.Vote}
	if err := g.replay(); err != nil {
		return err
	}
	return g.newRawNode(&raftpb.HardState{Term: new(uint64(g.term)), Vote: new(uint64(vote)), Commit: new(uint64(g.commit))})
}

func (g *group) newRawNode(hs *raftpb.HardState) (err error) {
	o := &g.env.o
	g.guard(func() {
		g.rn, err = raft.NewRawNode(&raft.Config{
			ID:                        uint64(g.replica),
			ElectionTick:              o.ElectionTicks,
			HeartbeatTick:             o.HeartbeatTicks,
			Storage:                   &storage{g: g, hardState: hs, confState: g.confState},
			Applied:                   uint64(g.handled),
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
func (g *group) replay() error {
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
func (g *group) start(hint CampaignHint) {
	g.rebuildMembers()
	g.commitIndex.Store(uint64(g.commit))
	g.publishApplied()
	g.log.SetCommit(g.commit)
	g.hw.Store(int64(g.log.OffsetAt(g.commit + 1)))
	g.lead.Store(&LeaderChange{Term: g.term, Node: id.NoNode})
	g.machine.Leader(*g.lead.Load())
	g.machine.Committed(g.HighWatermark())
	g.enterRace(hint)
}

// init makes the replica that a Spec describes. It is not booted yet.
func (g *group) init(e *env, t *turn, s Spec) {
	g.env, g.turn = e, t
	g.id, g.replica, g.log, g.machine, g.vital = s.Group, s.Replica, s.Log, s.Machine, s.Vital
	g.idle = make(chan struct{})
	g.leader = id.NoReplica
	g.minInSync = max(1, s.MinInSync)
	g.majority = true
	p := peers{}.with(s.Members...)
	delete(p, s.Replica)
	g.peers.Store(&p)
	g.lead.Store(&LeaderChange{Node: id.NoNode})
	g.stands(Working, nil)
}
