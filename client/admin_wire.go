package client

import (
	"slices"
	"strings"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

func metadataFromWire(r *pb.MetadataResponse) Metadata {
	m := Metadata{ClusterID: r.ClusterId, Controller: id.Node(r.Controller), Nodes: []Node{}, Topics: []Topic{}}
	for _, n := range r.Nodes {
		m.Nodes = append(m.Nodes, nodeFromWire(n))
	}
	for _, t := range r.Topics {
		if kerr.Code(t.ErrorCode) == kerr.None && len(t.Id) == len(id.Topic{}) {
			m.Topics = append(m.Topics, topicFromWire(t))
		}
	}
	slices.SortFunc(m.Nodes, func(a, b Node) int { return int(a.ID) - int(b.ID) })
	slices.SortFunc(m.Topics, func(a, b Topic) int { return strings.Compare(a.Name, b.Name) })
	return m
}

func nodeFromWire(n *pb.Node) Node {
	return Node{
		ID: id.Node(n.GetId()), Address: n.GetRpcAddress(), GossipAddress: n.GetGossipAddress(),
		Rack: n.GetRack(), Alive: n.GetAlive(), Version: n.GetVersion(),
	}
}

func topicFromWire(t *pb.Topic) Topic {
	out := Topic{
		Name: t.Name, ID: id.Topic(t.Id), Configs: t.Configs, Internal: t.Internal,
		ReplicationFactor: int(t.ReplicationFactor), Partitions: make([]Partition, 0, len(t.Partitions)),
	}
	if out.Configs == nil {
		out.Configs = map[string]string{}
	}
	for _, p := range t.Partitions {
		part := Partition{
			Partition: id.Partition(p.Partition), Leader: id.Node(p.Leader), Epoch: id.Epoch(p.Epoch),
			Replicas: nodesFromWire(p.Replicas), ISR: nodesFromWire(p.Isr), Error: p.ErrorMessage,
		}
		out.Partitions = append(out.Partitions, part)
		if out.ReplicationFactor == 0 {
			out.ReplicationFactor = len(part.Replicas)
		}
	}
	slices.SortFunc(out.Partitions, func(a, b Partition) int { return int(a.Partition) - int(b.Partition) })
	return out
}

func nodesFromWire(nodes []int32) []id.Node {
	out := make([]id.Node, len(nodes))
	for i, n := range nodes {
		out[i] = id.Node(n)
	}
	return out
}

func statusFromWire(r *pb.ClusterStatusResponse) ClusterStatus {
	s := ClusterStatus{
		ClusterID: r.ClusterId, ClusterName: r.ClusterName, Controller: id.Node(r.Controller), AnsweredBy: id.Node(r.AnsweredBy),
		Topics: int(r.Topics), Partitions: int(r.Partitions), UnderReplicated: int(r.UnderReplicated), Leaderless: int(r.Leaderless),
		LeaderUnknown: int(r.LeaderUnknown),
		FeatureLevel:  int(r.FeatureLevel), FeatureLevelKnown: int(r.FeatureLevelKnown),
		Nodes: []NodeStatus{},
		Metadata: MetadataQuorum{
			Leader: id.Node(r.Metadata.GetLeader()), Term: id.Term(r.Metadata.GetTerm()), Commit: id.Index(r.Metadata.GetCommit()),
			Voters: nodesFromWire(r.Metadata.GetVoters()), Learners: nodesFromWire(r.Metadata.GetLearners()),
		},
	}
	if r.Metadata == nil {
		s.Metadata.Leader = id.NoNode
	}
	for _, n := range r.Nodes {
		s.Nodes = append(s.Nodes, NodeStatus{
			Node: nodeFromWire(n.Node), State: n.State, Protocol: n.Protocol, AcceptsProduce: n.AcceptsProduce,
			DiskFreeBytes: n.DiskFreeBytes, FsyncClass: n.FsyncClass,
			Leaders: int(n.PartitionsLed), Replicas: int(n.Replicas), UnderReplicated: int(n.UnderReplicated),
			RefusedReplicas: int(n.RefusedReplicas), ScrubErrors: n.ScrubErrors, LastScrub: n.LastScrubMs,
			MetricsAddress: n.MetricsAddress, Error: n.ErrorMessage,
			MinFeatureLevel: int(n.MinFeatureLevel), MaxFeatureLevel: int(n.MaxFeatureLevel),
		})
	}
	slices.SortFunc(s.Nodes, func(a, b NodeStatus) int { return int(a.ID) - int(b.ID) })
	return s
}

func partitionStatusFromWire(tp id.TopicPartition, r *pb.PartitionStatusResponse) PartitionStatus {
	s := PartitionStatus{
		TopicPartition: tp, Leader: id.Node(r.Leader), Epoch: id.Epoch(r.Epoch), Start: id.Offset(r.LogStartOffset),
		HighWatermark: id.Offset(r.HighWatermark), LogEnd: id.Offset(r.LogEndOffset), ISR: nodesFromWire(r.Isr),
	}
	for _, m := range r.Members {
		s.Members = append(s.Members, PartitionMember{
			Node: id.Node(m.Node), Replica: id.Replica(m.Replica), Match: id.Index(m.Match), InSync: m.InSync, Learner: m.Learner,
			LastAck: time.Duration(m.LastAckMs) * time.Millisecond,
		})
	}
	return s
}
