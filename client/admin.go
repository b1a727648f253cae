package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// describeGrace is how long DescribeTopics looks for a topic that the node asked does not know: it may be a moment behind.
	describeGrace = time.Second
	// adminBackoff is the time before a call that no node could answer is tried again; it doubles up to adminBackoffMax.
	adminBackoff    = 50 * time.Millisecond
	adminBackoffMax = time.Second
	// identityPatience bounds one attempt to get a producer id.
	identityPatience = 2 * time.Second
)

// Admin is the calls for topics and the cluster. Each may be sent to any node; it is repeated at other nodes, and at the
// controller where only that one can do it, until it is answered or its context ends.
type Admin struct{ client *Client }

// Metadata returns the cluster, with the named topics, or all of them when none is named. A named topic that does not exist
// is left out. The ISR, which only leaders know, is left out as well: see DescribeTopics.
func (a *Admin) Metadata(ctx context.Context, topics ...string) (Metadata, error) {
	resp, err := a.metadata(ctx, &pb.MetadataRequest{Topics: topics})
	if err != nil {
		return Metadata{}, err
	}
	return metadataFromWire(resp), nil
}

// metadata returns the first answer that is enough. When every node has been asked and none had that, it is the youngest one.
func (a *Admin) metadata(ctx context.Context, req *pb.MetadataRequest) (resp *pb.MetadataResponse, err error) {
	cache := &a.client.cache
	left := len(cache.addresses())
	err = a.callAny(ctx, "metadata", func(ctx context.Context, c pb.DRPCAdminClient, past attempt) error {
		left--
		if resp != nil { // the others may be out of reach: then what there is has to do
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Second)
			defer cancel()
		}
		got, err := c.Metadata(ctx, req)
		enough := false
		if err == nil {
			enough, err = cache.judge(past.server, req, got)
		}
		if err == nil && (enough || resp == nil || stale(ageOf(resp)) && (!stale(ageOf(got)) || got.MetadataIndex > resp.MetadataIndex)) {
			resp = got
		}
		switch {
		case resp != nil && (enough || left <= 0):
			return nil
		case err == nil:
			return errNoMajority
		}
		return err
	})
	return resp, err
}

// CreateTopic creates a topic. It returns when the partitions have leaders, which is when records can be produced.
func (a *Admin) CreateTopic(ctx context.Context, t TopicSpec) error {
	req := &pb.CreateTopicRequest{
		Name:              t.Name,
		Partitions:        int32(t.Partitions),
		ReplicationFactor: int32(t.ReplicationFactor),
		Configs:           t.Configs,
		TimeoutMs:         int32(a.client.opts.RequestTimeout.Milliseconds()),
	}
	switch { // what is left of these in 32 bits might do
	case int(req.Partitions) != t.Partitions:
		return fmt.Errorf("client: create topic %q: %w: %d", t.Name, ErrInvalidPartitions, t.Partitions)
	case int(req.ReplicationFactor) != t.ReplicationFactor || t.ReplicationFactor < 0:
		return fmt.Errorf("client: create topic %q: %w: %d", t.Name, ErrInvalidReplicationFactor, t.ReplicationFactor)
	}
	if t.ReplicationFactor == 0 {
		req.ReplicationFactor = -1
	}
	err := a.call(ctx, fmt.Sprintf("create topic %q", t.Name), func(ctx context.Context, c pb.DRPCAdminClient, past attempt) error {
		_, err := c.CreateTopic(ctx, req)
		if past.maybeDone && kerr.CodeOf(err) == kerr.TopicAlreadyExists {
			return nil // by an earlier attempt of this call, whose answer got lost
		}
		return err
	})
	if err != nil {
		return err
	}
	return a.waitForLeaders(ctx, t.Name)
}

