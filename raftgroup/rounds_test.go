package raftgroup_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

var roundsRuns = flag.Int("rounds.runs", 8, "seeds of TestFiveVotersAlwaysFindALeader")

// TestFiveVotersAlwaysFindALeader: nodes are killed and connections are cut by lot, one way or both, of five voters, but three stay whole
// among themselves. From when the lanes of a cut have failed at both their ends, and again from when everything is whole, records are
// taken within two seconds: Raft's own timers, of 3 to 6 s, are not what elects. (Of a thousand such moments a few take longer. Draws are
// not seeded, so one of each seed's may.)
func TestFiveVotersAlwaysFindALeader(t *testing.T) {
	for seed := range uint64(*roundsRuns) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 11))
			slow := &ward{}
			cluster(t, raftgrouptest.Config{Nodes: 5, Groups: 2, Seed: seed, Disk: slow.disk, Campaign: raftgroup.CampaignPreferred},
				func(t *testing.T, c *raftgrouptest.Cluster) {
					allLed(t, c)
					caughtUp(t, c)
					c.Net.SetFaults(raftgrouptest.Faults{Delay: time.Duration(rng.IntN(30)) * time.Millisecond})
					r := &round{t: t, c: c, rng: rng, o: watch(c)}
					for i := range 8 {
						r.hurt()
						r.taken(fmt.Sprintf("round %d, %v killed, %v cut", i, r.killed, r.cuts))
						r.o.run(time.Duration(rng.IntN(3000)) * time.Millisecond)
						r.heal()
						r.taken(fmt.Sprintf("round %d, whole again after %v killed, %v cut", i, r.killed, r.cuts))
						r.o.run(time.Duration(rng.IntN(1000)) * time.Millisecond)
					}
					if r.late > 1 {
						t.Errorf("%d times more than two seconds", r.late)
					}
					c.Net.SetFaults(raftgrouptest.Faults{})
					caughtUp(t, c)
				})
		})
	}
}

type round struct {
	t      *testing.T
	c      *raftgrouptest.Cluster
	rng    *rand.Rand
	o      *outage
	killed []id.Node
	cuts   [][2]id.Node
	late   int
}

// hurt kills and cuts, and returns when the lanes have failed. The first three of an order stay whole.
func (r *round) hurt() {
	order := r.rng.Perm(5)
	r.killed, r.cuts = nil, nil
	for i, a := range order {
		for _, b := range order[max(i+1, 3):] {
			from, to := id.Node(a+1), id.Node(b+1)
			switch r.rng.IntN(6) {
			case 0:
				r.cuts = append(r.cuts, [2]id.Node{from, to})
			case 1:
				r.cuts = append(r.cuts, [2]id.Node{to, from})
			case 2, 3:
				r.cuts = append(r.cuts, [2]id.Node{to, from}, [2]id.Node{from, to})
			}
		}
	}
	for _, n := range order[3:] {
		if r.rng.IntN(4) == 0 {
			r.killed = append(r.killed, id.Node(n+1))
		}
	}
	for _, cut := range r.cuts {
		r.c.Net.Cut(cut[0], cut[1])
	}
	r.o.run(time.Duration(r.rng.IntN(1500)) * time.Millisecond)
	for _, n := range r.killed {
		kill(r.c, r.rng, n, 20*time.Millisecond)
	}
	for _, end := range r.ends() {
		if h := r.c.Nodes[end[0]].Host; h != nil {
			h.NodeDown(end[1])
		}
		r.o.run(time.Duration(r.rng.IntN(40)) * time.Millisecond)
	}
}

// heal makes everything whole.
func (r *round) heal() {
	r.c.Net.Heal()
	for _, end := range r.ends() {
		if h := r.c.Nodes[end[0]].Host; h != nil && r.c.Nodes[end[1]].Host != nil {
			h.NodeUp(end[1])
		}
		pause(time.Duration(r.rng.IntN(40)) * time.Millisecond)
	}
	for _, n := range r.killed {
		up(r.t, r.c, n)
	}
}

// ends are both ends of what was cut, in any order.
func (r *round) ends() (ends [][2]id.Node) {
	for _, cut := range r.cuts {
		for _, end := range [][2]id.Node{cut, {cut[1], cut[0]}} {
			if !slices.Contains(ends, end) {
				ends = append(ends, end)
			}
		}
	}
	r.rng.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	return ends
}

func (r *round) taken(when string) {
	took := r.o.resumed(r.t, 30*time.Second)
	if took >= 2*time.Second {
		r.late++
		r.t.Logf("%s: records are taken after %v", when, took)
	}
}
