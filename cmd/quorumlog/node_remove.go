package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

func newNodeRemoveCommand() *cobra.Command {
	var conn connection
	var out output
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a dead node out of the cluster, by its id",
		Long: `Take a dead node out of the cluster, by its id (Kafka: unregister). It is refused while the node is alive, and while it
holds replicas: delete their topics first. The metadata quorum shrinks accordingly. The node cannot come back with its
data; with an empty data directory and an unused id it is a new node.`,
		Args: oneArgument("node id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := strconv.ParseInt(args[0], 10, 32)
			if err != nil || node < 0 {
				return fmt.Errorf("%q is no node id: see 'quorumlog cluster status'", args[0])
			}
			return conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				if err := a.UnregisterNode(ctx, id.Node(node)); err != nil {
					return refusal(err)
				}
				return out.line(cmd.OutOrStdout(), map[string]int64{"removed": node}, "Removed node %d.", node)
			})
		},
	}
	conn.register(cmd)
	out.register(cmd)
	return cmd
}
