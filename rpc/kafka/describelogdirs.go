package kafka

// DescribeLogDirs 1-4, of the node that is asked. Deviations: the sizes of the file system are not told (-1); no replica moves between directories.

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
)

func answerDescribeLogDirs(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dirs, err := c.broker().LogDirs(c.ctx, c.caller)
	if err != nil { // in versions below 3: no directories, which clients take for a refusal
		resp.ErrorCode, _ = refusal(err)
		return resp
	}
	asked := func(d broker.LogDirReplica) bool {
		return req.Topics == nil || slices.ContainsFunc(req.Topics, func(t kmsg.DescribeLogDirsRequestTopic) bool {
			return t.Topic == d.Topic && slices.Contains(t.Partitions, int32(d.Partition))
		})
	}
	for _, d := range dirs {
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir, dir.TotalBytes, dir.UsableBytes = d.Path, unknown, unknown
		for _, replica := range d.Replicas { // sorted by topic
			if !asked(replica) {
				continue
			}
			if n := len(dir.Topics); n == 0 || dir.Topics[n-1].Topic != replica.Topic {
				topic := kmsg.NewDescribeLogDirsResponseDirTopic()
				topic.Topic = replica.Topic
				dir.Topics = append(dir.Topics, topic)
			}
			partition := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			partition.Partition, partition.Size, partition.OffsetLag = int32(replica.Partition), replica.Bytes, int64(replica.Lag)
			topic := &dir.Topics[len(dir.Topics)-1]
			topic.Partitions = append(topic.Partitions, partition)
		}
		resp.Dirs = append(resp.Dirs, dir)
	}
	return resp
}
