package placement

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A snapshot is the whole table:
//
//	0   4  magic "qlmt"
//	4   4  form: the feature level with which it came, big endian
//	8   4  length of the JSON
//	12  4  CRC-32C of bytes 4..12 and the JSON
//	16  n  JSON of savedTable
//
// The form is that of the cluster's level, not of the release: until the cluster is raised, the release before has to read what this
// one wrote. Whatever a release adds to the table comes with a form of its own; a field that is not of the form is an error, so a release never
// reads past something that it does not know.
const (
	snapshotMagic  = "qlmt"
	snapshotHeader = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// savedTable is the form of level 1, and what later levels add. What can be computed from the rest is not in it.
type savedTable struct {
	Index        id.Index     `json:"index"`
	ClusterID    string       `json:"cluster_id"`
	ClusterName  string       `json:"cluster_name"`
	Founder      id.Node      `json:"founder"`
	Level        FeatureLevel `json:"level"`
	NextSequence uint64       `json:"next_sequence"`
	NextGroup    id.Group     `json:"next_group"`
	NextReplica  id.Replica   `json:"next_replica"`
	NextProducer id.Producer  `json:"next_producer"`
	Nodes        []savedNode  `json:"nodes"`
	Topics       []savedTopic `json:"topics"`

	ACLs   []acl.Binding `json:"acls,omitempty"`
	Users  []*Credential `json:"users,omitempty"`
	Quotas []*quota.Rule `json:"quotas,omitempty"`
	laterState
}

type savedNode struct {
	RegisterNode
	MetadataReplica id.Replica `json:"metadata_replica"`
}

type savedTopic struct {
	Name              string            `json:"name"`
	ID                id.Topic          `json:"id"`
	Sequence          uint64            `json:"sequence"`
	Created           id.Index          `json:"created"`
	ReplicationFactor int               `json:"replication_factor"`
	FirstGroup        id.Group          `json:"first_group"`
	Configs           map[string]string `json:"configs,omitempty"`
	// Partitions has a row [replica, node, replica, node, …] for each partition: ten thousand of them should not take megabytes.
	Partitions [][]uint64 `json:"partitions"`
}

// Snapshot appends the table to dst. Two tables that applied the same commands give the same bytes.
func (t *Table) Snapshot(dst []byte) []byte {
	v := t.view.Load()
	if t.saved.of != v {
		t.saved.of, t.saved.bytes = v, v.encode()
	}
	return append(dst, t.saved.bytes...)
}

func (v *View) encode() []byte {
	s := savedTable{
		Index: v.index, ClusterID: v.clusterID, ClusterName: v.clusterName, Founder: v.founder, Level: v.level,
		NextSequence: v.nextSequence, NextGroup: v.nextGroup, NextReplica: v.nextReplica, NextProducer: v.nextProducer,
		Nodes: make([]savedNode, len(v.nodes)), Topics: make([]savedTopic, len(v.topics)),
		ACLs: slices.Collect(v.acls.All()), Users: v.users, Quotas: slices.Collect(v.quotas.All()), laterState: v.laterState,
	}
	for i, n := range v.nodes {
		s.Nodes[i] = savedNode{RegisterNode{
			Node: n.ID, StoreID: n.StoreID, BootEpoch: n.BootEpoch, RPCAddress: n.RPCAddress, GossipAddress: n.GossipAddress,
			Rack: n.Rack, Version: n.Version, MinLevel: n.MinLevel, MaxLevel: n.MaxLevel,
		}, n.MetadataReplica}
	}
	for i, t := range v.topics {
		s.Topics[i] = saveTopic(t)
	}
	body, err := json.Marshal(s)
	if err != nil {
		panic("placement: encode the table: " + err.Error())
	}
	b := make([]byte, snapshotHeader, snapshotHeader+len(body))
	copy(b, snapshotMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(snapshotForm(v.level)))
	binary.BigEndian.PutUint32(b[8:], uint32(len(body)))
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[12:], snapshotSum(b))
	return b
}

func snapshotSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[4:12], castagnoli), castagnoli, b[snapshotHeader:])
}

func saveTopic(t *Topic) savedTopic {
	s := savedTopic{
		Name: t.Name, ID: t.ID, Sequence: t.Sequence, Created: t.Created, ReplicationFactor: t.ReplicationFactor,
		FirstGroup: t.Partitions[0].Group, Configs: t.Configs, Partitions: make([][]uint64, len(t.Partitions)),
	}
	for i, p := range t.Partitions {
		row := make([]uint64, 0, 2*len(p.Members))
		for _, m := range p.Members {
			row = append(row, uint64(m.Replica), uint64(m.Node))
		}
		s.Partitions[i] = row
	}
	return s
}

// Restore replaces the table by the one that Snapshot returned. On error the table stays as it was.
func (t *Table) Restore(snapshot []byte) error {
	v, err := decodeView(snapshot)
	if err != nil {
		return err
	}
	t.view.Store(v)
	return nil
}

