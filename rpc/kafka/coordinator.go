package kafka

// FindCoordinator 0-4. There are no groups and no transactions yet, so there is no coordinator either: COORDINATOR_NOT_AVAILABLE for a group,
// UNSUPPORTED_VERSION for a transactional id, whose client would otherwise ask for ever. It is advertised all the same: old releases of
// librdkafka compress with lz4 only if it is.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerFindCoordinator(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.FindCoordinatorRequest)
	code, message := kerr.CoordinatorNotAvailable, "consumer groups are not served"
	if req.CoordinatorType == 1 {
		code, message = kerr.UnsupportedVersion, "transactions are not served"
	}
	resp := kmsg.NewPtrFindCoordinatorResponse()
	resp.Version, resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Port = c.version, int16(code), &message, int32(id.NoNode), -1
	for _, key := range req.CoordinatorKeys {
		coordinator := kmsg.NewFindCoordinatorResponseCoordinator()
		coordinator.Key, coordinator.ErrorCode, coordinator.ErrorMessage, coordinator.NodeID, coordinator.Port = key, int16(code), &message, int32(id.NoNode), -1
		resp.Coordinators = append(resp.Coordinators, coordinator)
	}
	return resp
}