// waitForLeaders returns when every partition of a topic has a leader.
func (a *Admin) waitForLeaders(ctx context.Context, topic string) error {
	for {
		resp, err := a.metadata(ctx, &pb.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			return fmt.Errorf("topic %q is created, its leaders are not known: %w", topic, err)
		}
		for _, t := range resp.Topics {
			ready := t.Name == topic && len(t.Partitions) > 0
			for _, p := range t.Partitions {
				ready = ready && NodeID(p.Leader) != NoNode
			}
			if ready {
				return nil
			}
		}
		if err := pause(ctx, adminBackoff); err != nil {
			return fmt.Errorf("client: topic %q is created, but not every partition has a leader yet: %w", topic, err)
		}
	}
}

// DeleteTopic deletes a topic and its records.
func (a *Admin) DeleteTopic(ctx context.Context, name string) error {
	req := &pb.DeleteTopicRequest{Name: name, TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	return a.call(ctx, fmt.Sprintf("delete topic %q", name), func(ctx context.Context, c pb.DRPCAdminClient, past attempt) error {
		_, err := c.DeleteTopic(ctx, req)
		if past.maybeDone && kerr.CodeOf(err) == kerr.UnknownTopicOrPartition {
			return nil
		}
		return err
	})
}

// AlterConfig sets and removes settings of a topic, in one step, and returns the topic's own settings after it.
func (a *Admin) AlterConfig(ctx context.Context, topic string, set map[string]string, remove []string) (map[string]string, error) {
	req := &pb.AlterTopicConfigRequest{Name: topic, Set: set, Remove: remove, TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	var configs map[string]string
	err := a.call(ctx, fmt.Sprintf("alter topic %q", topic), func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		resp, err := c.AlterTopicConfig(ctx, req)
		configs = resp.GetConfigs()
		return err
	})
	return configs, err
}

// ListTopics returns the names of all topics, sorted. Internal ones begin with two underscores.
func (a *Admin) ListTopics(ctx context.Context) ([]string, error) {
	m, err := a.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(m.Topics))
	for _, t := range m.Topics {
		names = append(names, t.Name)
	}
	return names, nil
}

// DescribeTopics returns the named topics, or all, sorted by name. One that does not exist is an error.
func (a *Admin) DescribeTopics(ctx context.Context, names ...string) ([]Topic, error) {
	giveUp := time.Now().Add(describeGrace)
	for {
		resp, err := a.metadata(ctx, &pb.MetadataRequest{Topics: names})
		if err != nil {
			return nil, err
		}
		for _, t := range resp.Topics {
			if err := denialOf(t); err != nil && len(names) > 0 {
				return nil, fmt.Errorf("client: topic %q: %w", t.Name, err)
			}
		}
		m := metadataFromWire(resp)
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return slices.ContainsFunc(m.Topics, func(t Topic) bool { return t.Name == name })
		})
		if len(missing) == 0 {
			return m.Topics, nil
		}
		if time.Now().After(giveUp) {
			return nil, fmt.Errorf("%w %q", ErrUnknownTopic, missing[0])
		}
		if err := pause(ctx, adminBackoff); err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrUnknownTopic, missing[0], err)
		}
	}
}

// ClusterStatus returns the state of the cluster.
func (a *Admin) ClusterStatus(ctx context.Context) (ClusterStatus, error) {
	var resp *pb.ClusterStatusResponse
	err := a.call(ctx, "cluster status", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) (err error) {
		resp, err = c.ClusterStatus(ctx, &pb.ClusterStatusRequest{})
		return err
	})
	if err != nil {
		return ClusterStatus{}, err
	}
	return statusFromWire(resp), nil
}

