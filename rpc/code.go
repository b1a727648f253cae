package rpc

import "strconv"

// Code is an error code of the Kafka protocol: the same numbers, names and retriable bits, so that the Kafka listener
// and the native protocol say the same thing.
type Code int16

// The codes in use, under Kafka's names.
const (
	CodeUnknown                     Code = -1
	CodeNone                        Code = 0
	CodeOffsetOutOfRange            Code = 1
	CodeCorruptMessage              Code = 2
	CodeUnknownTopicOrPartition     Code = 3
	CodeInvalidFetchSize            Code = 4
	CodeLeaderNotAvailable          Code = 5
	CodeNotLeaderOrFollower         Code = 6
	CodeRequestTimedOut             Code = 7
	CodeBrokerNotAvailable          Code = 8
	CodeReplicaNotAvailable         Code = 9
	CodeMessageTooLarge             Code = 10
	CodeNetworkException            Code = 13
	CodeCoordinatorLoadInProgress   Code = 14
	CodeCoordinatorNotAvailable     Code = 15
	CodeNotCoordinator              Code = 16
	CodeInvalidTopic                Code = 17
	CodeNotEnoughReplicas           Code = 19
	CodeNotEnoughReplicasAfter      Code = 20
	CodeInvalidRequiredAcks         Code = 21
	CodeInvalidTimestamp            Code = 32
	CodeUnsupportedVersion          Code = 35
	CodeTopicAlreadyExists          Code = 36
	CodeInvalidPartitions           Code = 37
	CodeInvalidReplicationFactor    Code = 38
	CodeInvalidReplicaAssignment    Code = 39
	CodeInvalidConfig               Code = 40
	CodeNotController               Code = 41
	CodeInvalidRequest              Code = 42
	CodePolicyViolation             Code = 44
	CodeOutOfOrderSequence          Code = 45
	CodeDuplicateSequence           Code = 46
	CodeInvalidProducerEpoch        Code = 47
	CodeStorageError                Code = 56
	CodeUnknownProducerID           Code = 59
	CodeFencedLeaderEpoch           Code = 74
	CodeUnknownLeaderEpoch          Code = 75
	CodeUnsupportedCompression      Code = 76
	CodeOffsetNotAvailable          Code = 78
	CodeEligibleLeadersNotAvailable Code = 83
	CodeInvalidRecord               Code = 87
	CodeThrottlingQuotaExceeded     Code = 89
	CodeUnknownTopicID              Code = 100
	CodeDuplicateBrokerRegistration Code = 101
	CodeBrokerIDNotRegistered       Code = 102
	CodeInconsistentClusterID       Code = 104
)

// codes is indexed by nothing but looked up: it is on no hot path.
var codes = map[Code]struct {
	name      string
	retriable bool
}{
	CodeUnknown:                     {"UNKNOWN_SERVER_ERROR", false},
	CodeNone:                        {"NONE", false},
	CodeOffsetOutOfRange:            {"OFFSET_OUT_OF_RANGE", false},
	CodeCorruptMessage:              {"CORRUPT_MESSAGE", true},
	CodeUnknownTopicOrPartition:     {"UNKNOWN_TOPIC_OR_PARTITION", true},
	CodeInvalidFetchSize:            {"INVALID_FETCH_SIZE", false},
	CodeLeaderNotAvailable:          {"LEADER_NOT_AVAILABLE", true},
	CodeNotLeaderOrFollower:         {"NOT_LEADER_OR_FOLLOWER", true},
	CodeRequestTimedOut:             {"REQUEST_TIMED_OUT", true},
	CodeBrokerNotAvailable:          {"BROKER_NOT_AVAILABLE", true}, // Kafka: not retriable, but never sent by it; here: the node cannot be reached or is shutting down, and nothing was done
	CodeReplicaNotAvailable:         {"REPLICA_NOT_AVAILABLE", true},
	CodeMessageTooLarge:             {"MESSAGE_TOO_LARGE", false},
	CodeNetworkException:            {"NETWORK_EXCEPTION", true},
	CodeCoordinatorLoadInProgress:   {"COORDINATOR_LOAD_IN_PROGRESS", true},
	CodeCoordinatorNotAvailable:     {"COORDINATOR_NOT_AVAILABLE", true},
	CodeNotCoordinator:              {"NOT_COORDINATOR", true},
	CodeInvalidTopic:                {"INVALID_TOPIC_EXCEPTION", false},
	CodeNotEnoughReplicas:           {"NOT_ENOUGH_REPLICAS", true},
	CodeNotEnoughReplicasAfter:      {"NOT_ENOUGH_REPLICAS_AFTER_APPEND", true},
	CodeInvalidRequiredAcks:         {"INVALID_REQUIRED_ACKS", false},
	CodeInvalidTimestamp:            {"INVALID_TIMESTAMP", false},
	CodeUnsupportedVersion:          {"UNSUPPORTED_VERSION", false},
	CodeTopicAlreadyExists:          {"TOPIC_ALREADY_EXISTS", false},
	CodeInvalidPartitions:           {"INVALID_PARTITIONS", false},
	CodeInvalidReplicationFactor:    {"INVALID_REPLICATION_FACTOR", false},
	CodeInvalidReplicaAssignment:    {"INVALID_REPLICA_ASSIGNMENT", false},
	CodeInvalidConfig:               {"INVALID_CONFIG", false},
	CodeNotController:               {"NOT_CONTROLLER", true},
	CodeInvalidRequest:              {"INVALID_REQUEST", false},
	CodePolicyViolation:             {"POLICY_VIOLATION", false},
	CodeOutOfOrderSequence:          {"OUT_OF_ORDER_SEQUENCE_NUMBER", false},
	CodeDuplicateSequence:           {"DUPLICATE_SEQUENCE_NUMBER", false},
	CodeInvalidProducerEpoch:        {"INVALID_PRODUCER_EPOCH", false},
	CodeStorageError:                {"KAFKA_STORAGE_ERROR", true},
	CodeUnknownProducerID:           {"UNKNOWN_PRODUCER_ID", false},
	CodeFencedLeaderEpoch:           {"FENCED_LEADER_EPOCH", true},
	CodeUnknownLeaderEpoch:          {"UNKNOWN_LEADER_EPOCH", true},
	CodeUnsupportedCompression:      {"UNSUPPORTED_COMPRESSION_TYPE", false},
	CodeOffsetNotAvailable:          {"OFFSET_NOT_AVAILABLE", true},
	CodeEligibleLeadersNotAvailable: {"ELIGIBLE_LEADERS_NOT_AVAILABLE", true},
	CodeInvalidRecord:               {"INVALID_RECORD", false},
	CodeThrottlingQuotaExceeded:     {"THROTTLING_QUOTA_EXCEEDED", true},
	CodeUnknownTopicID:              {"UNKNOWN_TOPIC_ID", true},
	CodeDuplicateBrokerRegistration: {"DUPLICATE_BROKER_REGISTRATION", false},
	CodeBrokerIDNotRegistered:       {"BROKER_ID_NOT_REGISTERED", false},
	CodeInconsistentClusterID:       {"INCONSISTENT_CLUSTER_ID", false},
}

// String returns Kafka's name of the code.
func (c Code) String() string {
	if i, ok := codes[c]; ok {
		return i.name
	}
	return "ERROR_CODE_" + strconv.Itoa(int(c))
}

// Retriable tells whether the same request may succeed later, perhaps at another node.
func (c Code) Retriable() bool { return codes[c].retriable }
