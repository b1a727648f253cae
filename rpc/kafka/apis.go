package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// apis is what is served, by key. Nothing is advertised whose meaning is not there: clients act on what they find here. Who answers finds the
// table in the server.
var apis = []api{
	{kmsg.Produce, 0, 11, nil}, // 0-2 are refused: see produce.go
	{kmsg.Fetch, 4, 16, nil},
	{kmsg.ListOffsets, 1, 8, answerListOffsets},
	{kmsg.Metadata, 0, 12, answerMetadata},
	{kmsg.FindCoordinator, 0, 4, answerFindCoordinator},
	{kmsg.ApiVersions, 0, 4, answerApiVersions},
	{kmsg.InitProducerID, 0, 4, answerInitProducerID},
}