// UnregisterNode takes a dead node that holds no replicas out of the cluster.
func (a *Admin) UnregisterNode(ctx context.Context, node NodeID) error {
	req := &pb.UnregisterNodeRequest{NodeId: int32(node), TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	return a.call(ctx, fmt.Sprintf("remove node %d", node), func(ctx context.Context, c pb.DRPCAdminClient, past attempt) error {
		_, err := c.UnregisterNode(ctx, req)
		if past.maybeDone && kerr.CodeOf(err) == kerr.BrokerIDNotRegistered {
			return nil // by an earlier attempt of this call, whose answer got lost
		}
		return err
	})
}

// PartitionStatus returns what the leader of a partition knows.
func (a *Admin) PartitionStatus(ctx context.Context, tp TopicPartition) (PartitionStatus, error) {
	var resp *pb.PartitionStatusResponse
	err := a.callLeader(ctx, tp, "status of", func(ctx context.Context, c pb.DRPCAdminClient) (err error) {
		resp, err = c.PartitionStatus(ctx, &pb.PartitionStatusRequest{Topic: tp.Topic, Partition: int32(tp.Partition)})
		return err
	})
	if err != nil {
		return PartitionStatus{}, err
	}
	return partitionStatusFromWire(tp, resp), nil
}

// TransferLeader asks the leader of a partition to hand over to the replica on node to.
func (a *Admin) TransferLeader(ctx context.Context, tp TopicPartition, to NodeID) error {
	return a.callLeader(ctx, tp, "transfer leadership of", func(ctx context.Context, c pb.DRPCAdminClient) error {
		_, err := c.TransferLeader(ctx, &pb.TransferLeaderRequest{Topic: tp.Topic, Partition: int32(tp.Partition), To: int32(to)})
		return err
	})
}

// initProducerID allocates a producer id.
func (a *Admin) initProducerID(ctx context.Context) (id.Producer, id.ProducerEpoch, error) {
	var resp *pb.InitProducerIDResponse
	err := a.call(ctx, "allocate a producer id", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) (err error) {
		// A node that is cut off would look for the controller for as long as it is given. An id that nobody gets does not matter.
		ctx, cancel := context.WithTimeout(ctx, identityPatience)
		defer cancel()
		resp, err = c.InitProducerID(ctx, &pb.InitProducerIDRequest{})
		return err
	})
	if err != nil {
		return id.NoProducer, 0, err
	}
	return id.Producer(resp.ProducerId), id.ProducerEpoch(resp.ProducerEpoch), nil
}

// attempt is what a call may want to know about this attempt and those before.
type attempt struct {
	server    string
	maybeDone bool // an earlier one got no answer: it may have been carried out
	answered  bool // one of them got an answer, with whatever
	foreign   int  // how many nodes in a row were of another cluster
}

// call is callAny for what a node of another cluster must not do: which one is meant is known before the first attempt.
func (a *Admin) call(ctx context.Context, what string, f func(context.Context, pb.DRPCAdminClient, attempt) error) error {
	if !a.client.cache.settled() {
		if _, err := a.metadata(ctx, &pb.MetadataRequest{NodesOnly: true}); err != nil {
			return err
		}
	}
	return a.callAny(ctx, what, f)
}

// callAny runs f against one node after the other until one answers, or refuses for good, or ctx ends.
func (a *Admin) callAny(ctx context.Context, what string, f func(context.Context, pb.DRPCAdminClient, attempt) error) error {
	var past attempt
	servers := newRotation(a.client.cache.ranked())
	for backoff := adminBackoff; ; {
		server := servers.next()
		past.server = server
		err := a.try(ctx, server, func(ctx context.Context, c pb.DRPCAdminClient) error { return f(ctx, c, past) })
		if err == nil {
			return nil
		}
		past.answered = past.answered || isAnswer(err) || errors.Is(err, errNoMajority)
		var refused *kerr.Error
		isRefusal := errors.As(err, &refused)
		wrong := kerr.CodeOf(err) == kerr.InconsistentClusterID || errors.Is(err, ErrWrongCluster)
		if past.foreign++; !wrong {
			past.foreign = 0
		}
		switch {
		case a.client.ctx.Err() != nil:
			return ErrClosed
		case wrong:
			if isRefusal {
				err = a.client.cache.refused(server, err)
			}
			if past.foreign >= len(servers.servers) {
				return fmt.Errorf("client: %s: %w", what, err)
			}
			isRefusal = false
		case errors.Is(err, errNoMajority): // an answer all the same
		case isRefusal && refused.Code == kerr.NotController:
			if addr, ok := a.client.cache.current.Load().nodes[refused.Leader]; ok && servers.prefer(addr) {
				continue
			}
			a.client.cache.requestNodes()
		case isRefusal && (refused.Code == kerr.UnknownTopicOrPartition || !refused.Code.Retriable()):
			return fmt.Errorf("client: %s: %w", what, err)
		case isRefusal && refused.Code == kerr.BrokerNotAvailable:
			isRefusal = false // nobody there: the next one may answer at once
		case !isRefusal || refused.Code == kerr.RequestTimedOut || refused.Code == kerr.NetworkException:
			past.maybeDone, isRefusal = true, false
		}
		if isRefusal || servers.exhausted() {
			if e := pause(ctx, backoff); e != nil {
				return past.gaveUp(what, e, err)
			}
			backoff = min(2*backoff, adminBackoffMax)
		} else if ctx.Err() != nil {
			return past.gaveUp(what, ctx.Err(), err)
		}
	}
}

