package serving

import (
	"context"
	"errors"
	"maps"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Every node takes the calls that change the metadata, and passes them on to the one that leads it. Who may call is asked first, on the node
// that the caller is connected to: what a peer passes on has been asked.

// defaultPartitions is how many partitions a topic gets when nobody says.
const defaultPartitions = 1

// CreateTopic implements broker.Changes.
func (b *Broker) CreateTopic(ctx context.Context, c *broker.Caller, t broker.NewTopic) (*broker.Topic, error) {
	return atController(ctx, b, func(ctx context.Context) (*broker.Topic, error) {
		return b.createTopic(ctx, t)
	}, func(ctx context.Context, controller broker.Remote) (*broker.Topic, error) {
		topic, err := controller.CreateTopic(ctx, c, t)
		if err == nil && topic != nil {
			b.awaitTopic(ctx, topic.ID)
		}
		return topic, err
	})
}

func (b *Broker) createTopic(ctx context.Context, t broker.NewTopic) (*broker.Topic, error) {
	c := b.o.Controller
	if err := c.CheckLeads(); err != nil { // before anybody is dialled: what the controller has found out counts
		return nil, err
	}
	// A cluster that has just been founded registers its first node in a moment.
	_ = c.Await(ctx, func(v *placement.View) bool { return len(v.Nodes()) > 0 })
	wanted := t.ReplicationFactor
	if wanted == 0 {
		wanted = placement.DefaultReplicationFactor(len(c.View().Nodes()))
	}
	reached := b.o.Nodes.Reachable(ctx, wanted)
	spec := placement.TopicSpec{Name: t.Name, Partitions: t.Partitions, ReplicationFactor: t.ReplicationFactor, Configs: t.Configs}
	if spec.Partitions == 0 {
		spec.Partitions = defaultPartitions
	}
	plan := func(v *placement.View) (placement.Command, error) {
		// What is put on a node whose disk takes no records has a replica less from the beginning, which is better than no topic.
		spec.Nodes = v.Candidates(func(node id.Node) bool { return reached(node) && b.o.Nodes.TakesLeaderships(node) })
		command, err := v.PlanTopic(spec, id.NewTopic())
		if errors.Is(err, placement.ErrInvalidReplicationFactor) {
			spec.Nodes = v.Candidates(reached)
			command, err = v.PlanTopic(spec, id.NewTopic())
		}
		return command, err
	}
	if t.ValidateOnly {
		command, err := plan(c.View())
		if err != nil {
			return nil, err
		}
		return nil, c.View().Check(command)
	}
	result, err := c.ProposeFrom(ctx, plan)
	if err != nil {
		return nil, err
	}
	topic := result.(*placement.Topic)
	b.awaitLeaders(ctx, topic)
	described, _ := b.describeTopic(topic)
	return &described, nil
}

// awaitLeaders waits until every partition of the topic has a leader, or ctx ends. Producers that come at once find it then.
func (b *Broker) awaitLeaders(ctx context.Context, t *placement.Topic) {
	for i := range t.Partitions {
		if b.o.Leaders.Await(ctx, &t.Partitions[i]) != nil {
			return
		}
	}
}

// awaitTopic waits until this node knows a topic and its leaders, or ctx ends: who is told that it is there asks here next.
func (b *Broker) awaitTopic(ctx context.Context, topic id.Topic) {
	_ = b.o.Controller.Await(ctx, func(v *placement.View) bool { return v.TopicByID(topic) != nil })
	if t := b.o.Controller.View().TopicByID(topic); t != nil {
		b.awaitLeaders(ctx, t)
	}
}

// DeleteTopic implements broker.Changes.
func (b *Broker) DeleteTopic(ctx context.Context, c *broker.Caller, name string) (id.Topic, error) {
	return atController(ctx, b, func(ctx context.Context) (id.Topic, error) {
		result, err := b.o.Controller.Propose(ctx, placement.DeleteTopic{Name: name})
		if err != nil {
			return id.Topic{}, err
		}
		return result.(*placement.Topic).ID, nil
	}, func(ctx context.Context, controller broker.Remote) (id.Topic, error) {
		return controller.DeleteTopic(ctx, c, name)
	})
}

// AlterTopicConfig implements broker.Changes.
func (b *Broker) AlterTopicConfig(ctx context.Context, c *broker.Caller, change broker.ConfigChange) (map[string]string, error) {
	plan := func(v *placement.View) (placement.Command, error) {
		command := placement.AlterTopicConfig{Name: change.Topic, Set: change.Set, Remove: change.Remove}
		if t := v.Topic(change.Topic); t != nil {
			command.ID = t.ID // the configs are checked for this one
		}
		return command, nil
	}
	if change.ValidateOnly { // not passed on: a node of an earlier release would not only validate
		view := b.o.Controller.View()
		command, _ := plan(view)
		return nil, coded(view.Check(command))
	}
	return atController(ctx, b, func(ctx context.Context) (map[string]string, error) {
		result, err := b.o.Controller.ProposeFrom(ctx, plan)
		if err != nil {
			return nil, err
		}
		return maps.Clone(result.(*placement.Topic).Configs), nil
	}, func(ctx context.Context, controller broker.Remote) (map[string]string, error) {
		return controller.AlterTopicConfig(ctx, c, change)
	})
}

// InitProducerID implements broker.Changes.
func (b *Broker) InitProducerID(ctx context.Context, c *broker.Caller) (id.Producer, error) {
	producer, err := b.o.Controller.AllocateProducer(ctx, func(ctx context.Context, command placement.AllocateProducerIDs) (placement.ProducerIDs, error) {
		return b.allocate(ctx, c, command)
	})
	return producer, coded(err)
}

// allocate gets a block of producer ids. The controller's own call for one id of its block is what other nodes ask it for, so a
// block that is forwarded has one id.
func (b *Broker) allocate(ctx context.Context, c *broker.Caller, command placement.AllocateProducerIDs) (placement.ProducerIDs, error) {
	return atController(ctx, b, func(ctx context.Context) (placement.ProducerIDs, error) {
		result, err := b.o.Controller.Propose(ctx, command)
		if err != nil {
			return placement.ProducerIDs{}, err
		}
		return result.(placement.ProducerIDs), nil
	}, func(ctx context.Context, controller broker.Remote) (placement.ProducerIDs, error) {
		producer, err := controller.InitProducerID(ctx, c)
		return placement.ProducerIDs{First: producer, Count: 1}, err
	})
}

// UpgradeCluster implements broker.Changes. It is for the operator to say that no node will go back to the release before.
func (b *Broker) UpgradeCluster(ctx context.Context, c *broker.Caller, level broker.FeatureLevel) (broker.Upgrade, error) {
	return atController(ctx, b, func(ctx context.Context) (broker.Upgrade, error) {
		var upgrade broker.Upgrade
		_, err := b.o.Controller.ProposeFrom(ctx, func(v *placement.View) (placement.Command, error) {
			level := placement.FeatureLevel(level)
			if level == 0 {
				level = v.KnownToAll()
			}
			upgrade = broker.Upgrade{Was: broker.FeatureLevel(v.Level()), Is: broker.FeatureLevel(level)}
			return placement.SetFeatureLevel{Level: level}, nil
		})
		return upgrade, err
	}, func(ctx context.Context, controller broker.Remote) (broker.Upgrade, error) {
		return controller.UpgradeCluster(ctx, c, level)
	})
}

// UnregisterNode implements broker.Changes. The driver then takes the node's replica out of the metadata group.
func (b *Broker) UnregisterNode(ctx context.Context, c *broker.Caller, node id.Node) error {
	_, err := atController(ctx, b, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.unregisterNode(ctx, node)
	}, func(ctx context.Context, controller broker.Remote) (struct{}, error) {
		return struct{}{}, controller.UnregisterNode(ctx, c, node)
	})
	return err
}

func (b *Broker) unregisterNode(ctx context.Context, node id.Node) error {
	c := b.o.Controller
	if err := c.CheckLeads(); err != nil {
		return err
	}
	command := placement.UnregisterNode{Node: node}
	err := c.View().Check(command)
	if errors.Is(err, placement.ErrUnknownNode) {
		return kerr.Errorf(kerr.BrokerIDNotRegistered, "%v: it may have been removed already", err)
	}
	if err != nil {
		return err
	}
	// A node that lives would go on as if it had a place. This is a guard against a mistyped number, not what safety rests on: a node without
	// replicas has nothing to lose, and its vote on metadata ends with the change of the group.
	registered := c.View().Node(node)
	if registered != nil && b.o.Nodes.IsUp(ctx, registered) {
		return kerr.Errorf(kerr.PolicyViolation, "node %d is alive at %s: stop it first", node, registered.RPCAddress)
	}
	if _, err := c.Propose(ctx, command); err != nil {
		return err
	}
	b.o.Logger.Info("a node was removed from the cluster", "removed", node)
	return nil
}
