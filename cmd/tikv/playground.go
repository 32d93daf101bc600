package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tikv-go/tikv/playground"
)

const (
	playgroundHost = "127.0.0.1"
	firstPort      = 2379
	lastPort       = 2479 // how far the search for a free port goes
)

type playgroundCommandFlags struct {
	stores    int
	members   int
	services  bool
	coprocs   []string
	seed      uint64
	given     func(flag string) bool
	dir       string
	port      int
	api       string
	keyspaces []string
	fsync     bool
	json      bool
	verbose   bool
	tls       string
}

func playgroundCommand(io stdio) *cobra.Command {
	var f playgroundCommandFlags
	cmd := &cobra.Command{
		Use:   "playground",
		Short: "Run an embedded cluster: PD and stores in this process",
		Long: `Run an embedded cluster: PD and stores in this process, on loopback addresses, speaking TiKV's protocol to any client.

The first line of standard output, "ready pd=… cluster=… api=… control=…", is printed when every store is registered
and every region has a leader. Logs go to standard error. Ctrl-C, or SIGTERM, ends it. The control address takes
HTTP requests with JSON, for example:

  curl http://$CONTROL/v1/regions?mode=txn
  curl -d '{"mode":"txn","key":"bQ=="}'   http://$CONTROL/v1/split            (the key in base64)
  curl -d '{"region":4,"store":3}'        http://$CONTROL/v1/transfer-leader
  curl -d '{"store":1}'                   http://$CONTROL/v1/stop             (and start, pause)
  curl -d '{}'                            http://$CONTROL/v1/wait             (until every region has a leader)
  curl -d '{}'                            http://$CONTROL/v1/rotate-tls       (with --tls: a new authority, new files)

docs/playground.md has a table of all of them, "go doc github.com/tikv-go/tikv/playground.Cluster.ControlHandler" their fields.

With --tls D, clients find "tikv://HOST:PORT?ca=D/ca.pem&cert=D/cert.pem&key=D/key.pem".`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			return runPlayground(cmd.Context(), io, f)
		},
	}
	cmd.Flags().IntVar(&f.stores, "stores", 3, "number of stores (with an existing --dir: as it was)")
	cmd.Flags().IntVar(&f.members, "members", 1, "number of PD's members (with an existing --dir: as it was)")
	cmd.Flags().BoolVar(&f.services, "services", false, "timestamps from a service beside PD, and routers for lookups")
	cmd.Flags().StringSliceVar(&f.coprocs, "coprocessor", nil, "what answers the coprocessor's requests of a type, echo or checksum: `TYPE=NAME`,… as 103=echo,105=checksum")
	cmd.Flags().StringVar(&f.dir, "dir", "", "keep the data in this `directory` (default: in memory)")
	cmd.Flags().IntVar(&f.port, "port", 0, "PD's port, its further members and the stores have the next ones; 0 for any (default 2379 or the next that are free)")
	cmd.Flags().StringVar(&f.api, "api", "v1", "API version of the stores (with an existing --dir: as it was): `v1|v1ttl|v2`")
	cmd.Flags().StringSliceVar(&f.keyspaces, "keyspace", nil, "make keyspaces of these `names`, with a comma between")
	cmd.Flags().BoolVar(&f.fsync, "fsync", false, "with --dir: survive a loss of power, not just of the process")
	cmd.Flags().StringVar(&f.tls, "tls", "", "speak TLS, and keep ca.pem, cert.pem and key.pem for clients in this `directory`")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "what is random in the cluster follows from it, as the chance of faults (default: another each time)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print the ready line as JSON")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log what the cluster does")
	return cmd
}

var playgroundVersions = map[string]playground.APIVersion{
	"v1": playground.APIV1, "v1ttl": playground.APIV1TTL, "v2": playground.APIV2,
}

// coprocessors are what the flag asks for.
func (f *playgroundCommandFlags) coprocessors() (opts []playground.Option, err error) {
	for _, one := range f.coprocs {
		number, name, _ := strings.Cut(one, "=")
		tp, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--coprocessor %q: no type of a request", one)}
		}
		switch name {
		case "echo":
			opts = append(opts, playground.WithCoprocessor(tp, playground.EchoCoprocessor()))
		case "checksum":
			opts = append(opts, playground.WithCoprocessor(tp, playground.ChecksumCoprocessor()))
		default:
			return nil, &usageError{fmt.Errorf("--coprocessor %q: there are echo and checksum", one)}
		}
	}
	return opts, nil
}

