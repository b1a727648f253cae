package nats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/quorumlog/quorumlog/bench"
)

// Version is the release of nats-server that is started.
const Version = "v2.15.2"

var errNoGo = errors.New("the target nats needs Go to build nats-server " + Version + " once: install Go, or name a cluster with --servers")

// findServer returns the nats-server executable, which is built once.
func findServer(ctx context.Context, say func(string, ...any)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a place for nats-server: %w", err)
	}
	dir := filepath.Join(cache, "quorumlog-bench", "nats-server-"+Version)
	binary := filepath.Join(dir, "nats-server")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		return "", errNoGo
	}
	say("building nats-server %s, once", Version)
	command := exec.CommandContext(ctx, tool, "install", "github.com/nats-io/nats-server/v2@"+Version)
	command.Dir = os.TempDir() // not in a module of ours
	command.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build nats-server: %w: %.500s", err, out)
	}
	return binary, nil
}

// cluster is three servers with JetStream.
type cluster struct {
	nodes   []bench.ChildOptions
	servers []string

	mu       sync.Mutex
	children []*bench.Child // nil: does not run
}

func startCluster(ctx context.Context, setup bench.Setup, fsync Fsync) (*cluster, error) {
	dir, say := setup.Dir, setup.Log
	binary, err := findServer(ctx, say)
	if err != nil {
		return nil, err
	}
	const nodes = 3
	addresses, err := bench.FreeAddresses(2 * nodes)
	if err != nil {
		return nil, err
	}
	c := &cluster{children: make([]*bench.Child, nodes)}
	var routes []string
	for i := range nodes {
		c.servers = append(c.servers, "nats://"+addresses[i])
		routes = append(routes, "nats://"+addresses[nodes+i])
	}
	for i := range nodes {
		file := filepath.Join(dir, fmt.Sprintf("node-%d.conf", i+1))
		data := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		if err := os.WriteFile(file, []byte(config(i, addresses[i], addresses[nodes+i], routes, data, fsync)), 0o644); err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.nodes = append(c.nodes, bench.ChildOptions{
			Name: fmt.Sprintf("NATS server %d", i+1), Path: binary, Args: []string{"-c", file}, Log: data + ".log", Share: setup.Workload.Share(nodes),
		})
		if err := c.start(ctx, i); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// nodeName is what a server is called in what JetStream tells about leaders.
func nodeName(node int) string { return fmt.Sprintf("node-%d", node+1) }

func config(node int, address, route string, routes []string, data string, fsync Fsync) string {
	sync := "" // the default: two minutes
	if fsync == FsyncAlways {
		sync = "sync_interval: always"
	}
	return fmt.Sprintf(`server_name: %s
listen: %s
jetstream { store_dir: %q, max_file_store: 1TB, %s }
cluster { name: bench, listen: %s, routes: [%s] }
`, nodeName(node), address, data, sync, route, strings.Join(routes, ", "))
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

// end ends a server in some way, if it runs.
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
