package raftgrouptest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Config describes a Cluster. Nodes and groups are numbered from 1; the replica of group g on node n is ReplicaOf(g, n).
type Config struct {
	Nodes, Groups int
	Voters        int // how many of the nodes, the first ones, are members of the groups from the beginning; 0: all
	Seed          uint64
	MinInSync     int
	Options       raftgroup.Options // what is zero takes the defaults; Node, Store and Transport are set
	Disk          func(node id.Node) Disk
	Campaign      raftgroup.CampaignHint  // of the first member of each group
	Vital         id.Group                // is vital; 0: none
	Machine       func(id.Node, *Machine) // is shown each machine before its replica is opened; nil: nobody is
}

// Cluster is a few hosts on a Network, each with its Disk. It is driven by one goroutine.
type Cluster struct {
	Config  Config
	Net     *Network
	Witness *Witness
	Nodes   map[id.Node]*Node
}

// Node is one node of a Cluster.
type Node struct {
	ID       id.Node
	Disk     Disk
	Host     *raftgroup.Host // nil while it is down
	Store    Store
	Machines map[id.Group]*Machine
}

// start is where logs begin: not at 0, so that nothing works by chance.
var start = wal.Start{Index: 10, Term: 1}

// ReplicaOf returns the replica id of a group's member on a node.
func ReplicaOf(g id.Group, n id.Node) id.Replica { return id.Replica(uint64(g)*100 + uint64(n)) }

// NodeOf is the inverse of ReplicaOf.
func NodeOf(r id.Replica) id.Node { return id.Node(r % 100) }

// NewCluster starts all nodes with all groups open.
func NewCluster(c Config) (*Cluster, error) {
	cl := &Cluster{Config: c, Net: NewNetwork(c.Seed), Witness: NewWitness(), Nodes: make(map[id.Node]*Node)}
	cl.Net.Problem = cl.Witness.Problem
	for i := 1; i <= c.Nodes; i++ {
		n := &Node{ID: id.Node(i)}
		if c.Disk != nil {
			n.Disk = c.Disk(n.ID)
		} else {
			n.Disk = NewMemDisk(c.Seed + uint64(i))
		}
		cl.Nodes[n.ID] = n
	}
	for i := 1; i <= c.Nodes; i++ {
		if err := cl.Start(id.Node(i)); err != nil {
			return nil, err
		}
	}
	return cl, nil
}

// Members returns the members that groups begin with.
func (c *Cluster) Members(g id.Group) []raftgroup.Member {
	var members []raftgroup.Member
	voters := c.Config.Voters
	if voters == 0 {
		voters = c.Config.Nodes
	}
	for i := range voters {
		n := id.Node((i+int(g)-1)%voters + 1)
		members = append(members, raftgroup.Member{Replica: ReplicaOf(g, n), Node: n})
	}
	return members
}

// Start opens a node's disk, and on it its groups.
func (c *Cluster) Start(node id.Node) error {
	n := c.Nodes[node]
	store, err := n.Disk.Open()
	if err != nil {
		return err
	}
	o := c.Config.Options
	o.Node, o.Store, o.Transport = node, store, c.Net.Endpoint(node)
	onFailed := o.OnGroupFailed
	o.OnGroupFailed = func(g *raftgroup.Group, err error) {
		c.Witness.Problem("node %d: %v", node, err)
		if onFailed != nil {
			onFailed(g, err)
		}
	}
	host, err := raftgroup.New(o)
	if err != nil {
		return err
	}
	n.Store, n.Host, n.Machines = store, host, make(map[id.Group]*Machine)
	c.Net.Attach(node, host)
	logs := make(map[id.Group]raftgroup.Log)
	for _, l := range store.Logs() {
		logs[l.Group()] = l
	}
	for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
		l := logs[g]
		if l == nil && c.Config.Voters > 0 && int(node) > c.Config.Voters {
			continue
		}
		if l == nil {
			var voters []id.Replica
			for _, m := range c.Members(g) {
				voters = append(voters, m.Replica)
			}
			if l, err = c.Create(node, g, voters, nil); err != nil {
				return err
			}
		}
		if _, err := c.OpenGroup(node, l, c.Members(g)); err != nil {
			return err
		}
	}
	return nil
}

// Create makes the log of a group's member on a node.
func (c *Cluster) Create(node id.Node, g id.Group, voters, learners []id.Replica) (raftgroup.Log, error) {
	return c.Nodes[node].Store.Create(context.Background(), wal.Spec{
		Group: g, Replica: ReplicaOf(g, node), Name: fmt.Sprintf("group-%d", g), Topic: id.Topic{byte(g)},
		Start:     start,
		HardState: wal.HardState{Term: start.Term, Commit: start.Index},
		State:     wal.State{Applied: start.Index, ConfState: raftgroup.EncodeConfState(voters, learners)},
	})
}

