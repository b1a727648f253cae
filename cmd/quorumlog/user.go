package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
)

// userCommand is the flags that its subcommands share.
type userCommand struct {
	conn connection
	out  output
}

func newUserCommand() *cobra.Command {
	u := &userCommand{}
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Give users passwords",
		Args:  unknownCommand,
		RunE:  needSubcommand,
	}
	u.conn.register(cmd)
	u.out.register(cmd)
	cmd.AddCommand(u.add(), u.remove(), u.list())
	return cmd
}

// mechanism is the flag --mechanism.
type mechanism client.ScramMechanism

// String, Set and Type make mechanism a flag's value.
func (m *mechanism) String() string { return client.ScramMechanism(*m).String() }

// Set takes the name as typed.
func (m *mechanism) Set(text string) error {
	for _, known := range []client.ScramMechanism{client.ScramSHA256, client.ScramSHA512} {
		if strings.EqualFold(text, known.String()) {
			*m = mechanism(known)
			return nil
		}
	}
	return fmt.Errorf("must be %v or %v", client.ScramSHA256, client.ScramSHA512)
}

// Type is what help calls the value.
func (m *mechanism) Type() string { return "mechanism" }

func (u *userCommand) add() *cobra.Command {
	m := mechanism(client.ScramSHA512)
	var file string
	var iterations int
	cmd := &cobra.Command{
		Use:   "add USER",
		Short: "Add a user, or give one another password",
		Long: `Add a user, or give one another password. The password is the first line of --password-file, or of the standard input: arguments
can be seen by all on a machine. It is hashed here; the cluster is not told it.`,
		Args: oneArgument("user name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPassword(cmd.InOrStdin(), file)
			if err != nil {
				return err
			}
			return u.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				if err := a.SetPassword(ctx, args[0], password, client.ScramMechanism(m), iterations); err != nil {
					return refusal(err)
				}
				return u.out.line(cmd.OutOrStdout(), map[string]string{"user": args[0], "mechanism": m.String()}, "Set the password of user %s for %v.", args[0], &m)
			})
		},
	}
	cmd.Flags().Var(&m, "mechanism", "SCRAM `mechanism` for which the password is")
	cmd.Flags().StringVar(&file, "password-file", "-", "`file` whose first line is the password; - is the standard input")
	cmd.Flags().IntVar(&iterations, "iterations", client.DefaultIterations, "`times` that the password is hashed: 4096 to 16384")
	return cmd
}

// maxPassword bounds what is read for a password: a file that is none should not be sent.
const maxPassword = 1024

// readPassword returns the first line of a file, without its end.
func readPassword(in io.Reader, file string) (string, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("cannot read the password: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPassword+2))
	if err != nil {
		return "", fmt.Errorf("cannot read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	line = strings.TrimSuffix(line, "\r")
	switch {
	case line == "":
		return "", errors.New("the password is empty: it is the first line of --password-file, or of the standard input")
	case len(line) > maxPassword:
		return "", fmt.Errorf("the password has more than %d bytes", maxPassword)
	}
	return line, nil
}

func (u *userCommand) remove() *cobra.Command {
	m := mechanism(client.ScramSHA512)
	cmd := &cobra.Command{
		Use:   "remove USER",
		Short: "Take a user's password for a mechanism away",
		Args:  oneArgument("user name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return u.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				if err := a.DeletePassword(ctx, args[0], client.ScramMechanism(m)); err != nil {
					return refusal(err)
				}
				return u.out.line(cmd.OutOrStdout(), map[string]string{"user": args[0], "mechanism": m.String()}, "Removed the password of user %s for %v.", args[0], &m)
			})
		},
	}
	cmd.Flags().Var(&m, "mechanism", "SCRAM `mechanism` for which the password is")
	return cmd
}

func (u *userCommand) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list [USER…]",
		Short: "List users and for which mechanisms they have passwords",
		RunE: func(cmd *cobra.Command, args []string) error {
			return u.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				users, err := a.DescribeUsers(ctx, args...)
				if err != nil {
					return refusal(err)
				}
				return u.out.print(cmd.OutOrStdout(), users, func(w io.Writer) error {
					for _, user := range users { // as kafka-configs --describe
						for _, c := range user.Credentials {
							fmt.Fprintf(w, "SCRAM credential configs for user-principal '%s' are %v=iterations=%d\n", user.Name, c.Mechanism, c.Iterations)
						}
					}
					return nil
				})
			})
		},
	}
}
