package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

  quorumlog log verify DIR…         read and check everything below a data directory
  quorumlog log stats DIR…          what each log holds: records, batches, sizes, codecs, times
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
		Use:   "verify DIR…",
		Short: "Check everything in data directories",
		Long: `Check everything in data directories: identity, records, journal, and of each log all batches, rows and files. Of a node that has several all
should be named.

What a crash leaves, and the next start sees to, is a note; all else is damage. The exit code is 0 when there is no damage, 1 when there is, and
2 when a directory could not be checked, for instance since a node runs on it. With -o json several directories are a list.`,
		Args: someArguments("data directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return verifyLogs(cmd.Context(), out, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
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

// verified is a data directory that was checked, and whose it is.
type verified struct {
	report   *inspect.Report
	identity node.IdentityCopy
}

// home is the store id of the node's first directory.
func (v verified) home() string { return cmp.Or(v.identity.Home, v.identity.StoreID) }

func verifyLogs(ctx context.Context, out *output, dirs []string, w, errs io.Writer) error {
	var all []verified
	var failed []error
	for _, dir := range dirs {
		v, err := verifyLog(ctx, out, dir, errs)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		all = append(all, v)
	}
	checkTogether(all)
	reports := make([]*inspect.Report, len(all))
	for i, v := range all {
		reports[i] = v.report
	}
	if err := printReports(out, w, reports, len(dirs) > 1); err != nil {
		failed = append(failed, err)
	}
	code := exitNotChecked
	if len(failed) == 0 {
		code = exitFindings
	}
	for _, r := range reports {
		if n := r.Damaged(); n > 0 {
			failed = append(failed, fmt.Errorf("%s is damaged: %d findings", r.Dir, n))
		}
	}
	if len(failed) > 0 {
		return exitError{code, errors.Join(failed...)}
	}
	return nil
}

// verifyLog checks one data directory.
func verifyLog(ctx context.Context, out *output, dir string, errs io.Writer) (verified, error) {
	lock, err := lockDirectory(dir)
	if err != nil {
		return verified{}, err
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
		return verified{}, fmt.Errorf("%s could not be checked: %w", dir, err)
	}
	copies := node.LookAtIdentity(disk.NewBuffered(), dir)
	if text, crash := node.Disagree(copies); text != "" {
		severity := inspect.Damage
		if crash {
			severity = inspect.Note
		}
		r.Findings = slices.Insert(r.Findings, 0, ofDirectory(severity, copies[0].File, text))
	}
	v := verified{report: r}
	for _, c := range copies {
		if c.Err == nil && c.Revision >= v.identity.Revision {
			v.identity = c
		}
	}
	return v, nil
}

func ofDirectory(s inspect.Severity, file, text string) inspect.Finding {
	return inspect.Finding{Severity: s, File: file, Position: -1, First: -1, Next: -1, Text: text}
}

// checkTogether looks for what the directories of one node do not say by themselves: replicas that are in two, and which of them were not named.
func checkTogether(all []verified) {
	type replica struct{ home, log string }
	stores, at := make(map[string]bool), make(map[replica]string)
	for _, v := range all {
		stores[v.identity.StoreID] = true
	}
	for _, v := range all {
		r := v.report
		for _, l := range r.Logs {
			key := replica{v.home(), l.Log}
			if first, ok := at[key]; ok && key.home != "" {
				f := ofDirectory(inspect.Damage, "", "it is in "+first+", too: one of them was copied, and no node starts on both")
				f.Log = l.Log
				r.Findings = append(r.Findings, f)
				continue
			}
			at[key] = r.Dir
		}
		for _, store := range v.identity.More {
			if !stores[store] {
				r.Findings = append(r.Findings, ofDirectory(inspect.Note, "meta.properties",
					"the node has another data directory, of store "+store+", that was not checked"))
			}
		}
	}
}

func printReports(out *output, w io.Writer, reports []*inspect.Report, several bool) error {
	if !several {
		for _, r := range reports {
			return out.print(w, r, func(w io.Writer) error { return printReport(w, r) })
		}
		return nil
	}
	return out.print(w, reports, func(w io.Writer) error {
		for i, r := range reports {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s:\n", r.Dir)
			if err := printReport(w, r); err != nil {
				return err
			}
		}
		return nil
	})
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
		Use:   "stats DIR|FILE…",
		Short: "Show what logs hold: of data directories, of one log's directory, or of one .log",
		Long: `Show what the files of logs hold: of data directories, of one log's directory, or of one .log.

Only what is in the .log files counts. Of a node that was killed the newest bytes are in its journal, and are missing here.`,
		Args: someArguments("directory or file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []inspect.Stats{}
			for _, name := range args {
				found, err := collectStats(disk.NewBuffered(), name)
				if err != nil {
					return err
				}
				all = append(all, found...)
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
