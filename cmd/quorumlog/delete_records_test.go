package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/client"
)

func TestParseDeletions(t *testing.T) {
	got, err := parseDeletions([]byte(`{"partitions":[{"topic":"t","partition":1,"offset":-1},{"topic":"t","partition":0,"offset":4294967297}],"version":1}`))
	want := map[client.TopicPartition]client.Offset{{Topic: "t", Partition: 1}: client.End, {Topic: "t"}: 1<<32 + 1}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for text, says := range map[string]string{
		``:                  "JSON",
		`{}`:                "no \"partitions\"",
		`{"partitions":[]}`: "no \"partitions\"",
		`{"partitions":[{"topic":"t","partition":1,"offset":1}],"version":2}`:                                        "version 2",
		`{"partitions":[{"topic":"t","partition":1}]}`:                                                               "no \"offset\"",
		`{"partitions":[{"topic":"t","offset":1}]}`:                                                                  "no \"partition\"",
		`{"partitions":[{"partition":1,"offset":1}]}`:                                                                "no \"topic\"",
		`{"partitions":[{"topic":"t","partition":4294967297,"offset":1}]}`:                                           "partitions[0].partition",
		`{"partitions":[{"topic":"t","partition":1,"offset":1.5}]}`:                                                  "partitions[0].offset",
		`{"partitions":[{"topic":"t","partition":1,"offset":1},{"topic":"t","partition":1,"offset":2}],"version":1}`: "twice",
	} {
		if got, err := parseDeletions([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
