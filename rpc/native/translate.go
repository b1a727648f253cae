package native

import (
	"time"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// What package broker says, in protobuf; and back where nodes pass calls on to each other.

// milliseconds returns a duration as it travels: -1 for one that never began.
func milliseconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}

func toNode(n broker.Node) *pb.Node {
	return &pb.Node{
		Id: int32(n.ID), RpcAddress: n.RPCAddress, GossipAddress: n.GossipAddress, Rack: n.Rack, Alive: n.Alive, Version: n.Version,
	}
}

func fromNode(n *pb.Node) broker.Node {
	return broker.Node{
		ID: id.Node(n.GetId()), RPCAddress: n.GetRpcAddress(), GossipAddress: n.GetGossipAddress(), Rack: n.GetRack(), Alive: n.GetAlive(), Version: n.GetVersion(),
	}
}

func toNodes(list []id.Node) []int32 {
	var out []int32
	for _, n := range list {
		out = append(out, int32(n))
	}
	return out
}

func fromNodes(list []int32) []id.Node {
	var out []id.Node
	for _, n := range list {
		out = append(out, id.Node(n))
	}
	return out
}

func toTopic(t broker.Topic) *pb.Topic {
	if t.Err != nil {
		return &pb.Topic{Name: t.Name, ErrorCode: int32(t.Err.Code), ErrorMessage: t.Err.Message}
	}
	topic := &pb.Topic{Name: t.Name, Id: t.ID[:], Configs: t.Configs, ReplicationFactor: int32(t.ReplicationFactor)}
	for _, p := range t.Partitions {
		partition := &pb.Partition{
			Partition: int32(p.ID), Group: uint64(p.Group), Leader: int32(p.Leader), Epoch: int32(p.Epoch), Replicas: toNodes(p.Replicas), Isr: toNodes(p.ISR),
		}
		if p.Leader == id.NoNode {
			partition.ErrorCode = int32(kerr.LeaderNotAvailable)
		}
		topic.Partitions = append(topic.Partitions, partition)
	}
	return topic
}

func fromTopic(t *pb.Topic) *broker.Topic {
	topic := &broker.Topic{Name: t.GetName(), ID: fromTopicID(t.GetId()), Configs: t.GetConfigs(), ReplicationFactor: int(t.GetReplicationFactor())}
	for _, p := range t.GetPartitions() {
		topic.Partitions = append(topic.Partitions, broker.Partition{
			ID: id.Partition(p.GetPartition()), Group: id.Group(p.GetGroup()), Leader: id.Node(p.GetLeader()), Epoch: id.Epoch(p.GetEpoch()),
			Replicas: fromNodes(p.GetReplicas()), ISR: fromNodes(p.GetIsr()),
		})
	}
	return topic
}

func fromTopicID(b []byte) (topic id.Topic) {
	if len(b) == len(topic) {
		copy(topic[:], b)
	}
	return topic
}

func toPartitionStatus(s *broker.PartitionStatus) *pb.PartitionStatusResponse {
	response := &pb.PartitionStatusResponse{
		Group: uint64(s.Group), Replica: uint64(s.Replica), Role: s.Role, Leader: int32(s.Leader), Epoch: int32(s.Epoch),
		HighWatermark: int64(s.HighWatermark), LogStartOffset: int64(s.LogStart), LogEndOffset: int64(s.LogEnd),
		Commit: uint64(s.Commit), Applied: uint64(s.Applied), Isr: toNodes(s.ISR), Condemned: s.Condemned,
	}
	for _, m := range s.Members {
		response.Members = append(response.Members, &pb.PartitionMember{
			Node: int32(m.Node), Replica: uint64(m.Replica), Match: uint64(m.Match), InSync: m.InSync, Learner: m.Learner, LastAckMs: milliseconds(m.LastAck),
		})
	}
	return response
}

func fromPartitionStatus(r *pb.PartitionStatusResponse) *broker.PartitionStatus {
	s := &broker.PartitionStatus{
		Group: id.Group(r.GetGroup()), Replica: id.Replica(r.GetReplica()), Role: r.GetRole(), Leader: id.Node(r.GetLeader()), Epoch: id.Epoch(r.GetEpoch()),
		HighWatermark: id.Offset(r.GetHighWatermark()), LogStart: id.Offset(r.GetLogStartOffset()), LogEnd: id.Offset(r.GetLogEndOffset()),
		Commit: id.Index(r.GetCommit()), Applied: id.Index(r.GetApplied()), ISR: fromNodes(r.GetIsr()), Condemned: r.GetCondemned(),
	}
	for _, m := range r.GetMembers() {
		s.Members = append(s.Members, broker.Member{
			Node: id.Node(m.GetNode()), Replica: id.Replica(m.GetReplica()), Match: id.Index(m.GetMatch()), InSync: m.GetInSync(), Learner: m.GetLearner(),
			LastAck: time.Duration(m.GetLastAckMs()) * time.Millisecond,
		})
	}
	return s
}