// gaveUp is the error of a call whose context ended after an attempt that failed with last.
func (past attempt) gaveUp(what string, ended, last error) error {
	if !past.answered {
		ended = fmt.Errorf("%w: %w", ended, ErrNoNodeReachable)
	}
	return fmt.Errorf("client: %s: %w (last error: %w)", what, ended, at(past.server, last))
}

// callLeader runs f against the leader of a partition until it answers, or refuses for good, or ctx ends.
func (a *Admin) callLeader(ctx context.Context, tp TopicPartition, what string, f func(context.Context, pb.DRPCAdminClient) error) error {
	cache := &a.client.cache
	if t, err := cache.topic(ctx, tp.Topic); err != nil {
		return fmt.Errorf("client: %s %s: %w", what, tp, err)
	} else if int(tp.Partition) >= len(t.partitions) || tp.Partition < 0 {
		return fmt.Errorf("%w %s: the topic has %d", ErrUnknownPartition, tp, len(t.partitions))
	}
	for backoff := adminBackoff; ; backoff = min(2*backoff, adminBackoffMax) {
		var err error
		if l, ok := cache.current.Load().leader(tp); ok {
			err = a.try(ctx, l.addr, f)
		} else {
			err = kerr.Errorf(kerr.LeaderNotAvailable, "%s has no leader", tp)
		}
		if err == nil {
			return nil
		}
		var refused *kerr.Error
		if errors.As(err, &refused) && !refused.Code.Retriable() {
			return fmt.Errorf("client: %s %s: %w", what, tp, err)
		}
		cache.requestFor(tp.Topic)
		if e := pause(ctx, backoff); e != nil {
			return fmt.Errorf("client: %s %s: %w (last error: %w)", what, tp, e, err)
		}
	}
}

// try is one attempt at one node.
func (a *Admin) try(ctx context.Context, server string, f func(context.Context, pb.DRPCAdminClient) error) error {
	if a.client.ctx.Err() != nil {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, a.client.opts.RequestTimeout)
	defer cancel()
	stop := context.AfterFunc(a.client.ctx, cancel)
	defer stop()
	return a.client.watching(ctx, server, func(ctx context.Context) error { return f(ctx, a.client.dialer.Admin(server)) })
}

// rotation goes round the servers, with at most one detour in a row.
type rotation struct {
	servers  []string
	at       int
	detour   string
	detoured bool
}

func newRotation(servers []string, first int) *rotation {
	// Who answered last stays first; the others take the load in any order, before those that have failed lately.
	rest := servers[1:max(first, 1)]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return &rotation{servers: servers}
}

func (r *rotation) next() string {
	if r.detour != "" {
		server := r.detour
		r.detour = ""
		return server
	}
	r.detoured = false
	server := r.servers[r.at%len(r.servers)]
	r.at++
	return server
}

// prefer makes server the next one. It refuses when the one before was preferred, too: two nodes that name each other.
func (r *rotation) prefer(server string) bool {
	if r.detoured {
		return false
	}
	r.detour, r.detoured = server, true
	return true
}

// exhausted tells whether every server has had its turn.
func (r *rotation) exhausted() bool { return r.at%len(r.servers) == 0 }