func (f *playgroundCommandFlags) options(io stdio) ([]playground.Option, error) {
	if len(f.keyspaces) > 0 && !f.given("api") {
		f.api = "v2"
	}
	api, ok := playgroundVersions[strings.ToLower(f.api)]
	switch {
	case !ok:
		return nil, &usageError{fmt.Errorf("--api %q: TiKV's storage.api-version can only be 1 (v1, or v1ttl with storage.enable-ttl) or 2 (v2)", f.api)}
	case f.stores < 1 || f.stores > 1000:
		return nil, &usageError{fmt.Errorf("--stores %d: a cluster has 1 to 1000", f.stores)}
	case f.members < 1 || f.members > 7:
		return nil, &usageError{fmt.Errorf("--members %d: PD has 1 to 7", f.members)}
	case f.given("dir") && f.dir == "":
		return nil, &usageError{errors.New("--dir is empty; without it the data are in memory")}
	case f.given("tls") && f.tls == "":
		return nil, &usageError{errors.New("--tls is empty; without it TLS is not spoken")}
	case len(f.keyspaces) > 0 && api != playground.APIV2:
		return nil, &usageError{errors.New("--keyspace needs --api v2")}
	case f.fsync && f.dir == "":
		return nil, &usageError{errors.New("--fsync needs --dir")}
	case f.port > 65535 || f.port < 0:
		return nil, &usageError{fmt.Errorf("--port %d: not a port", f.port)}
	case f.port+f.members+f.stores > 65536:
		return nil, &usageError{fmt.Errorf("--port %d: %d members and %d stores find no ports from there on", f.port, f.members, f.stores)}
	}
	coprocessors, err := f.coprocessors()
	if err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	if f.verbose {
		level = slog.LevelDebug
	}
	if !f.given("seed") {
		f.seed = rand.Uint64() // no two clusters have the same id
	}
	opts := []playground.Option{
		playground.WithSeed(f.seed),
		playground.WithLogger(slog.New(slog.NewTextHandler(io.err, &slog.HandlerOptions{Level: level}))),
	}
	opts = append(opts, coprocessors...)
	if f.given("stores") || f.dir == "" {
		opts = append(opts, playground.WithStores(f.stores))
	}
	if f.given("members") || f.dir == "" {
		opts = append(opts, playground.WithMembers(f.members))
	}
	if f.services {
		opts = append(opts, playground.WithPDServices())
	}
	if f.given("api") || f.dir == "" || len(f.keyspaces) > 0 {
		opts = append(opts, playground.WithAPIVersion(api))
	}
	if len(f.keyspaces) > 0 {
		opts = append(opts, playground.WithKeyspaces(f.keyspaces...))
	}
	if f.dir != "" {
		opts = append(opts, playground.WithDir(f.dir, f.fsync))
	}
	if f.tls != "" {
		opts = append(opts, playground.WithTLSFiles(f.tls))
	}
	return opts, nil
}

func runPlayground(ctx context.Context, io stdio, f playgroundCommandFlags) (err error) {
	opts, err := f.options(io)
	if err != nil {
		return err
	}
	cluster, err := startPlayground(ctx, f, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	listener, err := net.Listen("tcp", net.JoinHostPort(playgroundHost, "0"))
	if err != nil {
		return err
	}
	control := &http.Server{Handler: cluster.ControlHandler(), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- control.Serve(listener) }()
	defer func() {
		control.Close()
		<-served
	}()
	if err := printReady(io, f, cluster, listener.Addr().String()); err != nil {
		return err
	}
	<-ctx.Done() // SIGINT and SIGTERM are the way to end it: no failure
	return nil
}

// startPlayground takes the port that was asked for, or the first that is free.
func startPlayground(ctx context.Context, f playgroundCommandFlags, opts []playground.Option) (*playground.Cluster, error) {
	if f.given("port") {
		return playground.Start(ctx, append(opts, playground.WithTCP(playgroundHost, f.port))...)
	}
	for port := firstPort; ; port++ {
		cluster, err := playground.Start(ctx, append(opts, playground.WithTCP(playgroundHost, port))...)
		if errors.Is(err, syscall.EADDRINUSE) && port < lastPort {
			continue
		}
		return cluster, err
	}
}

func printReady(io stdio, f playgroundCommandFlags, c *playground.Cluster, control string) error {
	pd, api := strings.Join(c.PD(), ","), c.APIVersion().String()
	if f.json {
		return json.NewEncoder(io.out).Encode(struct {
			PD      []string `json:"pd"`
			Cluster uint64   `json:"cluster"`
			API     string   `json:"api"`
			Control string   `json:"control"`
			TLS     string   `json:"tls,omitempty"`
		}{c.PD(), c.ID(), api, control, f.tls})
	}
	line := fmt.Sprintf("ready pd=%s cluster=%d api=%s control=%s", pd, c.ID(), api, control)
	if f.tls != "" {
		line += " tls=" + f.tls
	}
	_, err := fmt.Fprintln(io.out, line)
	return err
}
