package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
)

// buildVersion is set by releases: -ldflags "-X main.buildVersion=1.2.3".
var buildVersion string

// version is the release, or what the Go tool knows about the source.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

type versionReport struct {
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
	Levels   [2]int `json:"feature_levels"` // of clusters that it can be part of: from, to
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			levels := [2]int{int(placement.OldestLevel), int(placement.SupportedLevel)}
			v := versionReport{version(), int(rpc.Protocol), levels, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return o.line(cmd.OutOrStdout(), v, "quorumlog %s, protocol %d, feature levels %d to %d, %s %s",
				v.Version, v.Protocol, levels[0], levels[1], v.Go, v.Platform)
		},
	}
	o.register(cmd)
	return cmd
}
