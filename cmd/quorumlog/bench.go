package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/bench/kafka"
	"github.com/quorumlog/quorumlog/bench/limit"
	"github.com/quorumlog/quorumlog/bench/nats"
	"github.com/quorumlog/quorumlog/bench/push"
)

// errNoHeadline is the verdict when what a target acknowledged was not found.
var errNoHeadline = errors.New("the figures above do not count")

// benchTargets makes the targets by name.
func benchTargets(f benchFlags) map[string]bench.Target {
	own := bench.Quorumlog{Nodes: f.nodes, Args: f.nodeArgs, Version: version(), TLS: f.tls}
	ownNoFsync := own
	ownNoFsync.Fsync = bench.FsyncNever
	ownKafka := own
	ownKafka.Protocol = kafka.Protocol{}
	return map[string]bench.Target{
		"quorumlog":          own,
		"quorumlog-no-fsync": ownNoFsync,
		"quorumlog-kafka":    ownKafka,

		"limit":     limit.Target{Layout: limit.Journal, Command: limitCommand},
		"limit-log": limit.Target{Layout: limit.Log, Command: limitCommand},

		"limit-push":  push.Target{Command: pushCommand},
		"limit-pread": limit.ReadTarget{},

		"kafka":       kafka.Target{Heat: f.heat},
		"kafka-fsync": kafka.Target{Heat: f.heat, Fsync: kafka.FsyncAlways},
		"nats":        nats.Target{},
		"nats-fsync":  nats.Target{Fsync: nats.FsyncAlways},
	}
}

// limitCommand and pushCommand run one process of a bound.
var (
	limitCommand = []string{"bench", "limit-node"}
	pushCommand  = []string{"bench", "push-server"}
)

// targetNames are the names in the order in which they are listed.
var targetNames = []string{
	"quorumlog", "quorumlog-no-fsync", "quorumlog-kafka", "limit", "limit-log", "limit-push", "limit-pread", "kafka", "kafka-fsync", "nats", "nats-fsync",
}

type benchFlags struct {
	file, dir, json, html string
	servers, nodeArgs     []string
	duration, warmUp      time.Duration
	rounds, nodes         int
	profile               bench.Profile
	timeout, heat         time.Duration
	tls                   bench.TLS
}

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure quorumlog, its peers, and what this machine can do at best",
		Long: `Measure quorumlog, its peers, and what this machine can do at best.

Every run reads back what was acknowledged and compares each byte; figures of a run that lost, doubled or reordered
anything do not count. A target's processes and data exist only during its turn.`,
		Args: unknownCommand,
		RunE: needSubcommand,
	}
	cmd.AddCommand(newBenchRunCommand(), newBenchCompareCommand(), newBenchListCommand(), newBenchReportCommand(), newBenchGuardCommand(),
		newLimitNodeCommand(), newPushServerCommand())
	return cmd
}

func (f *benchFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", "YAML `file` with a workload of your own, instead of a name")
	flags.StringVar(&f.dir, "dir", "", "`directory` for the data of clusters that are started (default: a temporary one)")
	flags.StringVar(&f.json, "json", "", "`file` for everything that was measured")
	flags.StringVar(&f.html, "html", "", "`file` for a page with charts")
	flags.StringSliceVar(&f.servers, "servers", nil, "host:port `addresses` of a cluster that runs already; the target starts its own otherwise")
	flags.StringArrayVar(&f.nodeArgs, "node-flag", nil, "a `flag` for the nodes of quorumlog's own cluster, such as --disk-io=buffered; may be repeated")
	flags.BoolVar(&f.tls.On, "tls", false, "nodes of quorumlog's own cluster, and the clients, have certificates and use TLS")
	registerTLS(flags, &f.tls.Files)
	flags.DurationVar(&f.duration, "duration", 0, "timed part, instead of the workload's")
	flags.DurationVar(&f.warmUp, "warm-up", 0, "part before the timed one, instead of the workload's")
	flags.IntVar(&f.nodes, "nodes", 3, "nodes of quorumlog's own cluster")
	flags.StringVar(&f.profile.CPU, "cpuprofile", "", "`directory` for CPU and allocation profiles of quorumlog's own nodes, of the timed part")
	flags.StringVar(&f.profile.Trace, "trace", "", "`directory` for execution traces of quorumlog's own nodes, of the timed part")
	flags.DurationVar(&f.heat, "heat", time.Minute, "how long a JVM of the harness's own is loaded before anything counts")
	flags.DurationVar(&f.timeout, "timeout", time.Hour, "give up after this `duration`")
}

func newBenchRunCommand() *cobra.Command {
	var f benchFlags
	target := ""
	cmd := &cobra.Command{
		Use:   "run [WORKLOAD]",
		Short: "Measure one target under one workload",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.rounds = max(1, f.rounds)
			return runBench(cmd.Context(), f, args, []string{target}, cmd.OutOrStdout())
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&target, "target", "quorumlog", "`target`: "+strings.Join(targetNames, ", "))
	cmd.Flags().IntVar(&f.rounds, "rounds", 1, "how many turns")
	return cmd
}

func newBenchCompareCommand() *cobra.Command {
	var f benchFlags
	var targets []string
	cmd := &cobra.Command{
		Use:   "compare [WORKLOAD]",
		Short: "Let targets take turns under one workload, and print the ratios",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBench(cmd.Context(), f, args, targets, cmd.OutOrStdout())
		},
	}
	f.register(cmd)
	cmd.Flags().StringSliceVar(&targets, "targets", []string{"limit-log", "quorumlog"}, "`targets` in the order of their turns: "+strings.Join(targetNames, ", "))
	cmd.Flags().IntVar(&f.rounds, "rounds", 3, "how often each target has its turn")
	return cmd
}

func newBenchListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the workloads and the targets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var rows []string
			for _, name := range bench.Standard {
				w, err := bench.WorkloadNamed(name)
				if err != nil {
					return err
				}
				rows = append(rows, name+"\t"+w.Description)
			}
			if err := table(cmd.OutOrStdout(), "WORKLOAD\tWHAT IT DOES", rows); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "\nThe same with other numbers of partitions and sizes (100b, 4kb) exist too.\nTargets: %s\n", strings.Join(targetNames, ", "))
			return err
		},
	}
}

func newBenchReportCommand() *cobra.Command {
	page := ""
	cmd := &cobra.Command{
		Use:   "report FILE",
		Short: "Show again what --json has kept",
		Args:  oneArgument("file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the results: %w", err)
			}
			var c bench.Comparison
			if err := json.Unmarshal(data, &c); err != nil {
				return fmt.Errorf("%s holds no results: %w", args[0], err)
			}
			c.WriteText(cmd.OutOrStdout())
			if page != "" {
				err = c.WriteHTML(page)
			}
			return errors.Join(err, c.Headline())
		},
	}
	cmd.Flags().StringVar(&page, "html", "", "`file` for a page with charts")
	return cmd
}

// workload is the one that is named or in the file, with what the flags change.
func (f benchFlags) workload(args []string) (w bench.Workload, err error) {
	switch {
	case f.file != "" && len(args) > 0:
		return w, errors.New("give either a workload's name or --file, not both")
	case f.file != "":
		data, err := os.ReadFile(f.file)
		if err != nil {
			return w, fmt.Errorf("cannot read the workload: %w", err)
		}
		if w, err = bench.ParseWorkload(data); err != nil {
			return w, fmt.Errorf("%s: %w", f.file, err)
		}
	case len(args) == 0:
		return w, fmt.Errorf("name a workload: %s", strings.Join(bench.Standard, ", "))
	default:
		if w, err = bench.WorkloadNamed(args[0]); err != nil {
			return w, err
		}
	}
	if f.duration != 0 {
		w.Duration = f.duration
	}
	if f.warmUp != 0 {
		w.WarmUp = f.warmUp
	}
	return w, w.Validate()
}

func runBench(ctx context.Context, f benchFlags, args, names []string, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	w, err := f.workload(args)
	if err != nil {
		return err
	}
	var targets []bench.Target
	known := benchTargets(f)
	for _, name := range names {
		t := known[name]
		if t == nil {
			return fmt.Errorf("there is no target %q: there are %s", name, strings.Join(targetNames, ", "))
		}
		targets = append(targets, t)
	}
	if len(f.servers) > 0 && len(targets) > 1 {
		return errors.New("--servers names one cluster: measure one target at a time with it")
	}
	dir, err := os.MkdirTemp(f.dir, "quorumlog-bench-")
	if err != nil {
		return fmt.Errorf("cannot create a directory for the data: %w", err)
	}
	for _, dir := range []*string{&f.profile.CPU, &f.profile.Trace} {
		if err := makeDirectory(dir); err != nil {
			return err
		}
	}
	progress := newProgress(os.Stderr)
	run := bench.Run{Workload: w, Dir: dir, Servers: f.servers, Profile: f.profile, Say: progress.say}
	c, err := bench.Compare(ctx, run, targets, f.rounds, func(r bench.Result) {
		progress.say("%s: %.0f records/s, %.1f MB/s", r.Target, r.RecordsPerSecond, r.MBPerSecond)
	})
	progress.close()
	_ = os.Remove(dir) // unless it holds what a target that failed has left
	c.Version = version()
	if len(c.Results) > 0 {
		c.WriteText(out)
		if f.json != "" {
			err = errors.Join(err, c.WriteJSON(f.json))
		}
		if f.html != "" {
			err = errors.Join(err, c.WriteHTML(f.html))
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case err != nil:
		return err
	}
	if err := c.Headline(); err != nil {
		return fmt.Errorf("%w: %w", errNoHeadline, err)
	}
	return nil
}

// makeDirectory makes a directory that is named and makes its name absolute: the nodes may run elsewhere.
func makeDirectory(dir *string) (err error) {
	if *dir == "" {
		return nil
	}
	if *dir, err = filepath.Abs(*dir); err != nil {
		return err
	}
	return os.MkdirAll(*dir, 0o755)
}

// newLimitNodeCommand is a process of a bound, which the harness starts.
func newLimitNodeCommand() *cobra.Command {
	var o limit.NodeOptions
	layout := ""
	cmd := &cobra.Command{
		Use:    limitCommand[1],
		Short:  "Run one process of the targets limit and limit-log",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Layout = limit.Layout(layout)
			o.Ready = func(address string) { fmt.Fprintln(cmd.OutOrStdout(), limit.ReadyPrefix+address) }
			return limit.RunNode(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Dir, limit.FlagDir, "", "`directory` of the files")
	flags.StringVar(&layout, limit.FlagLayout, string(limit.Journal), "journal or log")
	flags.IntVar(&o.Partitions, limit.FlagPartitions, 1, "`number` of partitions")
	flags.StringSliceVar(&o.Followers, limit.FlagFollowers, nil, "`addresses` of followers; a leader has them")
	return cmd
}

// newPushServerCommand is a process of the bound limit-push, which the harness starts.
func newPushServerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    pushCommand[1],
		Short:  "Run one process of the target limit-push",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return push.RunServer(cmd.Context(), func(address string) { fmt.Fprintln(cmd.OutOrStdout(), push.ReadyPrefix+address) })
		},
	}
}
