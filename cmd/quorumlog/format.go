package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/node"
)

func newFormatCommand() *cobra.Command {
	var config string
	var o nodeFlags
	cmd := &cobra.Command{
		Use:   "format",
		Short: "Make an empty data directory that of the founder of a new cluster",
		Long: `Make an empty data directory that of the founder of a new cluster, which begins with this node alone. It is said once, by a
person, and refused when the directory belongs to a cluster: in a start script it would found a second cluster the day the
disk is lost. Nobody is asked whether there is a cluster of that name; 'quorumlog node --bootstrap --join ...' asks.

It takes the flags and the file (--config) of 'quorumlog node', which is started afterwards, without --bootstrap.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("log-level") {
				o.logLevel = "warn" // one line says it all
			}
			options, err := o.configured(cmd.Flags(), config)
			if err != nil {
				return err
			}
			clusterID, err := node.Format(cmd.Context(), options)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Formatted %s: node %d founds cluster %s (%s) when it is started.\n",
				options.DataDir, options.NodeID, options.ClusterName, clusterID)
			return err
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "YAML `file` with the values of flags")
	o.register(cmd.Flags())
	return cmd
}
