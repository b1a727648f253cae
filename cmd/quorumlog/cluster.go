package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

func newClusterCommand() *cobra.Command {
	var conn connection
	var out output
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look at the cluster, and raise it to what its nodes' releases know",
		Args:  unknownCommand,
		RunE:  needSubcommand,
	}
	conn.register(cmd)
	out.register(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "status",
		Short: "Show the nodes, the metadata quorum and what is under-replicated",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				s, err := a.ClusterStatus(ctx)
				if err != nil {
					return err
				}
				return out.print(cmd.OutOrStdout(), s, func(w io.Writer) error { return printStatus(w, s) })
			})
		},
	})
	cmd.AddCommand(newUpgradeCommand(&conn, &out))
	return cmd
}

func newUpgradeCommand(conn *connection, out *output) *cobra.Command {
	var level int32
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Raise the feature level, after all nodes run a newer release",
		Long: `Raise the feature level, after all nodes run a newer release.

Nodes of two releases can run side by side, and a node can go back to the release before, as long as the feature level is not raised.
What came with the newer release is used from then on, and there is no way back: the older release refuses to start.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("level") && level < 1 {
				return fmt.Errorf("--level %d: at least 1", level)
			}
			return conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				change, err := a.UpgradeCluster(ctx, int(level))
				if err != nil {
					return refusal(err)
				}
				if change.Was == change.Is {
					return out.line(cmd.OutOrStdout(), change, "The cluster is at feature level %d: nothing to do.", change.Is)
				}
				return out.line(cmd.OutOrStdout(), change, "Raised the cluster from feature level %d to %d.", change.Was, change.Is)
			})
		},
	}
	cmd.Flags().Int32Var(&level, "level", 0, "feature `level` to raise the cluster to (default: the highest that all nodes know)")
	return cmd
}

func printStatus(w io.Writer, s client.ClusterStatus) error {
	fmt.Fprintf(w, "Cluster:\t%s (%s)\n", s.ClusterName, s.ClusterID)
	fmt.Fprintf(w, "Metadata:\tleader %s, term %d, commit %d, voters %s, learners %s\n",
		nodeName(s.Metadata.Leader), s.Metadata.Term, s.Metadata.Commit, nodeNames(s.Metadata.Voters), nodeNames(s.Metadata.Learners))
	fmt.Fprintf(w, "Topics:\t%d with %d partitions, %d under-replicated, %d without leader",
		s.Topics, s.Partitions, s.UnderReplicated, s.Leaderless)
	if s.LeaderUnknown > 0 {
		fmt.Fprintf(w, ", %d whose leader is not known (see the nodes that do not answer)", s.LeaderUnknown)
	}
	fmt.Fprintf(w, "\nFeature level:\t%d", s.FeatureLevel)
	if s.FeatureLevelKnown > s.FeatureLevel {
		fmt.Fprintf(w, ", all nodes know %d: see quorumlog cluster upgrade", s.FeatureLevelKnown)
	}
	fmt.Fprint(w, "\n\n")
	rows := make([]string, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		row := []string{
			strconv.Itoa(int(n.ID)), n.Address, n.State, n.Rack, metadataRole(s.Metadata, n.ID),
			strconv.Itoa(n.Leaders), strconv.Itoa(n.Replicas), strconv.Itoa(n.UnderReplicated), diskFree(n), n.Version, problem(n),
		}
		for i := range row {
			if row[i] == "" && i < len(row)-1 {
				row[i] = "-"
			}
		}
		rows = append(rows, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	if err := table(w, "NODE\tADDRESS\tSTATE\tRACK\tMETADATA\tLEADS\tREPLICAS\tUNDER-REPLICATED\tDISK FREE\tVERSION\tPROBLEM", rows); err != nil {
		return err
	}
	if err := scrubs(w, s.Nodes); err != nil {
		return err
	}
	return warnOfUnsafe(w, s.Nodes)
}

// scrubs says below the table when the background scrub last read all of a node's logs, where it has: whoever trusts in records that nobody
// reads wants to know. What it found is in the table.
func scrubs(w io.Writer, nodes []client.NodeStatus) error {
	var list []string
	for _, n := range nodes {
		if n.LastScrub > 0 {
			list = append(list, fmt.Sprintf("node %d %s", n.ID, time.UnixMilli(n.LastScrub).UTC().Format(time.RFC3339)))
		}
	}
	if len(list) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nLast scrub of all logs: %s\n", strings.Join(list, ", "))
	return err
}

// warnOfUnsafe says below the table which nodes break the promise that everything else rests on.
func warnOfUnsafe(w io.Writer, nodes []client.NodeStatus) error {
	var unsafe []id.Node
	for _, n := range nodes {
		if n.Unsafe() {
			unsafe = append(unsafe, n.ID)
		}
	}
	if len(unsafe) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(w, "\nWARNING: nodes that run with --unsafe-no-fsync: %s. They sync nothing: a power failure WILL lose records that they acknowledged. For benchmarks only.\n", nodeNames(unsafe))
	return err
}

func metadataRole(q client.MetadataQuorum, n id.Node) string {
	switch {
	case n == q.Leader:
		return "leader"
	case slices.Contains(q.Voters, n):
		return "voter"
	case slices.Contains(q.Learners, n):
		return "learner"
	}
	return ""
}

func diskFree(n client.NodeStatus) string {
	if n.DiskFreeBytes == 0 {
		return ""
	}
	const gb = 1e9
	return fmt.Sprintf("%.1f GB", float64(n.DiskFreeBytes)/gb)
}

// problem is what somebody has to do something about on a node.
func problem(n client.NodeStatus) string {
	var list []string
	if n.Error != "" {
		list = append(list, n.Error)
	}
	if n.RefusedReplicas > 0 {
		list = append(list, fmt.Sprintf("%d of its replicas refused for good: check its disk, and replace it", n.RefusedReplicas))
	}
	if n.ScrubErrors > 0 {
		list = append(list, fmt.Sprintf("the scrub found rot in %d of its logs: check its disk", n.ScrubErrors))
	}
	return strings.Join(list, "; ")
}

// nodeName is a node id as Kafka's tools print it.
func nodeName(n id.Node) string {
	if n == id.NoNode {
		return "none"
	}
	return strconv.Itoa(int(n))
}

func nodeNames(nodes []id.Node) string {
	if len(nodes) == 0 {
		return "none"
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = nodeName(n)
	}
	return strings.Join(names, ",")
}
