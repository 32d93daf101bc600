package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// stdio is what the program reads, writes and looks up; tests give their own.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	env      func(name string) (string, bool)
	// grace is how long the end of an interrupted command is put off for the locks that it
	// leaves in the cluster, which expire; 0 for as long as the client gives them.
	grace time.Duration
}

func rootCommand(io stdio) *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "tikv",
		Short: "An embedded TiKV cluster, and a client for any cluster",
		Long: `tikv runs a whole TiKV cluster in one process, and reads and writes the data of any cluster.

Exit codes: 0 done, 1 failed, 2 key absent, 3 wrong usage, 4 cluster unavailable, 5 outcome of a write unknown.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return printVersion(io)
			}
			return cmd.Help()
		},
	}
	root.Flags().BoolVar(&version, "version", false, "as the command of that name")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(demoCommand(io), playgroundCommand(io), getCommand(io), putCommand(io), deleteCommand(io),
		scanCommand(io), countCommand(io), versionCommand(io))
	return root
}

// exactly is cobra.ExactArgs with an error of ours.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{errors.New("expected " + what)}
		}
		return nil
	}
}
