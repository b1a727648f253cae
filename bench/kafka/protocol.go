package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc/auth"
)

// Protocol has quorumlog's nodes measured by the same client as Kafka's: bench.Quorumlog starts and describes them.
type Protocol struct{}

// Name implements bench.Protocol.
func (Protocol) Name() string { return "kafka" }

// Describe implements bench.Protocol.
func (Protocol) Describe() string { return clientName }

// Clients implements bench.Protocol.
func (Protocol) Clients(w bench.Workload, servers []string, files client.TLSFiles) (bench.Clients, error) {
	c := clients{[]kgo.Opt{kgo.SeedBrokers(servers...)}, w}
	if files == (client.TLSFiles{}) {
		return c, nil
	}
	credentials, err := auth.Load(auth.Options{Files: auth.Files(files)})
	if err != nil {
		return nil, fmt.Errorf("certificates of the clients: %w", err)
	}
	config := credentials.Client("127.0.0.1:0") // all nodes of a run are there
	config.NextProtos = nil
	c.options = append(c.options, kgo.DialTLSConfig(config))
	return c, nil
}
