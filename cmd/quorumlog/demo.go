package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/bench"
)

// demoText is what the demo produces when it is given no file: the public-domain opening of "Moby-Dick" (Herman Melville, 1851).
//
//go:embed demo.txt
var demoText []byte

// errDemoFailed is the demo's verdict; the table has said the rest.
var errDemoFailed = errors.New("the demo found records that are lost, duplicated, reordered or changed")

type demoFlags struct {
	input   string
	records int
	json    string
	keep    bool
	timeout time.Duration
}

func newDemoCommand() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Start three nodes, kill a leader under load, and check that nothing is lost",
		Long: `Start three nodes as processes of their own on loopback, create a topic with 6 partitions and 3 replicas, and produce
lines of text with acks=all. Half-way, the node that leads partition 0 is killed with SIGKILL; it is restarted once the
partition takes records again. Then everything is read back and compared with what was acknowledged.

The exit code is 0 only if no record was lost, duplicated or reordered.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, f.timeout)
			defer cancel()
			return runDemo(ctx, f)
		},
	}
	cmd.Flags().StringVar(&f.input, "input", "", "text `file` whose lines are produced (default: a text that comes with quorumlog)")
	cmd.Flags().IntVar(&f.records, "records", 200_000, "how many records to produce; the text is repeated as often as that takes")
	cmd.Flags().StringVar(&f.json, "json", "", "`file` for the result as one JSON object")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "keep the temporary directory with data and logs")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 3*time.Minute, "give up after this `duration`")
	return cmd
}

func runDemo(ctx context.Context, f demoFlags) error {
	lines, err := demoLines(f)
	if err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's file, of which the nodes are started: %w", err)
	}
	dir, err := os.MkdirTemp("", "quorumlog-demo-")
	if err != nil {
		return fmt.Errorf("cannot create a temporary directory: %w", err)
	}
	progress := newProgress(os.Stderr)
	result, err := func() (demoResult, error) {
		begin := time.Now()
		cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: binary, Dir: dir, Nodes: 3, Args: []string{"--log-level", "info"}})
		if err != nil {
			return demoResult{}, err
		}
		defer func() { _ = cluster.Close() }()
		progress.say("three nodes serve at %v after %v", cluster.Servers(), time.Since(begin).Round(time.Millisecond))
		d := demo{cluster: cluster, lines: lines, records: f.records, progress: progress, ledger: bench.NewLedger(f.records)}
		return d.run(ctx)
	}()
	progress.close()
	if err != nil {
		return fmt.Errorf("%w (data and logs are in %s)", err, dir)
	}
	result.print(os.Stdout)
	if err := result.write(f.json); err != nil {
		return err
	}
	switch {
	case !result.ok():
		return fmt.Errorf("%w; the first: %s (data and logs are in %s)", errDemoFailed, result.First, dir)
	case f.keep:
		fmt.Println("data and logs are in", dir)
		return nil
	}
	return os.RemoveAll(dir)
}

// demoLines returns the lines that are produced, in order; empty ones are left out.
func demoLines(f demoFlags) ([][]byte, error) {
	if f.records < 2 {
		return nil, fmt.Errorf("--records %d: at least 2, one before and one after the kill", f.records)
	}
	text := demoText
	if f.input != "" {
		var err error
		if text, err = os.ReadFile(f.input); err != nil {
			return nil, fmt.Errorf("cannot read the input: %w", err)
		}
	}
	var lines [][]byte
	scanner := bufio.NewScanner(bytes.NewReader(text))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if line := bytes.TrimSpace(scanner.Bytes()); len(line) > 0 {
			lines = append(lines, bytes.Clone(line))
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("cannot split the input into lines: %w", err)
	}
	if len(lines) == 0 {
		return nil, errors.New("the input has no line with text in it")
	}
	return lines, nil
}

// write leaves the result as JSON, if a file is named.
func (r demoResult) write(path string) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("cannot write the result: %w", err)
	}
	return nil
}
