package client

import (
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

// The vectors of Kafka's own UtilsTest.testMurmur2.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, Kafka's is %d", key, got, want)
		}
	}
}

func TestPartitionOf(t *testing.T) {
	// toPositive(murmur2("foobar")) is -790332482 & 0x7fffffff = 1357151166.
	if got := partitionOf([]byte("foobar"), 100); got != id.Partition(66) {
		t.Errorf("partition %d, Kafka's is 66", got)
	}
	if got := partitionOf(nil, 7); got < 0 || got > 6 {
		t.Errorf("partition %d of an empty key", got)
	}
}
