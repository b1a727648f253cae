package kafka

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/quorumlog/quorumlog/bench"
)

// cluster is three nodes, each broker and controller in one process.
type cluster struct {
	nodes   []bench.ChildOptions
	brokers []string

	mu       sync.Mutex
	children []*bench.Child // nil: does not run
}

const logging = `Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root: {level: warn, AppenderRef: [{ref: out}]}
    Logger: [{name: kafka.server.KafkaRaftServer, level: info}]
`

// startCluster formats and starts three nodes below dir.
func startCluster(ctx context.Context, dir string, say func(string, ...any)) (*cluster, error) {
	jars, java, err := findJars(ctx, say)
	if err != nil {
		return nil, err
	}
	const nodes = 3
	addresses, err := bench.FreeAddresses(2 * nodes)
	if err != nil {
		return nil, err
	}
	logFile := filepath.Join(dir, "log4j2.yaml")
	if err := os.WriteFile(logFile, []byte(logging), 0o644); err != nil {
		return nil, err
	}
	var voters []string
	for i := range nodes {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, addresses[nodes+i]))
	}
	var identity [16]byte
	_, _ = rand.Read(identity[:])
	clusterID := base64.RawURLEncoding.EncodeToString(identity[:])
	c := &cluster{brokers: addresses[:nodes], children: make([]*bench.Child, nodes)}
	var preparing sync.WaitGroup
	errs := make([]error, nodes)
	for i := range nodes {
		file := filepath.Join(dir, fmt.Sprintf("node-%d.properties", i+1))
		data := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		if err := os.WriteFile(file, []byte(properties(i+1, addresses[i], addresses[nodes+i], voters, data)), 0o644); err != nil {
			return nil, err
		}
		classPath := filepath.Join(jars, "*")
		c.nodes = append(c.nodes, bench.ChildOptions{
			Name: fmt.Sprintf("Kafka's node %d", i+1), Path: java, Log: data + ".log",
			Args: []string{
				"-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
				"-Dlog4j2.configurationFile=" + logFile, "-cp", classPath, "kafka.Kafka", file,
			},
			Ready: func(line string) bool { return strings.Contains(line, "Kafka Server started") },
		})
		preparing.Go(func() {
			command := exec.CommandContext(ctx, java, "-Dlog4j2.configurationFile="+logFile, "-cp", classPath, "kafka.tools.StorageTool", "format", "--cluster-id="+clusterID, "--config", file) // an id may begin with a hyphen
			if out, err := command.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("cannot format Kafka's node %d: %w: %.500s", i+1, err, out)
			}
		})
	}
	preparing.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i := range nodes {
		preparing.Go(func() { errs[i] = c.start(ctx, i) })
	}
	preparing.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func properties(node int, broker, controller string, voters []string, data string) string {
	return strings.Join([]string{
		"process.roles=broker,controller",
		fmt.Sprintf("node.id=%d", node),
		"controller.quorum.voters=" + strings.Join(voters, ","),
		"listeners=PLAINTEXT://" + broker + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + broker,
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=PLAINTEXT",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + data,
		"offsets.topic.replication.factor=3",
		"transaction.state.log.replication.factor=3",
		"transaction.state.log.min.isr=2",
		"min.insync.replicas=2",
		"group.initial.rebalance.delay.ms=0",
		"auto.create.topics.enable=false",
		"log.segment.delete.delay.ms=1000",
		"",
	}, "\n")
}

func (c *cluster) start(ctx context.Context, node int) error {
	child, err := bench.StartChild(ctx, c.nodes[node])
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.children[node] = child
	c.mu.Unlock()
	return nil
}

// end ends a node in some way, if it runs.
func (c *cluster) end(node int, how func(*bench.Child) error) error {
	c.mu.Lock()
	child := c.children[node]
	c.children[node] = nil
	c.mu.Unlock()
	if child == nil {
		return nil
	}
	return how(child)
}

func (c *cluster) close() error {
	var errs []error
	for i := range c.nodes {
		errs = append(errs, c.end(i, (*bench.Child).Kill))
	}
	return errors.Join(errs...)
}

func (c *cluster) pids() (pids []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, child := range c.children {
		if child != nil {
			pids = append(pids, child.PID())
		}
	}
	return pids
}
