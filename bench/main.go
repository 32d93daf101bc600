// Command bench measures this project's client, beside the official one where it is asked
// to, against a server that costs next to nothing, the embedded cluster, or a real one.
//
//	go run . -list
//	go run . -run rawget,snapget -c 64,256 -against client-go
//	go run . -campaign -rival-src ~/src/client-go > table.md
//
// Each measurement is a process of its own that has one client; those of the two clients
// alternate, round by round. docs/performance.md says how to read what comes out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the program: a part that it started itself, or what its flags ask for.
func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		if part, ok := parts[args[0]]; ok {
			return part(ctx, os.Stdin, os.Stdout)
		}
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.list {
		list(os.Stdout)
		return nil
	}
	return o.measure(ctx, os.Stdout, os.Stderr)
}
