package leaders

import (
	"testing"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// BenchmarkLeaders looks up who leads the 1,000 partitions of a topic, of which this node has a third of the replicas, with their ISR.
func BenchmarkLeaders(b *testing.B) {
	m := newMetadata(b, 4)
	var assignment [][]id.Node
	for i := range 1000 {
		assignment = append(assignment, []id.Node{id.Node(i%4) + 1, id.Node(i+1)%4 + 1, id.Node(i+2)%4 + 1})
	}
	topic := m.topic("t", assignment...)
	table := New(Options{Self: 1, View: m.table.View, Alive: alive})
	for n := id.Node(1); n <= 4; n++ {
		news := rpc.News{To: 1, Last: true}
		for i := range topic.Partitions {
			p := &topic.Partitions[i]
			leader := p.Preferred().Node
			if _, member := p.On(n); member {
				news.Words = append(news.Words, rpc.Word{Group: p.Group, Leader: leader, Term: 3, Led: leader == n, InSync: assignment[i]})
			}
		}
		if n != 1 {
			table.Hear(n, 1, news)
			continue
		}
		for _, w := range news.Words {
			table.InSync(w.Group, w.Term, w.InSync, 0)
			table.Leads(w.Group, w.Leader, w.Term)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if list := table.Leaders(topic); list[7].Node == id.NoNode {
			b.Fatal("nobody leads")
		}
	}
}
