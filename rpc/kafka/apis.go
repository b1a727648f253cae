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
	{kmsg.CreateTopics, 2, 7, answerCreateTopics},
	{kmsg.DeleteTopics, 1, 6, answerDeleteTopics},
	{kmsg.DeleteRecords, 0, 2, answerDeleteRecords},
	{kmsg.InitProducerID, 0, 4, answerInitProducerID},
	{kmsg.OffsetForLeaderEpoch, 2, 4, answerOffsetForLeaderEpoch},
	{kmsg.DescribeACLs, 1, 3, answerDescribeAcls},
	{kmsg.CreateACLs, 1, 3, answerCreateAcls},
	{kmsg.DeleteACLs, 1, 3, answerDeleteAcls},
	{kmsg.DescribeConfigs, 1, 4, answerDescribeConfigs},
	{kmsg.AlterConfigs, 0, 2, answerAlterConfigs},
	{kmsg.DescribeLogDirs, 1, 4, answerDescribeLogDirs},
	{kmsg.ElectLeaders, 0, 2, answerElectLeaders},
	{kmsg.IncrementalAlterConfigs, 0, 1, answerIncrementalAlterConfigs},
	{kmsg.ListPartitionReassignments, 0, 0, answerListReassignments},
	{kmsg.DescribeClientQuotas, 0, 1, answerDescribeQuotas},
	{kmsg.AlterClientQuotas, 0, 1, answerAlterQuotas},
	{kmsg.DescribeUserSCRAMCredentials, 0, 0, answerDescribeScram},
	{kmsg.AlterUserSCRAMCredentials, 0, 0, answerAlterScram},
	{kmsg.DescribeQuorum, 0, 2, answerDescribeQuorum},
	{kmsg.UpdateFeatures, 0, 1, answerUpdateFeatures},
	{kmsg.DescribeCluster, 0, 1, answerDescribeCluster},
	{kmsg.DescribeTransactions, 0, 0, answerDescribeTransactions},
	{kmsg.ListTransactions, 0, 1, answerListTransactions},
	{kmsg.DescribeTopicPartitions, 0, 0, answerDescribeTopicPartitions},
}
