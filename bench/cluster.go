package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Cluster is a cluster of quorumlog nodes, each a process of its own, on loopback.
type Cluster struct {
	binary string
	dir    string
	args   []string
	nodes  []*Process
}

// Process is one node of a Cluster. Its addresses are the same after every restart.
type Process struct {
	ID     id.Node
	Dir    string // data directory
	RPC    string
	Gossip string
	Kafka  string

	binary string
	args   []string
	log    string // file of its standard error
	share  int    // of ClusterOptions

	mu    sync.Mutex
	child *Child // nil: it does not run
}

// ClusterOptions say what cluster to start.
type ClusterOptions struct {
	Binary string   // a quorumlog executable
	Dir    string   // data and logs are kept below it
	Nodes  int      // numbered from 1
	Share  int      // see ChildOptions
	Args   []string // added to each node's command line; {node} in them stands for its number
}

// StartCluster starts nodes and returns when all of them serve.
func StartCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	binary, dir, n, args := o.Binary, o.Dir, o.Nodes, o.Args
	addresses, err := FreeAddresses(3 * n)
	if err != nil {
		return nil, err
	}
	c := &Cluster{binary: binary, dir: dir, args: args}
	name := clusterName(dir)
	for i := range n {
		number := strconv.Itoa(i + 1)
		p := &Process{
			ID: id.Node(i + 1), Dir: filepath.Join(dir, "node-"+number), RPC: addresses[3*i], Gossip: addresses[3*i+1], Kafka: addresses[3*i+2],
			binary: binary, log: filepath.Join(dir, "node-"+number+".log"), share: o.Share,
		}
		p.args = []string{"node", "--node-id", number, "--rpc-address", p.RPC, "--gossip-address", p.Gossip, "--kafka-address", p.Kafka, "--cluster-name", name}
		if !slices.Contains(args, "--data-dir") { // which a second one would not replace
			p.args = append(p.args, "--data-dir", p.Dir)
		}
		p.args = append(p.args, args...)
		for j, a := range p.args {
			p.args[j] = strings.ReplaceAll(a, "{node}", number)
		}
		c.nodes = append(c.nodes, p)
	}
	if n == 1 {
		if err := c.nodes[0].format(ctx, name); err != nil {
			return nil, err
		}
	} else {
		c.nodes[0].args = append(c.nodes[0].args, "--bootstrap")
	}
	for i, p := range c.nodes {
		for j, other := range c.nodes {
			if j != i {
				p.args = append(p.args, "--join", other.Gossip)
			}
		}
	}
	var starting sync.WaitGroup
	errs := make([]error, n)
	for i, p := range c.nodes {
		starting.Go(func() { errs[i] = p.Start(ctx) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func clusterName(dir string) string { return "bench-" + filepath.Base(dir) }

// format founds a cluster of this node alone, unless the directory has been used.
func (p *Process) format(ctx context.Context, cluster string) error {
	if _, err := os.Stat(p.Dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	command := exec.CommandContext(ctx, p.binary, "format", "--node-id", strconv.Itoa(int(p.ID)), "--data-dir", p.Dir, "--cluster-name", cluster)
	said, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot found a cluster in %s: %w: %s", p.Dir, err, said)
	}
	return nil
}

// FreeAddresses returns loopback addresses whose ports nobody uses, TCP or UDP, at the moment.
func FreeAddresses(n int) ([]string, error) {
	var addresses []string
	for len(addresses) < n {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("cannot find a free port: %w", err)
		}
		defer tcp.Close() // all of them at the end, so that no port is found twice
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			continue
		}
		udp.Close()
		addresses = append(addresses, tcp.Addr().String())
	}
	return addresses, nil
}

// Servers returns the addresses for clients.
func (c *Cluster) Servers() []string {
	var servers []string
	for _, p := range c.nodes {
		servers = append(servers, p.RPC)
	}
	return servers
}

// KafkaServers returns the addresses for clients of Kafka's protocol.
func (c *Cluster) KafkaServers() []string {
	var servers []string
	for _, p := range c.nodes {
		servers = append(servers, p.Kafka)
	}
	return servers
}

// Nodes returns the nodes.
func (c *Cluster) Nodes() []*Process { return c.nodes }

// Node returns the node of that id, or nil.
func (c *Cluster) Node(n id.Node) *Process {
	for _, p := range c.nodes {
		if p.ID == n {
			return p
		}
	}
	return nil
}

// Close kills what still runs. Data stays.
func (c *Cluster) Close() error {
	var errs []error
	for _, p := range c.nodes {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}

// Start starts the process and returns when it serves: when it has printed its line of addresses.
func (p *Process) Start(ctx context.Context) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child != nil {
		return fmt.Errorf("node %d runs already", p.ID)
	}
	p.child, err = StartChild(ctx, ChildOptions{
		Name: fmt.Sprintf("node %d", p.ID), Path: p.binary, Args: p.args, Log: p.log, Share: p.share,
		Ready: func(line string) bool { return strings.Contains(line, " serves: ") },
	})
	return err
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() error { return p.end((*Child).Kill) }

// Terminate asks the process to stop, with SIGTERM, and waits until it is gone.
func (p *Process) Terminate(ctx context.Context) error {
	return p.end(func(c *Child) error { return c.Terminate(ctx) })
}

func (p *Process) end(how func(*Child) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return nil
	}
	err := how(p.child)
	if !p.child.Running() {
		p.child = nil
	}
	return err
}

// Signal sends a signal, if the process runs.
func (p *Process) Signal(s os.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return nil
	}
	return p.child.Signal(s)
}

// PID returns the process's id, 0 when it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return 0
	}
	return p.child.PID()
}
