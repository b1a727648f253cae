package kafka

// DescribeLogDirs 1-4, of the node that is asked. Deviations: the sizes of the file system are not told (-1); no replica moves between directories.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/wal/id"
)

func answerDescribeLogDirs(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeLogDirsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dirs, err := c.broker().LogDirs(c.ctx, c.caller)
	if err != nil { // in versions below 3: no directories, which clients take for a refusal
		resp.ErrorCode, _ = refusal(err)
		return resp
	}
	type replica struct {
		topic     string
		partition id.Partition
	}
	asked := make(map[replica]bool)
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			asked[replica{t.Topic, id.Partition(p)}] = true
		}
	}
	for _, d := range dirs {
		dir := kmsg.NewDescribeLogDirsResponseDir()
		dir.Dir, dir.TotalBytes, dir.UsableBytes = d.Path, unknown, unknown
		for _, r := range d.Replicas { // sorted by topic
			if req.Topics != nil && !asked[replica{r.Topic, r.Partition}] {
				continue
			}
			if n := len(dir.Topics); n == 0 || dir.Topics[n-1].Topic != r.Topic {
				topic := kmsg.NewDescribeLogDirsResponseDirTopic()
				topic.Topic = r.Topic
				dir.Topics = append(dir.Topics, topic)
			}
			partition := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			partition.Partition, partition.Size, partition.OffsetLag = int32(r.Partition), r.Bytes, int64(r.Lag)
			topic := &dir.Topics[len(dir.Topics)-1]
			topic.Partitions = append(topic.Partitions, partition)
		}
		resp.Dirs = append(resp.Dirs, dir)
	}
	return resp
}
