package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/wal/id"
)

func newDevCommand() *cobra.Command {
	var (
		nodes             int
		dataDir, logLevel string
		firstPort         int
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster in one process, for development",
		Long: `Run a whole cluster in one process, for development. It stays up until it is interrupted, and keeps its data in
--data-dir: started again with the same directory it goes on where it was.

It is a real cluster in all but one thing: its nodes live and die together.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runDev(ctx, nodes, dataDir, logLevel, firstPort)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many nodes")
	cmd.Flags().StringVar(&dataDir, "data-dir", "quorumlog-dev", "`directory` of the nodes' data")
	cmd.Flags().StringVar(&logLevel, "log-level", "warn", "debug, info, warn or error")
	cmd.Flags().IntVar(&firstPort, "first-port", 9192, "rpc `port` of the first node; node i has this port + i, and gossip on that + 1000")
	return cmd
}

func runDev(ctx context.Context, count int, dataDir, logLevel string, firstPort int) error {
	if count < 1 || count > 100 {
		return fmt.Errorf("--nodes %d: from 1 to 100", count)
	}
	logger, err := newLogger(logLevel, "text")
	if err != nil {
		return err
	}
	const gossipShift = 1000
	gossip := func(i int) string { return "127.0.0.1:" + strconv.Itoa(firstPort+gossipShift+i) }
	all := make([]node.Options, count)
	for i := range all {
		all[i] = node.Options{
			NodeID: id.Node(i + 1), DataDir: filepath.Join(dataDir, "node-"+strconv.Itoa(i+1)), ClusterName: "dev",
			RPCAddress: "127.0.0.1:" + strconv.Itoa(firstPort+i), GossipAddress: gossip(i), Logger: logger,
		}
		for j := range count {
			if j != i {
				all[i].Join = append(all[i].Join, gossip(j))
			}
		}
	}
	all[0].Founding = node.Bootstrap
	if left, err := os.ReadDir(dataDir); count == 1 && len(left) == 0 && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		if _, err := node.Format(ctx, all[0]); err != nil { // there is nobody to ask, and nothing here that was a cluster
			return err
		}
	}
	nodes := make([]*node.Node, count)
	errs := make([]error, count)
	var starting sync.WaitGroup
	for i, options := range all {
		starting.Go(func() { nodes[i], errs[i] = node.Start(ctx, options) })
	}
	starting.Wait()
	err = errors.Join(errs...)
	fatal := make(chan error, count)
	var watching sync.WaitGroup
	done := make(chan struct{})
	for _, n := range nodes {
		if n == nil {
			continue
		}
		fmt.Println(n.Addresses())
		watching.Go(func() {
			select {
			case err := <-n.Fatal():
				fatal <- err
			case <-done:
			}
		})
	}
	if err == nil {
		fmt.Printf("try: quorumlog topic create test --partitions 3 --servers %s\n", nodes[0].RPCAddress())
		select {
		case <-ctx.Done():
		case err = <-fatal:
		}
	}
	close(done)
	watching.Wait()
	return errors.Join(err, stopAll(nodes))
}

// stopAll stops the nodes one after the other without handing leaderships over: there is nobody left to take them.
func stopAll(nodes []*node.Node) error {
	hurry, cancel := context.WithCancel(context.Background())
	cancel()
	var errs []error
	for _, n := range nodes {
		if n != nil {
			errs = append(errs, n.Stop(hurry))
		}
	}
	return errors.Join(errs...)
}
