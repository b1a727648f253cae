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

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// topicCommand is the flags that its subcommands share.
type topicCommand struct {
	conn connection
	out  output
}

func newTopicCommand() *cobra.Command {
	t := &topicCommand{}
	cmd := &cobra.Command{
		Use:   "topic",
		Short: "Create, look at, change and delete topics",
		Args:  unknownCommand,
		RunE:  needSubcommand,
	}
	t.conn.register(cmd)
	t.out.register(cmd)
	cmd.AddCommand(t.create(), t.list(), t.describe(), t.config(), t.offsets(), t.deleteRecords(), t.delete())
	return cmd
}

func (t *topicCommand) create() *cobra.Command {
	var spec client.TopicSpec
	var configs []string
	var exists bool
	cmd := &cobra.Command{
		Use:   "create TOPIC",
		Short: "Create a topic",
		Args:  oneArgument("topic name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Name = args[0]
			var err error
			if spec.Configs, err = parseConfigs(configs); err != nil {
				return err
			}
			if cmd.Flags().Changed("partitions") && spec.Partitions < 1 {
				return fmt.Errorf("--partitions %d: at least 1", spec.Partitions)
			}
			if cmd.Flags().Changed("replication-factor") && spec.ReplicationFactor < 1 {
				return fmt.Errorf("--replication-factor %d: at least 1", spec.ReplicationFactor)
			}
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				return t.runCreate(ctx, cmd.OutOrStdout(), a, spec, exists)
			})
		},
	}
	cmd.Flags().IntVar(&spec.Partitions, "partitions", 1, "how many partitions")
	cmd.Flags().IntVar(&spec.ReplicationFactor, "replication-factor", 0, "how many replicas each partition has (default: 3, or the number of nodes if that is less)")
	cmd.Flags().StringArrayVar(&configs, "config", nil, "`key=value` of a topic setting; may be repeated")
	cmd.Flags().BoolVar(&exists, "if-not-exists", false, "do nothing if there is a topic of this name")
	return cmd
}

func (t *topicCommand) runCreate(ctx context.Context, w io.Writer, a *client.Admin, spec client.TopicSpec, existsIsFine bool) error {
	err := a.CreateTopic(ctx, spec)
	if existsIsFine && errors.Is(err, client.ErrTopicExists) {
		return nil
	}
	if err != nil {
		return refusal(err)
	}
	if !t.out.json() && spec.ReplicationFactor > 0 {
		return t.out.line(w, nil, "Created topic %s.", spec.Name)
	}
	topics, err := a.DescribeTopics(ctx, spec.Name)
	if err != nil {
		return err
	}
	return t.out.print(w, topics[0], func(w io.Writer) error {
		few := ""
		if rf := topics[0].ReplicationFactor; rf < 3 { // nobody chose that, and it stays so when nodes are added
			few = fmt.Sprintf(" Each partition has %d of the usual 3 replicas: the cluster has no more nodes.", rf)
		}
		_, err := fmt.Fprintf(w, "Created topic %s.%s\n", spec.Name, few)
		return err
	})
}

func (t *topicCommand) list() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the topics",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				names, err := a.ListTopics(ctx)
				if err != nil {
					return err
				}
				return t.out.print(cmd.OutOrStdout(), names, func(w io.Writer) error {
					for _, name := range names {
						fmt.Fprintln(w, name)
					}
					return nil
				})
			})
		},
	}
}

func (t *topicCommand) describe() *cobra.Command {
	return &cobra.Command{
		Use:   "describe [TOPIC…]",
		Short: "Show partitions, leaders and replicas of topics, of all when none is named",
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				topics, err := a.DescribeTopics(ctx, args...)
				if err != nil {
					return t.whichTopic(ctx, a, args, err)
				}
				return t.out.print(cmd.OutOrStdout(), topics, func(w io.Writer) error { return printTopics(w, topics) })
			})
		},
	}
}

// whichTopic finds out which of several names is the one that does not exist.
func (t *topicCommand) whichTopic(ctx context.Context, a *client.Admin, names []string, err error) error {
	if !errors.Is(err, client.ErrUnknownTopic) {
		return err
	}
	known, e := a.ListTopics(ctx)
	if e != nil {
		return err
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return unknownTopic(ctx, a, name, err)
		}
	}
	return err
}

