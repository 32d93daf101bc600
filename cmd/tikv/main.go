// Command tikv runs an embedded TiKV cluster and works with the data of any cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr, os.LookupEnv, 200 * time.Millisecond}))
}

// run is the whole program; its result is the exit code.
func run(ctx context.Context, args []string, io stdio) int {
	root := rootCommand(io)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	var silent *silentError
	if !errors.As(err, &silent) {
		fmt.Fprintln(io.err, "tikv: "+strings.TrimPrefix(err.Error(), "tikv: "))
	}
	if code == exitUsage {
		fmt.Fprintf(io.err, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return code
}
