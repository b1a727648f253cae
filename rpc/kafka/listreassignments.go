package kafka

// ListPartitionReassignments 0. No replica is ever on its way to another node.

import "github.com/twmb/franz-go/pkg/kmsg"

func answerListReassignments(_ *call, r kmsg.Request) kmsg.Response {
	return r.ResponseKind()
}