// printTopics writes what kafka-topics --describe writes.
func printTopics(w io.Writer, topics []client.Topic) error {
	for _, t := range topics {
		_, err := fmt.Fprintf(w, "Topic: %s\tTopicId: %s\tPartitionCount: %d\tReplicationFactor: %d\tConfigs: %s\n",
			t.Name, t.ID, len(t.Partitions), t.ReplicationFactor, strings.Join(configLines(t.Configs), ","))
		if err != nil {
			return err
		}
		for _, p := range t.Partitions {
			_, err := fmt.Fprintf(w, "\tTopic: %s\tPartition: %d\tLeader: %s\tReplicas: %s\tIsr: %s\n",
				t.Name, p.Partition, nodeName(p.Leader), joinNodes(p.Replicas), joinNodes(p.ISR))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func joinNodes(nodes []id.Node) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = strconv.Itoa(int(n))
	}
	return strings.Join(names, ",")
}

func configLines(configs map[string]string) []string {
	lines := make([]string, 0, len(configs))
	for _, k := range slices.Sorted(maps.Keys(configs)) {
		lines = append(lines, k+"="+configs[k])
	}
	return lines
}

func (t *topicCommand) delete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete TOPIC",
		Short: "Delete a topic and its records",
		Args:  oneArgument("topic name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				if err := a.DeleteTopic(ctx, args[0]); err != nil {
					return unknownTopic(ctx, a, args[0], refusal(err))
				}
				return t.out.line(cmd.OutOrStdout(), map[string]string{"deleted": args[0]}, "Deleted topic %s.", args[0])
			})
		},
	}
}

func (t *topicCommand) config() *cobra.Command {
	var remove []string
	cmd := &cobra.Command{
		Use:   "config TOPIC [KEY=VALUE…]",
		Short: "Show or change the settings of a topic",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := parseConfigs(args[1:])
			if err != nil {
				return err
			}
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				configs, err := readOrAlter(ctx, a, args[0], set, remove)
				if err != nil {
					return unknownTopic(ctx, a, args[0], err)
				}
				return t.out.print(cmd.OutOrStdout(), configs, func(w io.Writer) error {
					for _, line := range configLines(configs) {
						fmt.Fprintln(w, line)
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&remove, "remove", nil, "`keys` that go back to their defaults")
	return cmd
}

func readOrAlter(ctx context.Context, a *client.Admin, topic string, set map[string]string, remove []string) (map[string]string, error) {
	if len(set)+len(remove) > 0 {
		configs, err := a.AlterConfig(ctx, topic, set, remove)
		return configs, refusal(err)
	}
	topics, err := a.DescribeTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	return topics[0].Configs, nil
}

// offsetsReport is what topic offsets prints of a partition.
type offsetsReport struct {
	Partition id.Partition `json:"partition"`
	Start     id.Offset    `json:"start"`
	End       id.Offset    `json:"end"`
}

func (t *topicCommand) offsets() *cobra.Command {
	return &cobra.Command{
		Use:   "offsets TOPIC",
		Short: "Show the first offset of each partition, and the one after its last committed record",
		Args:  oneArgument("topic name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				ranges, err := a.Offsets(ctx, args[0])
				if err != nil {
					return unknownTopic(ctx, a, args[0], err)
				}
				report := make([]offsetsReport, len(ranges))
				rows := make([]string, len(ranges))
				for i, r := range ranges {
					report[i] = offsetsReport{r.Partition, r.Start, r.End}
					rows[i] = fmt.Sprintf("%d\t%d\t%d\t%d", r.Partition, r.Start, r.End, r.End-r.Start)
				}
				return t.out.print(cmd.OutOrStdout(), report, func(w io.Writer) error {
					return table(w, "PARTITION\tSTART\tEND\tRECORDS", rows)
				})
			})
		},
	}
}

// parseConfigs reads key=value pairs.
func parseConfigs(pairs []string) (map[string]string, error) {
	configs := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("setting %q is not KEY=VALUE", pair)
		}
		configs[key] = value
	}
	return configs, nil
}

// refusal is what the cluster said, without the words around it, if it was the cluster that refused.
func refusal(err error) error {
	var refused *kerr.Error
	if errors.As(err, &refused) && !refused.Code.Retriable() && refused.Message != "" {
		return refused
	}
	return err
}
