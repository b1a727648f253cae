package node

import (
	"context"
	"errors"
	"net"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kafka"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Where the other nodes serve Kafka's protocol is what gossip says of them, and is nowhere in the metadata. A client is told of the nodes that
// seem to be alive, as by Kafka's brokers, and what seems to be alive is what gossip knows of. So it needs no feature level, changes with a
// restart and no command, and a node of a release before this one passes it over: the form of what is gossiped may grow at its end.

// openKafkaListener binds the port of Kafka's protocol, if it is to be served. Its clients are served when the cluster is known.
func (n *Node) openKafkaListener(ctx context.Context) error {
	if n.options.KafkaAddress == "" {
		return nil
	}
	const flag = "--kafka-address"
	address, err := n.resolved(ctx, flag, n.options.KafkaAddress)
	if err != nil {
		return err
	}
	if err := n.options.checkExposed(flag, address); err != nil {
		return err
	}
	var config net.ListenConfig
	if n.kafkaListener, err = config.Listen(ctx, "tcp", address); err != nil {
		return listenError("kafka", flag, n.options.KafkaAddress, err)
	}
	n.opened("kafka listener", func(context.Context) error {
		if err := n.kafkaListener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil // the server has closed it
	})
	return nil
}

// openKafka serves Kafka's protocol, over the same broker as the node's own.
func (n *Node) openKafka(b broker.Broker) {
	if n.kafkaListener == nil {
		return
	}
	server := kafka.NewServer(kafka.Options{
		Listener: n.kafkaListener, Broker: b, Node: n.options.NodeID, ClusterID: n.identity.ClusterID, TLS: n.serverTLS(), Logger: n.logger,
		MaxConnections: n.kafkaClients(), ConnectionsPerAddress: n.options.Limits.ConnectionsPerAddress,
	})
	n.opened("kafka server", server.Close)
}

// kafkaClients is how many of the connections of clients are those of Kafka's protocol: half of them, if it is served.
func (n *Node) kafkaClients() int {
	if n.options.KafkaAddress == "" {
		return 0
	}
	return n.shares.clients / 2
}

// KafkaAddress returns the address at which Kafka's protocol is served; empty: nowhere.
func (n *Node) KafkaAddress() string {
	if n.kafkaListener == nil {
		return ""
	}
	return n.kafkaListener.Addr().String()
}

// advertisedKafka is the address that clients of Kafka's protocol are told to dial; empty: none.
func (n *Node) advertisedKafka() string {
	if n.options.KafkaAdvertisedAddress != "" {
		return n.options.KafkaAdvertisedAddress
	}
	return n.KafkaAddress()
}

// kafkaAddressOf is where clients find a node; empty: nowhere, as far as is known.
func (n *Node) kafkaAddressOf(node id.Node) string {
	if node == n.options.NodeID {
		return n.advertisedKafka()
	}
	m, _ := n.membership.Member(node)
	return m.KafkaAddress
}
