package serving

import (
	"context"
	"errors"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// coded is Refusal for errors that may be nil.
func coded(err error) error {
	if err == nil {
		return nil
	}
	return Refusal(err)
}

// Refusal gives an error of the layers below its code. It does not know nil.
func Refusal(err error) *kerr.Error {
	var (
		e         *kerr.Error
		notLeader *raftgroup.NotLeaderError
		tooLarge  *batch.TooLargeError
		outside   *partition.ErrOutOfRange
		badTime   *partition.TimestampError
		failed    *raftgroup.FailedError
		halted    *raftgroup.HaltedError
		late      *raftgroup.TimeoutError
		elsewhere *controller.NotControllerError
	)
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &failed):
		// Whatever stopped the replica: what it had in flight may be committed by the others. Only they can say.
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: "the replica stopped: another one leads in a moment", Leader: id.NoNode}
	case errors.As(err, &halted):
		const message = "the replica is halted: another one leads in a moment, if one can"
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: message, Leader: id.NoNode}
	case errors.As(err, &notLeader):
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: notLeader.Leader}
	case errors.As(err, &late):
		return kerr.Errorf(kerr.RequestTimedOut, "%v", err)
	case errors.As(err, &elsewhere):
		return &kerr.Error{Code: kerr.NotController, Message: elsewhere.Error(), Leader: elsewhere.Leader}
	case errors.As(err, &tooLarge):
		return kerr.Errorf(kerr.MessageTooLarge, "%v", err)
	case errors.As(err, &badTime):
		refused := kerr.Errorf(kerr.InvalidTimestamp, "%v", err)
		refused.Oldest = badTime.Oldest()
		return refused
	case errors.As(err, &outside):
		return kerr.Errorf(kerr.OffsetOutOfRange, "%v", err)
	}
	for _, m := range errorCodes {
		if errors.Is(err, m.err) {
			return kerr.Errorf(m.code, "%v", err)
		}
	}
	return kerr.Errorf(kerr.Unknown, "%v", err)
}

// errorCodes maps the sentinels of the layers below to what clients know; the first that matches counts.
var errorCodes = []struct {
	err  error
	code kerr.Code
}{
	{raftgroup.ErrOverloaded, kerr.ThrottlingQuotaExceeded},
	{raftgroup.ErrNotEnoughReplicasAfterAppend, kerr.NotEnoughReplicasAfter},
	{raftgroup.ErrNotEnoughReplicas, kerr.NotEnoughReplicas},
	{raftgroup.ErrNoSpace, kerr.StorageError},
	{raftgroup.ErrProposalDropped, kerr.NotLeaderOrFollower},
	{raftgroup.ErrClosed, kerr.NotLeaderOrFollower},
	{partition.ErrOutOfOrderSequence, kerr.OutOfOrderSequence},
	{partition.ErrDuplicateSequence, kerr.DuplicateSequence},
	{partition.ErrInvalidProducerEpoch, kerr.InvalidProducerEpoch},
	{partition.ErrUnknownProducer, kerr.CoordinatorLoadInProgress},
	{partition.ErrTooManyProducers, kerr.ThrottlingQuotaExceeded},
	{batch.ErrCorrupt, kerr.CorruptMessage},
	{batch.ErrInvalidTimestamp, kerr.InvalidTimestamp},
	{batch.ErrInvalid, kerr.InvalidRecord},
	{partition.ErrTransactional, kerr.InvalidRequest},
	{partition.ErrInternalTopic, kerr.InvalidTopic},
	{wal.ErrCorrupt, kerr.StorageError},
	{wal.ErrUnavailable, kerr.OffsetNotAvailable},
	{wal.ErrClosed, kerr.BrokerNotAvailable},
	{wal.ErrDeleted, kerr.UnknownTopicOrPartition},
	{context.DeadlineExceeded, kerr.RequestTimedOut},

	{placement.ErrTopicExists, kerr.TopicAlreadyExists},
	{placement.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{placement.ErrInvalidTopic, kerr.InvalidTopic},
	{placement.ErrInvalidPartitions, kerr.InvalidPartitions},
	{placement.ErrInvalidReplicationFactor, kerr.InvalidReplicationFactor},
	{placement.ErrInvalidConfig, kerr.InvalidConfig},
	{placement.ErrDuplicateNode, kerr.DuplicateBrokerRegistration},
	{placement.ErrStaleNode, kerr.DuplicateBrokerRegistration},
	{placement.ErrRemovedNode, kerr.BrokerIDNotRegistered},
	{placement.ErrNodeInUse, kerr.PolicyViolation},
	{placement.ErrNotFounded, kerr.CoordinatorLoadInProgress},
	{placement.ErrFeatureLevel, kerr.UnsupportedVersion},
	{placement.ErrInvalidRequest, kerr.InvalidRequest},
	{placement.ErrUnknownUser, kerr.ResourceNotFound},
	{placement.ErrDuplicateUser, kerr.DuplicateResource},
	{placement.ErrUnacceptableCredential, kerr.UnacceptableCredential},
	{placement.ErrUnknownMechanism, kerr.UnsupportedSASLMechanism},
	{placement.ErrTooMany, kerr.PolicyViolation},
}