func toClusterStatus(s *broker.ClusterStatus) *pb.ClusterStatusResponse {
	response := &pb.ClusterStatusResponse{
		ClusterId: s.ClusterID, ClusterName: s.ClusterName, Controller: int32(s.Controller), AnsweredBy: int32(s.AnsweredBy),
		Topics: int32(s.Topics), Partitions: int32(s.Partitions), UnderReplicated: int32(s.UnderReplicated),
		Leaderless: int32(s.Leaderless), LeaderUnknown: int32(s.LeaderUnknown),
		FeatureLevel: int32(s.FeatureLevel), FeatureLevelKnown: int32(s.FeatureLevelKnownToAll),
	}
	for _, n := range s.Nodes {
		response.Nodes = append(response.Nodes, toNodeStatus(n))
	}
	q := s.Metadata
	response.Metadata = &pb.MetadataQuorum{
		Leader: int32(q.Leader), Term: uint64(q.Term), Commit: uint64(q.Commit), Voters: toNodes(q.Voters), Learners: toNodes(q.Learners),
	}
	return response
}

// fromOwnStatus reads what a node says of itself alone.
func fromOwnStatus(r *pb.ClusterStatusResponse) *broker.ClusterStatus {
	s := &broker.ClusterStatus{
		ClusterID: r.GetClusterId(), ClusterName: r.GetClusterName(), Controller: id.Node(r.GetController()), AnsweredBy: id.Node(r.GetAnsweredBy()),
		Topics: int(r.GetTopics()), Partitions: int(r.GetPartitions()),
		FeatureLevel: broker.FeatureLevel(r.GetFeatureLevel()), FeatureLevelKnownToAll: broker.FeatureLevel(r.GetFeatureLevelKnown()),
	}
	for _, n := range r.GetNodes() {
		s.Nodes = append(s.Nodes, fromNodeStatus(n))
	}
	return s
}

func toNodeStatus(s broker.NodeStatus) *pb.NodeStatus {
	return &pb.NodeStatus{
		Node: toNode(s.Node), State: s.State, ErrorMessage: s.Trouble, Protocol: s.Protocol, FsyncClass: s.FsyncClass, MetricsAddress: s.MetricsAddress,
		DiskFreeBytes: s.DiskFreeBytes, BootEpoch: s.BootEpoch, AcceptsProduce: s.AcceptsProduce,
		Replicas: int32(s.Replicas), PartitionsLed: int32(s.PartitionsLed), UnderReplicated: int32(s.UnderReplicated), RefusedReplicas: int32(s.RefusedReplicas),
		ScrubErrors: s.ScrubErrors, LastScrubMs: s.LastScrub,
		MinFeatureLevel: int32(s.OldestFeatureLevel), MaxFeatureLevel: int32(s.SupportedFeatureLevel),
	}
}

func fromNodeStatus(s *pb.NodeStatus) broker.NodeStatus {
	return broker.NodeStatus{
		Node: fromNode(s.GetNode()), State: s.GetState(), Trouble: s.GetErrorMessage(), Protocol: s.GetProtocol(), FsyncClass: s.GetFsyncClass(),
		MetricsAddress: s.GetMetricsAddress(), DiskFreeBytes: s.GetDiskFreeBytes(), BootEpoch: s.GetBootEpoch(), AcceptsProduce: s.GetAcceptsProduce(),
		Replicas: int(s.GetReplicas()), PartitionsLed: int(s.GetPartitionsLed()), UnderReplicated: int(s.GetUnderReplicated()),
		RefusedReplicas: int(s.GetRefusedReplicas()), ScrubErrors: s.GetScrubErrors(), LastScrub: s.GetLastScrubMs(), OldestFeatureLevel: broker.FeatureLevel(s.GetMinFeatureLevel()),
		SupportedFeatureLevel: broker.FeatureLevel(s.GetMaxFeatureLevel()),
	}
}
