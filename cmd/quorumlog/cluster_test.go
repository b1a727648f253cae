package main

import (
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/client"
)

// TestStatusSaysWhatIsWrong: replicas that are refused, and leaders that nobody knows of, and rot that the scrub found, are in the table, not in a node's log alone.
func TestStatusSaysWhatIsWrong(t *testing.T) {
	var b strings.Builder
	s := client.ClusterStatus{Partitions: 9, UnderReplicated: 2, LeaderUnknown: 3, Nodes: []client.NodeStatus{
		{Node: client.Node{ID: 4}, State: "ready", RefusedReplicas: 2, ScrubErrors: 7, LastScrub: 1_700_000_000_000}, {State: "disk full", RefusedReplicas: 1, Error: "disk full: free some space"},
	}}
	if err := printStatus(&b, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 under-replicated, 0 without leader, 3 whose leader is not known",
		"the scrub found rot in 7 of its logs", "Last scrub of all logs: node 4 2023-11-14T22:13:20Z\n",
		"2 of its replicas refused for good", "disk full: free some space; 1 of its replicas refused for good",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