func decodeView(b []byte) (*View, error) {
	if len(b) < snapshotHeader || string(b[:4]) != snapshotMagic {
		return nil, fmt.Errorf("placement: %d bytes are not a snapshot of the metadata table", len(b))
	}
	form := FeatureLevel(binary.BigEndian.Uint32(b[4:]))
	if form > SupportedLevel {
		return nil, &UnsupportedError{What: "the form of the metadata's snapshot", Level: form, Supported: SupportedLevel}
	}
	if n := binary.BigEndian.Uint32(b[8:]); uint64(n) != uint64(len(b)-snapshotHeader) {
		return nil, fmt.Errorf("placement: snapshot of the metadata table has %d bytes, its header says %d", len(b)-snapshotHeader, n)
	}
	if want, have := binary.BigEndian.Uint32(b[12:]), snapshotSum(b); want != have {
		return nil, fmt.Errorf("placement: snapshot of the metadata table is damaged: checksum is %08x, should be %08x", have, want)
	}
	var s savedTable
	if err := unmarshalStrict(b[snapshotHeader:], &s); err != nil {
		return nil, fmt.Errorf("placement: snapshot of the metadata table: %w", err)
	}
	v, err := s.view()
	if err != nil {
		return nil, fmt.Errorf("placement: snapshot of the metadata table: %w", err)
	}
	if want := snapshotForm(v.level); form != want {
		return nil, fmt.Errorf("placement: snapshot of the metadata table at feature level %d has form %d, should have form %d", v.level, form, want)
	}
	return v, nil
}

func (s *savedTable) view() (*View, error) {
	if err := s.validSecurity(); err != nil {
		return nil, err
	}
	v := &View{
		index: s.Index, clusterID: s.ClusterID, clusterName: s.ClusterName, founder: s.Founder, level: s.Level,
		nextSequence: s.NextSequence, nextGroup: s.NextGroup, nextReplica: s.NextReplica, nextProducer: s.NextProducer,
		acls: acl.SetOf(s.ACLs...), users: s.Users, quotas: quota.SetOf(s.Quotas...), laterState: s.laterState,
	}
	for _, n := range s.Nodes {
		v.nodes = append(v.nodes, &Node{
			ID: n.Node, StoreID: n.StoreID, BootEpoch: n.BootEpoch, RPCAddress: n.RPCAddress, GossipAddress: n.GossipAddress,
			Rack: n.Rack, Version: n.Version, MinLevel: n.MinLevel, MaxLevel: n.MaxLevel, MetadataReplica: n.MetadataReplica,
		})
	}
	for i := range s.Topics {
		t, err := s.Topics[i].topic()
		if err != nil {
			return nil, err
		}
		v.topics = append(v.topics, t)
		v.groups = append(v.groups, groupSpan{t.Partitions[0].Group, t})
	}
	v.topicsByID = slices.Clone(v.topics)
	slices.SortFunc(v.topicsByID, func(a, b *Topic) int { return compareTopicID(a.ID, b.ID) })
	slices.SortFunc(v.groups, func(a, b groupSpan) int { return cmp.Compare(a.first, b.first) })
	return v, v.valid()
}

// valid checks what every search in a view relies on.
func (v *View) valid() error {
	switch {
	case v.level > SupportedLevel:
		return unsupportedLevel(v.level)
	case v.level < FirstLevel:
		return fmt.Errorf("feature level %d", v.level)
	case !ascending(v.nodes, func(a, b *Node) int { return cmp.Compare(a.ID, b.ID) }):
		return errors.New("nodes are not sorted by id")
	case !ascending(v.topics, func(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) }):
		return errors.New("topics are not sorted by name")
	case !ascending(v.topicsByID, func(a, b *Topic) int { return compareTopicID(a.ID, b.ID) }):
		return errors.New("two topics have one id")
	}
	next := id.MetadataGroup + 1
	for _, span := range v.groups {
		if span.first < next {
			return fmt.Errorf("topic %s shares groups with another one", span.topic.Name)
		}
		next = span.first + id.Group(len(span.topic.Partitions))
	}
	if next > v.nextGroup {
		return fmt.Errorf("group %d is in use, the next one to allocate is %d", next-1, v.nextGroup)
	}
	return nil
}

// ascending tells whether s is sorted without equal elements.
func ascending[E any](s []E, compare func(a, b E) int) bool {
	for i := 1; i < len(s); i++ {
		if compare(s[i-1], s[i]) >= 0 {
			return false
		}
	}
	return true
}

func (s *savedTopic) topic() (*Topic, error) {
	if len(s.Partitions) == 0 {
		return nil, fmt.Errorf("topic %s has no partitions", s.Name)
	}
	t := &Topic{
		ID: s.ID, Name: s.Name, Sequence: s.Sequence, Created: s.Created, ReplicationFactor: s.ReplicationFactor,
		Configs: s.Configs, Config: effective(s.Configs), Partitions: make([]Partition, len(s.Partitions)),
	}
	for i, row := range s.Partitions {
		if len(row) == 0 || len(row)%2 != 0 {
			return nil, fmt.Errorf("topic %s: partition %d has a row of %d numbers", s.Name, i, len(row))
		}
		members := make([]Member, len(row)/2)
		for j := range members {
			if row[2*j+1] > math.MaxInt32 {
				return nil, fmt.Errorf("topic %s: partition %d is on node %d", s.Name, i, row[2*j+1])
			}
			members[j] = Member{Replica: id.Replica(row[2*j]), Node: id.Node(row[2*j+1])}
		}
		t.Partitions[i] = Partition{ID: id.Partition(i), Group: s.FirstGroup + id.Group(i), Members: members}
	}
	return t, nil
}
