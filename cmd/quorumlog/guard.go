package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/bench"
)

// guardTimeout ends a guard on a machine that is far too slow for it.
const guardTimeout = 3 * time.Minute

func newBenchGuardCommand() *cobra.Command {
	var out output
	dir := ""
	cmd := &cobra.Command{
		Use:   "guard",
		Short: "Fail when quorumlog has become much slower or hungrier, compared with limit-log",
		Long: `Fail when quorumlog has become much slower or hungrier, compared with limit-log.

Both take turns of a few seconds on this machine, so only ratios count, and of those the best round: noise does not
fail it, a loss by a factor of two does. It ends after the first round in which everything is good, and takes less than
a minute. Without the disk space it says so and is skipped.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := runGuard(cmd.Context(), dir)
			if err != nil {
				return err
			}
			err = out.print(cmd.OutOrStdout(), report, func(w io.Writer) error {
				report.WriteText(w)
				return nil
			})
			return errors.Join(err, report.Err())
		},
	}
	out.register(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` for the data of the turns (default: a temporary one)")
	return cmd
}

func runGuard(ctx context.Context, parent string) (bench.GuardReport, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	dir, err := os.MkdirTemp(parent, "quorumlog-guard-")
	if err != nil {
		return bench.GuardReport{}, fmt.Errorf("cannot create a directory for the data: %w", err)
	}
	progress := newProgress(os.Stderr)
	targets := benchTargets(benchFlags{nodes: 3})
	report, err := bench.Guard(ctx, bench.Run{Dir: dir, Say: progress.say}, targets["limit-log"], targets["quorumlog"])
	progress.close()
	_ = os.Remove(dir) // unless it holds what a target that failed has left
	return report, err
}
