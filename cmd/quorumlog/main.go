// Command quorumlog runs a node, and everything that is done to a cluster from a shell.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// commands lists the commands of the root.
func commands() []*cobra.Command {
	return []*cobra.Command{
		profiled(newNodeCommand()),
		newFormatCommand(),
		newCertCommand(),
		newDevCommand(),
		newDemoCommand(),
		newTopicCommand(),
		newProduceCommand(),
		newConsumeCommand(),
		newClusterCommand(),
		newACLCommand(),
		newUserCommand(),
		newQuotaCommand(),
		newLogCommand(),
		newBenchCommand(),
		newVersionCommand(),
	}
}

// run executes one command line and returns the exit code: 0, or 1 after one sentence on stderr that says why, if the error has no code of
// its own.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	root := &cobra.Command{
		Use:   "quorumlog",
		Short: "A replicated, partitioned commit log",
		Long: `A replicated, partitioned commit log: Kafka's model on multi-Raft.

  quorumlog demo                    three nodes, one killed under load, nothing lost
  quorumlog dev                     a cluster in one process, to try things on
  quorumlog node --help             run a node of a real cluster`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Hidden: true, Use: "no-help"})
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(commands()...)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(errs, "quorumlog: "+sentence(err))
		if exit := (exitError{}); errors.As(err, &exit) {
			return exit.code
		}
		return 1
	}
	return 0
}

// sentence is an error as one line. The packages' names before their messages help in a log and not on a terminal.
func sentence(err error) string {
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	for _, prefix := range []string{"client: ", "rpc: ", "batch: "} {
		text = strings.TrimPrefix(text, prefix)
		text = strings.ReplaceAll(text, ": "+prefix, ": ")
	}
	return text
}

// unknownCommand refuses arguments of a command that only has subcommands, and names the subcommand that may be meant.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if near := nearest(names, args[0]); near != "" {
		return fmt.Errorf("unknown command %q: did you mean %q?", args[0], cmd.CommandPath()+" "+near)
	}
	return fmt.Errorf("unknown command %q: %s has %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
}

// needSubcommand is RunE of a command that only has subcommands.
func needSubcommand(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// flagError adds to the error about an unknown flag which one may be meant.
func flagError(cmd *cobra.Command, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
	}
	name, _, _ = strings.Cut(name, "=")
	if near := nearestFlag(cmd.Flags(), name); near != "" && isNear(near, name) {
		return fmt.Errorf("unknown flag --%s: did you mean --%s?", name, near)
	}
	return fmt.Errorf("unknown flag --%s: see %s --help", name, cmd.CommandPath())
}

// nearest returns the name that looks most like what was typed; "" when none does.
func nearest(names []string, typed string) string {
	best := ""
	for _, name := range names {
		if isNear(name, typed) && (best == "" || levenshtein.ComputeDistance(typed, name) < levenshtein.ComputeDistance(typed, best)) {
			best = name
		}
	}
	return best
}

func isNear(name, typed string) bool {
	tolerated := max(2, len(name)/3)
	if len(name) < 4 {
		tolerated = 1
	}
	return levenshtein.ComputeDistance(typed, name) <= tolerated || len(typed) > 2 && strings.HasPrefix(name, typed)
}

// oneArgument wants exactly one argument and says which.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s needs a %s: see %s --help", cmd.Name(), what, cmd.CommandPath())
		case 1:
			return nil
		}
		return fmt.Errorf("%s takes one %s, got %q", cmd.Name(), what, args)
	}
}

// someArguments wants at least one argument and says which.
func someArguments(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return oneArgument(what)(cmd, args)
		}
		return nil
	}
}
