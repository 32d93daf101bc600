// Command rival is the part of bench that is the official Go client, in a module of its
// own: it does not compile with the protocol that this project uses. bench starts it; it
// reads what to run on standard input (see package harness).
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/pingcap/log"

	"github.com/tikv-go/tikv/bench/rival/internal/harness"
)

const module = "github.com/tikv/client-go/v2"

// version is that of a checkout, told by the linker.
var version string

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rival:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := quiet(); err != nil {
		return err
	}
	return harness.Serve(context.Background(), name(), os.Stdin, os.Stdout, open)
}

// quiet keeps the client from logging what is no error: it does so for the whole process.
func quiet() error {
	logger, props, err := log.InitLogger(&log.Config{Level: "error"})
	if err == nil {
		log.ReplaceGlobals(logger, props)
	}
	return err
}

// name is the client's with its version.
func name() string {
	if version != "" {
		return module + " at " + version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return m.Path + " " + m.Version
			}
		}
	}
	return module
}
