package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func versionCommand(io stdio) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of TiKV's protocol",
		Args:  exactly(0, "no arguments"),
		RunE:  func(*cobra.Command, []string) error { return printVersion(io) },
	}
}

func printVersion(io stdio) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("this binary carries no build information")
	}
	version, proto := info.Main.Version, "unknown"
	if version == "" {
		version = "(devel)"
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/pingcap/kvproto" {
			proto = dep.Version
		}
	}
	_, err := fmt.Fprintf(io.out, "tikv %s\nkvproto %s\n%s %s/%s\n", version, proto, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
