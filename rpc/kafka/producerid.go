package kafka

// InitProducerId 0-4, for idempotent producers: each gets an id of its own, in epoch 0, also one that asks for its next epoch. Deviation: a
// transactional id is refused with UNSUPPORTED_VERSION.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerInitProducerID(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.InitProducerIDRequest)
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.Version, resp.ProducerID, resp.ProducerEpoch = c.version, int64(id.NoProducer), -1
	if req.TransactionalID != nil {
		resp.ErrorCode = int16(kerr.UnsupportedVersion)
		return resp
	}
	producer, err := c.broker().InitProducerID(c.ctx, c.caller)
	if err != nil {
		resp.ErrorCode, _ = refusal(err)
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = int64(producer), 0
	return resp
}
