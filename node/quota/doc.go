// Package quota counts what clients use of this node, and says for how long who uses more than his quota is to pause. Which quota holds for whom
// is placement/quota's; this package has the buckets, each of which the clients that are counted together fill and time empties.
//
// Nobody is held back by not being read: his connection would look dead to both sides. A producer's batch is taken, and its answer says how
// long to send nothing (Kafka's throttle time). A consumer is sent nothing for as long. Who does not keep to that, and is ten seconds ahead of
// his quota, is refused with THROTTLING_QUOTA_EXCEEDED until he is no more than five ahead.
//
// Each node counts for itself, as in Kafka: a quota is per node.
package quota
