package membership

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// Profile is how eagerly nodes watch each other.
type Profile int

// Production finds a dead node in 3 to 4 seconds and forgives a process that stands still for 2. Test is for clusters in one process:
// about one second, at several times the cost.
const (
	Production Profile = iota
	Test
)

type timing struct {
	probeInterval, probeTimeout time.Duration
	suspicion, maxSuspicion     int
	gossipInterval              time.Duration
	pushPullInterval            time.Duration
	gossipToTheDead             time.Duration
	reclaim                     time.Duration
	stream                      time.Duration // to dial, and for one exchange of states
	rejoin                      time.Duration // between looks at seeds that are missing, with jitter
	leave                       time.Duration // at most, to say goodbye
}

// The numbers were measured. Suspicion counts dead entries too, so a second failure takes maxSuspicion times as long in a small cluster;
// a split that outlives gossipToTheDead never heals without rejoin.
func (p Profile) timing() timing {
	if p == Test {
		return timing{
			probeInterval: 200 * time.Millisecond, probeTimeout: 100 * time.Millisecond, suspicion: 3, maxSuspicion: 2,
			gossipInterval: 20 * time.Millisecond, pushPullInterval: 2 * time.Second, gossipToTheDead: 3 * time.Second,
			reclaim: time.Millisecond, stream: time.Second, rejoin: 200 * time.Millisecond, leave: 500 * time.Millisecond,
		}
	}
	return timing{
		probeInterval: 500 * time.Millisecond, probeTimeout: 250 * time.Millisecond, suspicion: 4, maxSuspicion: 3,
		gossipInterval: 100 * time.Millisecond, pushPullInterval: 15 * time.Second, gossipToTheDead: 30 * time.Second,
		reclaim: time.Second, stream: 5 * time.Second, rejoin: 5 * time.Second, leave: time.Second,
	}
}

func (t timing) config() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval, c.ProbeTimeout = t.probeInterval, t.probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = t.suspicion, t.maxSuspicion
	c.GossipInterval, c.GossipToTheDeadTime = t.gossipInterval, t.gossipToTheDead
	c.RetransmitMult = 4 // with 2, updates get lost and wait for the next exchange of states
	c.PushPullInterval = t.pushPullInterval
	c.DeadNodeReclaimTime = t.reclaim
	c.TCPTimeout = t.stream
	c.EnableCompression = false // a few hundred bytes; and so no packet of ours expands
	c.HandoffQueueDepth = 256   // of packets, each at most maxPacket bytes
	return c
}
