package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tikv-go/tikv"
)

const (
	defaultPD      = "127.0.0.1:2379"
	defaultTimeout = 10 * time.Second
)

// target is which cluster, and which of its key spaces, a command works on.
type target struct {
	pd       string
	url      string
	api      string
	keyspace string
	raw, txn bool
	timeout  time.Duration
}

func (t *target) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.pd, "pd", "", "PD members, `host:port,...` (default TIKV_PD, else "+defaultPD+")")
	f.StringVar(&t.url, "url", "", "the whole address instead, with ca=, cert= and key= for TLS: `tikv://pd:2379/keyspace?api=v2`")
	f.StringVar(&t.api, "api", "", "how the cluster stores keys (default v1, or v2 with a keyspace): `v1|v1ttl|v2`")
	f.StringVar(&t.keyspace, "keyspace", "", "keyspace `name`, with api v2")
	f.BoolVar(&t.raw, "raw", false, "work on raw keys (the default with api v1ttl)")
	f.BoolVar(&t.txn, "txn", false, "work on transactional keys (the default otherwise)")
	f.DurationVar(&t.timeout, "timeout", defaultTimeout, "how long connecting, or a call on single keys, may take")
}

// isRaw says which of the two key spaces is meant.
func (t *target) isRaw() (bool, error) {
	if t.raw && t.txn {
		return false, &usageError{errors.New("--raw and --txn exclude each other")}
	}
	api, err := t.version()
	if err != nil {
		return false, err
	}
	if t.txn && api == "v1ttl" {
		return false, &usageError{errors.New("a v1ttl cluster has no transactional keys; use --raw")}
	}
	return t.raw || !t.txn && api == "v1ttl", nil
}

// version is the API version asked for, in lower case, "v1" if none.
func (t *target) version() (string, error) {
	api := t.api
	if t.url != "" {
		if t.api != "" || t.keyspace != "" || t.pd != "" {
			return "", &usageError{errors.New("--url excludes --pd, --api and --keyspace")}
		}
		u, err := url.Parse(t.url)
		if err != nil {
			return "", &usageError{fmt.Errorf("--url: %w", err)}
		}
		api = u.Query().Get("api")
		if api == "" && strings.Trim(u.Path, "/") != "" {
			api = "v2"
		}
	}
	if api == "" {
		api = "v1"
		if t.keyspace != "" {
			api = "v2"
		}
	}
	api = strings.ToLower(api)
	if _, ok := versions[api]; !ok {
		return "", &usageError{fmt.Errorf("unknown API version %q: TiKV has v1, v1ttl and v2", api)}
	}
	return api, nil
}

var versions = map[string]tikv.APIVersion{"v1": tikv.APIV1, "v1ttl": tikv.APIV1TTL, "v2": tikv.APIV2}

// open connects to the cluster.
func (t *target) open(ctx context.Context, io stdio) (*tikv.Client, error) {
	if t.timeout <= 0 {
		return nil, &usageError{errors.New("--timeout must be positive")}
	}
	api, err := t.version()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	opts := []tikv.Option{tikv.WithPlainKeys()}
	if t.url != "" {
		return tikv.OpenURL(ctx, t.url, opts...)
	}
	opts = append(opts, tikv.WithAPIVersion(versions[api]))
	if t.keyspace != "" {
		opts = append(opts, tikv.WithKeyspace(t.keyspace))
	}
	return tikv.Open(ctx, strings.Split(t.where(io), ","), opts...)
}

// where is the address that was asked for.
func (t *target) where(io stdio) string {
	if t.url != "" {
		return t.url
	}
	if t.pd != "" {
		return t.pd
	}
	if pd, _ := io.env("TIKV_PD"); pd != "" {
		return pd
	}
	return defaultPD
}
