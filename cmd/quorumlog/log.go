package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/inspect"
)

// The exit codes of log verify, beside 0 for a directory that is as it should be.
const (
	exitFindings   = 1
	exitNotChecked = 2
)

// exitError is an error that ends the program with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func newLogCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Look at the files of a node that does not run",
		Long: `Look at the files of a node that does not run. Nothing is ever written.

  quorumlog log verify DIR          read and check everything below a data directory
  quorumlog log stats DIR           what each log holds: records, batches, sizes, codecs, times
  quorumlog log dump FILE|DIR       print batches, rows and frames, like Kafka's kafka-dump-log`,
		Args: unknownCommand,
		RunE: needSubcommand,
	}
	out.register(cmd)
	cmd.AddCommand(newLogDumpCommand(&out), newLogVerifyCommand(&out), newLogStatsCommand(&out))
	return cmd
}

func newLogVerifyCommand(out *output) *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Check everything in a data directory",
		Long: `Check everything in a data directory: identity, records, journal, and of each log all batches, rows and files.

What a crash leaves, and the next start sees to, is a note; all else is damage. The exit code is 0 when there is no damage, 1 when there is, and
2 when the directory could not be checked, for instance since a node runs on it.`,
		Args: oneArgument("data directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return verifyLog(cmd.Context(), out, args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

// lockDirectory keeps nodes from starting on a data directory while it is read.
func lockDirectory(dir string) (io.Closer, error) {
	if _, err := os.Stat(filepath.Join(dir, "meta")); err != nil {
		return nil, fmt.Errorf("%s is no data directory of a node: %w", dir, err)
	}
	lock, err := disk.LockShared(filepath.Join(dir, "wal.lock"))
	if errors.Is(err, disk.ErrLocked) {
		return nil, fmt.Errorf("a node runs on %s: %w", dir, err)
	}
	if errors.Is(err, fs.ErrNotExist) { // a copy of the directory need not have it
		return io.NopCloser(nil), nil
	}
	return lock, err
}

func verifyLog(ctx context.Context, out *output, dir string, w, errs io.Writer) error {
	lock, err := lockDirectory(dir)
	if err != nil {
		return exitError{exitNotChecked, err}
	}
	defer func() { _ = lock.Close() }()
	o := inspect.Options{}
	if f, ok := errs.(*os.File); ok && !out.json() {
		p := newProgress(f)
		defer p.close()
		var b *bar
		o.Begin = func(total int64) { b = p.bar("verify", total) }
		o.Read = func(n int64) { b.add(int(n)) }
		defer func() {
			if b != nil {
				b.done()
			}
		}()
	}
	r, err := inspect.Verify(ctx, dir, o)
	if err != nil {
		return exitError{exitNotChecked, fmt.Errorf("%s could not be checked: %w", dir, err)}
	}
	copies := node.LookAtIdentity(disk.NewBuffered(), dir)
	if text, crash := node.Disagree(copies); text != "" {
		f := inspect.Finding{Severity: inspect.Damage, File: copies[0].File, Position: -1, First: -1, Next: -1, Text: text}
		if crash {
			f.Severity = inspect.Note
		}
		r.Findings = append([]inspect.Finding{f}, r.Findings...)
	}
	if err := out.print(w, r, func(w io.Writer) error { return printReport(w, r) }); err != nil {
		return exitError{exitNotChecked, err}
	}
	if n := r.Damaged(); n > 0 {
		return exitError{exitFindings, fmt.Errorf("%s is damaged: %d findings", dir, n)}
	}
	return nil
}

func printReport(w io.Writer, r *inspect.Report) error {
	var rows []string
	for _, l := range r.Logs {
		state := "ok"
		if l.Damage > 0 {
			state = fmt.Sprintf("%d damaged", l.Damage)
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%s", l.Log, l.Start, l.Next, l.Segments, l.Batches, l.Bytes, state))
	}
	if err := table(w, "LOG\tSTART\tEND\tSEGMENTS\tBATCHES\tBYTES\tSTATE", rows); err != nil || len(r.Findings) == 0 {
		return err
	}
	rows = rows[:0]
	for _, f := range r.Findings {
		position, offsets := "-", "-"
		if f.Position >= 0 {
			position = fmt.Sprint(f.Position)
		}
		if f.First >= 0 {
			offsets = fmt.Sprintf("[%d, %d)", f.First, f.Next)
		}
		rows = append(rows, strings.Join([]string{string(f.Severity), f.File, position, offsets, f.Text}, "\t"))
	}
	fmt.Fprintln(w)
	return table(w, "FINDING\tFILE\tPOSITION\tOFFSETS\tWHAT", rows)
}

func newLogStatsCommand(out *output) *cobra.Command {
	return &cobra.Command{
		Use:   "stats DIR|FILE",
		Short: "Show what logs hold: of a data directory, of one log's directory, or of one .log",
		Long: `Show what the files of logs hold: of a data directory, of one log's directory, or of one .log.

Only what is in the .log files counts. Of a node that was killed the newest bytes are in its journal, and are missing here.`,
		Args: oneArgument("directory or file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := collectStats(disk.NewBuffered(), args[0])
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), all, func(w io.Writer) error { return printStats(w, all) })
		},
	}
}

func collectStats(fsys disk.FS, name string) ([]inspect.Stats, error) {
	dirs, err := inspect.LogDirs(fsys, name)
	if err != nil {
		dirs = []string{name}
	}
	all := make([]inspect.Stats, 0, len(dirs))
	for _, dir := range dirs {
		s, err := inspect.Collect(fsys, dir)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func printStats(w io.Writer, all []inspect.Stats) error {
	var rows []string
	for _, s := range all {
		var codecs []string
		for _, name := range sortedKeys(s.Codecs) {
			codecs = append(codecs, fmt.Sprintf("%s %d", name, s.Codecs[name]))
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t[%d, %d)\t%s\t%s\t%s\t%.2f\t%d/%d/%d\t%d\t%d", s.Log, s.Segments, s.Bytes, s.Batches, s.Records,
			max(s.First, 0), s.Next, timeText(s.MinTimestamp), timeText(s.MaxTimestamp), strings.Join(codecs, ", "), s.Compression,
			s.BatchBytes.P50, s.BatchBytes.P99, s.BatchBytes.Max, s.Producers, s.ControlEntries))
	}
	return table(w, "LOG\tSEGMENTS\tBYTES\tBATCHES\tRECORDS\tOFFSETS\tFROM\tTO\tCODECS\tRATIO\tBATCH P50/P99/MAX\tPRODUCERS\tCONTROL", rows)
}