// OpenGroup opens a replica on a node.
func (c *Cluster) OpenGroup(node id.Node, l raftgroup.Log, members []raftgroup.Member) (*raftgroup.Group, error) {
	n := c.Nodes[node]
	who := fmt.Sprintf("replica %d of group %d", l.Replica(), l.Group())
	m := NewMachine(c.Witness, who, l.Group(), l.Start(), l.State())
	m.log = l
	n.Machines[l.Group()] = m
	if c.Config.Machine != nil {
		c.Config.Machine(node, m)
	}
	spec := raftgroup.Spec{
		Group: l.Group(), Replica: l.Replica(), Members: members, Log: l, Machine: m, MinInSync: c.Config.MinInSync,
		Vital: c.Config.Vital == l.Group(),
	}
	if len(members) > 0 && members[0].Replica == l.Replica() {
		spec.Campaign = c.Config.Campaign
	}
	return n.Host.Open(spec)
}

// Crash ends a node as power loss does, Stop as a clean shutdown does.
func (c *Cluster) Crash(node id.Node) {
	n := c.Nodes[node]
	c.Net.Detach(node)
	n.Disk.Halt()
	_ = n.Host.Close()
	n.Disk.Crash()
	n.Host, n.Store = nil, nil
}

// Stop ends a node in good order.
func (c *Cluster) Stop(node id.Node) error {
	n := c.Nodes[node]
	c.Net.Detach(node)
	err := n.Host.Close()
	if e := n.Store.Close(); err == nil {
		err = e
	}
	n.Host, n.Store = nil, nil
	return err
}

// Close stops all nodes.
func (c *Cluster) Close() {
	for node, n := range c.Nodes {
		if n.Host != nil {
			if err := c.Stop(node); err != nil {
				c.Witness.Problem("stop node %d: %v", node, err)
			}
		}
	}
	c.Net.Close()
}

// Group returns a group's replica on a node, or nil.
func (c *Cluster) Group(node id.Node, g id.Group) *raftgroup.Group {
	if n := c.Nodes[node]; n != nil && n.Host != nil {
		return n.Host.Group(g)
	}
	return nil
}

// Leader returns the replica that leads a group in the highest term, or nil.
func (c *Cluster) Leader(g id.Group) *raftgroup.Group {
	var best *raftgroup.Group
	var bestTerm id.Term
	for node := range c.Nodes {
		if r := c.Group(node, g); r != nil && r.IsLeader() {
			if _, _, term := r.Leader(); best == nil || term > bestTerm {
				best, bestTerm = r, term
			}
		}
	}
	return best
}

// TellConditions tells each node what the disks of the others allow, as lanes do all the time.
func (c *Cluster) TellConditions() {
	for _, from := range c.Nodes {
		for _, to := range c.Nodes {
			if from.Host != nil && to.Host != nil {
				to.Host.NodeCondition(from.ID, from.Host.Condition())
			}
		}
	}
}

// Until polls a condition, in virtual or real time.
func Until(limit time.Duration, condition func() bool) bool {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(limit); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// AwaitLeader waits until a group is led and returns the leader, or nil.
func (c *Cluster) AwaitLeader(g id.Group, limit time.Duration) *raftgroup.Group {
	var leader *raftgroup.Group
	Until(limit, func() bool { leader = c.Leader(g); return leader != nil })
	return leader
}

// Caught tells whether all running replicas of a group have applied the same entries, all that were committed.
func (c *Cluster) Caught(g id.Group) bool {
	leader := c.Leader(g)
	if leader == nil {
		return false
	}
	for node := range c.Nodes {
		r := c.Group(node, g)
		if r != nil && (r.Applied() != r.Log().LastIndex() || r.Applied() < leader.Applied() || r.Applied() < c.Witness.LastApplied(g)) {
			return false
		}
	}
	return true
}

// Batch makes a batch of one record.
func Batch(value []byte) batch.Batch {
	var b batch.Builder
	b.Append(batch.Record{Value: value})
	made, err := b.Finish(nil, batch.Plain(0))
	if err != nil {
		panic(err)
	}
	return made
}

// Propose proposes a copy of a batch, which is overwritten when it is done, and notes its acknowledgement; the result arrives on
// the channel.
func (c *Cluster) Propose(g *raftgroup.Group, b batch.Batch, acks raftgroup.Acks) <-chan raftgroup.Result {
	result := make(chan raftgroup.Result, 1)
	g.Propose(&raftgroup.Proposal{Batch: slices.Clone(b), Acks: acks, Done: func(p *raftgroup.Proposal) {
		for i := range p.Batch {
			p.Batch[i] = 0xDB
		}
		if p.Result.Err == nil && acks == raftgroup.AcksAll {
			c.Witness.Acked(g.ID(), p.Result.Index, p.Result.Term)
		}
		result <- p.Result
	}})
	return result
}
