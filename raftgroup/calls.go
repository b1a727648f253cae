package raftgroup

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Group is one replica of a Raft group on this host. Its methods may be called by anyone: they read what the worker has published, or
// bring something that the worker does.
type Group struct {
	group
	w *worker
}

// post runs call on the worker, later.
func (g *Group) post(call func()) bool {
	return g.w.post(event{kind: evCall, call: call})
}

// Status returns the replica's view of the group.
func (g *Group) Status(ctx context.Context) (Status, error) {
	result := make(chan Status, 1)
	ok := g.post(func() {
		if !g.closed {
			result <- g.status()
		} else {
			close(result)
		}
	})
	if !ok {
		return Status{}, ErrClosed
	}
	select {
	case s, ok := <-result:
		if !ok {
			return Status{}, ErrClosed
		}
		return s, nil
	case <-g.w.done:
		return Status{}, ErrClosed
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

// SetMinInSync changes min.insync.replicas.
func (g *Group) SetMinInSync(n int) {
	g.post(func() {
		g.minInSync = max(1, n)
		if g.role == Leader && g.broken == nil {
			g.answer()
		}
	})
}

// AddMembers says where members live, in addition to what is known.
func (g *Group) AddMembers(m ...Member) {
	g.post(func() {
		for _, m := range m {
			if m.Replica != g.replica {
				g.learnPeers(m)
			}
		}
	})
}

// Campaign starts an election, if this replica is a voter and does not lead.
func (g *Group) Campaign() {
	g.post(func() {
		if !g.closed && g.broken == nil && g.role != Leader {
			g.campaign()
		}
	})
}

// Roll has the next entry begin a new segment of the log.
func (g *Group) Roll() {
	g.post(func() {
		if !g.closed {
			g.log.Roll()
		}
	})
}

// Abandon ends a replica whose log was refused, durably, as if it had found out by itself. Whoever wants another to lead has handed the
// leadership over before.
func (g *Group) Abandon(cause error) { g.post(func() { g.fail(Refused, cause) }) }

// Stop ends the replica until the node is started again: its store failed, and completes nothing any more. What it leads, another takes over.
func (g *Group) Stop(cause error) {
	g.post(func() {
		g.bequeath()
		g.fail(Stopped, cause)
	})
}

// await returns what arrives at result, or the error that ends the waiting.
func (g *Group) await(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-g.w.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask posts a request that answers once into the channel it is given.
func (g *Group) ask(ctx context.Context, request func(result chan error)) error {
	result := make(chan error, 1)
	ok := g.post(func() {
		switch {
		case g.closed:
			result <- ErrClosed
		case g.broken != nil:
			result <- g.whyBroken()
		default:
			request(result)
			g.touch()
		}
	})
	if !ok {
		return ErrClosed
	}
	return g.await(ctx, result)
}

// TransferLeader hands leadership over to a voter, or to the best one when to is NoReplica, and waits until it leads. Proposals
// wait meanwhile.
func (g *Group) TransferLeader(ctx context.Context, to id.Replica) error {
	return g.ask(ctx, func(result chan error) { g.startTransfer(to, nil, result) })
}

// ReadIndex returns an index such that a replica that has applied it has applied everything that was committed when ReadIndex
// was called. It asks the leader, which asks a majority.
func (g *Group) ReadIndex(ctx context.Context) (id.Index, error) {
	key := g.env.readID.Add(1)
	r := &readRequest{context: binary.LittleEndian.AppendUint64(nil, key)}
	err := g.ask(ctx, func(result chan error) {
		if g.leader == id.NoReplica {
			result <- &NotLeaderError{Leader: id.NoNode}
			return
		}
		r.result = result
		if g.reads == nil {
			g.reads = make(map[uint64]*readRequest)
		}
		g.reads[key] = r
		g.guard(func() { g.rn.ReadIndex(r.context) })
	})
	if err == nil {
		return r.index, nil
	}
	g.post(func() { delete(g.reads, key) })
	return 0, err
}

// ChangeMembers changes the membership and waits until the change is applied here, and a joint configuration that it went
// through is left again. Where new members live is said in the change's Context: see ConfChange.
func (g *Group) ChangeMembers(ctx context.Context, cc *raftpb.ConfChangeV2) error {
	cc = proto.Clone(cc).(*raftpb.ConfChangeV2)
	if _, err := decodeMembers(cc.GetContext()); err != nil {
		return fmt.Errorf("raftgroup: %w", err)
	}
	return g.ask(ctx, func(result chan error) {
		switch {
		case g.role != Leader:
			result <- &NotLeaderError{Leader: g.nodeOf(g.leader)}
		case g.change != nil:
			result <- ErrConfChangeRefused
		default:
			g.change = &changeRequest{cc: cc, result: result}
		}
	})
}

func randomUint64() uint64 { return rand.Uint64() }

// Propose takes a batch into the group's log, or says why not: see Proposal.
func (g *Group) Propose(p *Proposal) {
	g.propose(p)
	g.w.nudge()
}

// propose leaves a batch in the inbox.
func (g *Group) propose(p *Proposal) {
	p.Result = Result{Offset: id.NoOffset}
	if l := g.lead.Load(); l.Role != Leader {
		if g.failed.Load() {
			g.turnAway(p, ErrClosed)
		} else {
			g.turnAway(p, &NotLeaderError{Leader: l.Node})
		}
		return
	}
	// Whoever is alone is let in, whatever it weighs.
	size := int64(len(p.payload()))
	group, host := g.pendingBytes.Add(size), g.env.pendingBytes.Add(size)
	p.counted = size
	if group > g.env.o.MaxGroupBytes && group > size || host > g.env.o.MaxHostBytes && host > size {
		g.turnAway(p, ErrOverloaded)
		return
	}
	if !g.w.in.propose(&g.group, p) {
		g.turnAway(p, ErrClosed)
	}
}

// status makes a Status on the worker.
func (g *group) status() Status {
	s := Status{
		Group: g.id, Replica: g.replica, Role: g.role, Term: g.term, Leader: g.leader, Node: g.nodeOf(g.leader),
		Commit: g.commit, Applied: g.applied, Last: g.last, HW: g.HighWatermark(), LEO: g.leo,
		Joint: len(g.confState.VotersOutgoing) > 0,
	}
	s.Standing, s.Trouble = g.Standing()
	if g.role == Leader {
		g.refreshInSync()
	}
	for i := range g.members {
		m := &g.members[i]
		ms := MemberStatus{Replica: m.replica, Node: g.nodeOf(m.replica), Learner: !m.voter(), LastAck: -1}
		if g.role == Leader {
			ms.InSync, ms.Alive = m.inSync, g.alive(m)
			ms.LastAck = 0
			if m.replica != g.replica {
				ms.LastAck = timeSince(g.turn.now, m.lastAck)
			}
		}
		s.Members = append(s.Members, ms)
	}
	if g.role == Leader {
		g.eachProgress(func(m *member, pr *tracker.Progress) {
			for i := range s.Members {
				if s.Members[i].Replica == m.replica {
					s.Members[i].Match = id.Index(pr.Match)
				}
			}
		})
	}
	return s
}
