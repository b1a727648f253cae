package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
)

// quotaCommand is the flags that its subcommands share.
type quotaCommand struct {
	conn connection
	out  output
}

func newQuotaCommand() *cobra.Command {
	q := &quotaCommand{}
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "Bound what clients may use",
		Long: `Bound what clients may use. The most specific quota holds: of the user with the client id, of the user with other client ids, of the
user, the same for other users, then of the client id, and of other client ids. A quota of pairs is counted for each pair, one of
users for each user, one of client ids for each client id. Each node counts for itself: a quota is what one node gives.

  quorumlog quota set producer_byte_rate=10000000 --user CN=alice
  quorumlog quota set consumer_byte_rate=50000000 --default-user`,
		Args: unknownCommand,
		RunE: needSubcommand,
	}
	q.conn.register(cmd)
	q.out.register(cmd)
	cmd.AddCommand(q.set(), q.remove(), q.list())
	return cmd
}

// quotaFlags say whom a quota is for.
type quotaFlags struct {
	user, clientID               string
	defaultUser, defaultClientID bool
}

func (f *quotaFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.user, "user", "", "`name` of the user, without User:; of a client with a certificate CN=alice")
	flags.StringVar(&f.clientID, "client-id", "", "client `id`")
	flags.BoolVar(&f.defaultUser, "default-user", false, "all users without a quota of their own")
	flags.BoolVar(&f.defaultClientID, "default-client-id", false, "all client ids without a quota of their own")
}

func (f *quotaFlags) entity(cmd *cobra.Command) (client.QuotaEntity, error) {
	var e client.QuotaEntity
	side := func(flag, name string, isDefault bool) (*client.QuotaName, error) {
		named := cmd.Flags().Changed(flag)
		switch {
		case named && isDefault:
			return nil, fmt.Errorf("--%s and --default-%s: one of them", flag, flag)
		case named:
			return &client.QuotaName{Name: name}, nil
		case isDefault:
			return &client.QuotaName{Default: true}, nil
		}
		return nil, nil
	}
	if strings.HasPrefix(f.user, "User:") {
		return e, fmt.Errorf("--user %s: the name alone, %s", f.user, strings.TrimPrefix(f.user, "User:"))
	}
	var err, err2 error
	e.User, err = side("user", f.user, f.defaultUser)
	e.ClientID, err2 = side("client-id", f.clientID, f.defaultClientID)
	if err := errors.Join(err, err2); err != nil {
		return e, err
	}
	if e.User == nil && e.ClientID == nil {
		return e, errors.New("nobody is named: see --user, --client-id, --default-user and --default-client-id")
	}
	return e, nil
}

func (q *quotaCommand) set() *cobra.Command {
	var f quotaFlags
	cmd := &cobra.Command{
		Use:   "set KEY=VALUE…",
		Short: "Set quotas: producer_byte_rate, consumer_byte_rate (bytes/s), request_percentage (of a thread)",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := f.entity(cmd)
			if err != nil {
				return err
			}
			set := make(map[string]float64, len(args))
			for _, pair := range args {
				key, text, _ := strings.Cut(pair, "=")
				value, err := strconv.ParseFloat(text, 64)
				if err != nil || key == "" {
					return fmt.Errorf("quota %q is not KEY=NUMBER", pair)
				}
				if _, twice := set[key]; twice {
					return fmt.Errorf("quota %s is there twice", key)
				}
				set[key] = value
			}
			return q.alter(cmd, e, set, nil)
		},
	}
	f.register(cmd)
	return cmd
}

func (q *quotaCommand) remove() *cobra.Command {
	var f quotaFlags
	cmd := &cobra.Command{
		Use:   "remove KEY…",
		Short: "Take quotas away",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := f.entity(cmd)
			if err != nil {
				return err
			}
			return q.alter(cmd, e, nil, args)
		},
	}
	f.register(cmd)
	return cmd
}

func (q *quotaCommand) alter(cmd *cobra.Command, e client.QuotaEntity, set map[string]float64, remove []string) error {
	return q.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
		if err := a.AlterQuota(ctx, e, set, remove); err != nil {
			return refusal(err)
		}
		report := struct {
			client.QuotaEntity
			Set    map[string]float64 `json:"set,omitempty"`
			Remove []string           `json:"remove,omitempty"`
		}{e, set, remove}
		return q.out.line(cmd.OutOrStdout(), report, "Completed updating quotas of %s.", quotaOf(e))
	})
}

func (q *quotaCommand) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all quotas",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return q.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				quotas, err := a.DescribeQuotas(ctx)
				if err != nil {
					return refusal(err)
				}
				return q.out.print(cmd.OutOrStdout(), quotas, func(w io.Writer) error {
					for _, quota := range quotas { // as kafka-configs --describe
						var limits []string
						for _, key := range slices.Sorted(maps.Keys(quota.Limits)) {
							limits = append(limits, key+"="+strconv.FormatFloat(quota.Limits[key], 'f', -1, 64))
						}
						fmt.Fprintf(w, "Quota configs for %s are %s\n", quotaOf(quota.QuotaEntity), strings.Join(limits, ", "))
					}
					return nil
				})
			})
		},
	}
}

// quotaOf is an entity as Kafka's tools write it.
func quotaOf(e client.QuotaEntity) string {
	side := func(what string, n *client.QuotaName) []string {
		switch {
		case n == nil:
			return nil
		case n.Default:
			return []string{"the default " + what}
		}
		return []string{fmt.Sprintf("%s '%s'", what, n.Name)}
	}
	return strings.Join(append(side("user-principal", e.User), side("client-id", e.ClientID)...), ", ")
}
