// Command peer is this project's client as a process, for tests that let it work beside
// the official one, or die. It reads commands from standard input, one JSON object a
// line, and answers each with one.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/tikv-go/tikv"
)

func main() {
	pd := flag.String("pd", "127.0.0.1:2379", "PD members")
	api := flag.String("api", "v1", "v1, v1ttl or v2")
	keyspace := flag.String("keyspace", "", "keyspace")
	flag.Parse()
	if err := serve(context.Background(), *pd, *api, *keyspace, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

// command is one line of input. Die ends the process, as kill -9 would, after the step.
type command struct {
	Do    string `json:"do"`
	Key   string `json:"key"`
	Value string `json:"value"`
	End   string `json:"end"`
	Times int    `json:"times"`
	TS    uint64 `json:"ts"`
	// Option is how a transaction begins, "pessimistic" or "pipelined", or commits: "async",
	// "two-phase", "auto" or "causal".
	Option string `json:"option"`
	Die    bool   `json:"die"`
}

// answer is one line of output.
type answer struct {
	Error string      `json:"error,omitempty"`
	Kind  string      `json:"kind,omitempty"`
	Value *string     `json:"value,omitempty"`
	Pairs [][2]string `json:"pairs,omitempty"`
	TS    uint64      `json:"ts,omitempty"`
}

func serve(ctx context.Context, pd, api, keyspace string, in io.Reader, out io.Writer) error {
	version, ok := map[string]tikv.APIVersion{"v1": tikv.APIV1, "v1ttl": tikv.APIV1TTL, "v2": tikv.APIV2}[api]
	if !ok {
		return fmt.Errorf("unknown API version %q", api)
	}
	opts := []tikv.Option{tikv.WithAPIVersion(version)}
	if keyspace != "" {
		opts = append(opts, tikv.WithKeyspace(keyspace))
	}
	client, err := tikv.Open(ctx, strings.Split(pd, ","), opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	p := &peer{client: client}
	lines, enc := bufio.NewScanner(in), json.NewEncoder(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		var a answer
		if err := p.do(ctx, c, &a); err != nil {
			a.Error, a.Kind = err.Error(), kind(err)
		}
		if c.Die {
			die()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// peer holds the one transaction that is open.
type peer struct {
	client *tikv.Client
	tx     *tikv.Txn
	stage  *tikv.FairLock // nil: locks are ordinary ones
}

func (p *peer) do(ctx context.Context, c command, a *answer) error {
	if p.tx == nil {
		switch c.Do {
		case "get", "put", "delete", "lock", "fair", "prewrite", "commit", "rollback":
			return errors.New("no transaction is open")
		}
	}
	switch c.Do {
	case "rawput":
		return p.client.Raw().Put(ctx, []byte(c.Key), []byte(c.Value))
	case "rawget":
		return a.value(p.client.Raw().Get(ctx, []byte(c.Key)))
	case "latest":
		return a.value(p.client.Latest().Get(ctx, []byte(c.Key)))
	case "scan":
		return p.scan(ctx, c, a)
	case "count":
		return p.count(ctx, c)
	case "begin":
		opts := []tikv.BeginOption{tikv.WithCommitMode(tikv.CommitTwoPhase)} // the tests know its requests
		switch c.Option {
		case "pessimistic":
			opts = append(opts, tikv.WithPessimistic())
		case "pipelined":
			opts = append(opts, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(1, 1<<20))
		}
		tx, err := p.client.Begin(ctx, opts...)
		p.tx, p.stage = tx, nil
		return err
	case "fair":
		stage, err := p.tx.FairLock()
		p.stage = stage
		return err
	case "lock":
		return p.lock(ctx, c, a)
	case "get":
		return a.value(p.tx.Get(ctx, []byte(c.Key)))
	case "put":
		return p.tx.Put([]byte(c.Key), []byte(c.Value))
	case "delete":
		return p.tx.Delete([]byte(c.Key))
	case "prewrite":
		return p.prewrite(ctx, c)
	case "commit":
		if p.stage != nil {
			if err := p.stage.Done(ctx); err != nil {
				return err
			}
		}
		var opts []tikv.CommitOption
		switch c.Option {
		case "async":
			opts = append(opts, tikv.WithCommitMode(tikv.CommitAsync))
		case "two-phase":
			opts = append(opts, tikv.WithCommitMode(tikv.CommitTwoPhase))
		case "auto":
			opts = append(opts, tikv.WithCommitMode(tikv.CommitAuto))
		case "causal":
			opts = append(opts, tikv.WithCommitMode(tikv.CommitAuto), tikv.WithCausalConsistency())
		}
		err := p.tx.Commit(ctx, opts...)
		if ts, ok := p.tx.CommitTS(); ok {
			a.TS = uint64(ts)
		}
		return err
	case "rollback":
		return p.tx.Rollback(ctx)
	case "outcome":
		ts, err := p.client.ResolveOutcome(ctx, &tikv.UndeterminedError{StartTS: tikv.Timestamp(c.TS), Primary: []byte(c.Key)})
		a.TS = uint64(ts)
		return err
	}
	return fmt.Errorf("unknown command %q", c.Do)
}

// lock locks a key and tells its value, and the commit that it was locked above.
func (p *peer) lock(ctx context.Context, c command, a *answer) error {
	got, err := p.tx.BatchGetForUpdate(ctx, [][]byte{[]byte(c.Key)})
	if err != nil {
		return err
	}
	if a.TS = uint64(got[0].ConflictTS); !got[0].Exists {
		return tikv.ErrNotFound
	}
	return a.value(got[0].Value, nil)
}

// prewrite stops the commit between its two phases: the process dies there, or the
// transaction is rolled back.
func (p *peer) prewrite(ctx context.Context, c command) error {
	stop := errors.New("stopped after prewrite")
	err := p.tx.Commit(ctx, tikv.WithCommitCheck(func(tikv.Timestamp) error {
		if c.Die {
			die()
		}
		return stop
	}))
	if errors.Is(err, stop) {
		return nil
	}
	return err
}

func (p *peer) scan(ctx context.Context, c command, a *answer) error {
	snap, err := p.client.Snapshot(ctx)
	if err != nil {
		return err
	}
	for kv, err := range snap.Scan(ctx, tikv.Range{Start: []byte(c.Key), End: []byte(c.End)}) {
		if err != nil {
			return err
		}
		a.Pairs = append(a.Pairs, [2]string{string(kv.Key), string(kv.Value)})
	}
	return nil
}

// count adds one to the decimal number at the key, in one transaction each time.
func (p *peer) count(ctx context.Context, c command) error {
	for range c.Times {
		err := p.client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			n := 0
			switch v, err := tx.Get(ctx, []byte(c.Key)); {
			case err == nil:
				if n, err = strconv.Atoi(string(v)); err != nil {
					return err
				}
			case !errors.Is(err, tikv.ErrNotFound):
				return err
			}
			return tx.Put([]byte(c.Key), []byte(strconv.Itoa(n+1)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *answer) value(v []byte, err error) error {
	if err != nil {
		return err
	}
	s := string(v)
	a.Value = &s
	return nil
}

// kind classifies an error for the driver.
func kind(err error) string {
	for _, k := range []struct {
		name string
		is   error
	}{
		{"undetermined", tikv.ErrUndetermined}, {"absent", tikv.ErrNotFound}, {"conflict", tikv.ErrWriteConflict},
		{"exists", tikv.ErrAlreadyExists}, {"invalid", tikv.ErrInvalid}, {"unavailable", tikv.ErrUnavailable},
	} {
		if errors.Is(err, k.is) {
			return k.name
		}
	}
	return "other"
}

// die ends the process as kill -9 would: nothing of it runs any more.
func die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		self.Kill()
		select {}
	}
	os.Exit(1)
}
