package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/bench/internal/nullstore"
)

// campaign is what was measured.
type campaign struct {
	Began   time.Time `json:"began"`
	Machine string    `json:"machine"`
	Server  string    `json:"server"`
	Rounds  int       `json:"rounds"`
	Ours    string    `json:"ours"`
	Rival   string    `json:"rival,omitempty"`
	Rows    []*row    `json:"rows"`
}

// row is a case's results, one of each client for a round.
type row struct {
	kase
	Ours  []harness.Result `json:"ours,omitempty"`
	Rival []harness.Result `json:"rival,omitempty"`
}

// measure runs all cases and reports them.
func (o *options) measure(ctx context.Context, out, log io.Writer) error {
	c, err := o.collect(ctx, log)
	if err != nil {
		return err
	}
	if err := c.write(o.json); err != nil {
		return err
	}
	if o.markdown {
		return c.printMarkdown(out)
	}
	return c.print(out)
}

// collect runs all cases, round by round.
func (o *options) collect(ctx context.Context, log io.Writer) (c *campaign, err error) {
	c = &campaign{Began: time.Now(), Machine: machine(), Server: o.serverName(), Rounds: o.rounds}
	for _, k := range o.cases {
		c.Rows = append(c.Rows, &row{kase: k})
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	clients := []side{{ours, []string{exe, "part-client"}, func(r *row) *[]harness.Result { return &r.Ours }}}
	if o.against != "" {
		program, clean, err := buildRival(ctx, o.rivalSrc, log)
		if err != nil {
			return nil, err
		}
		defer clean()
		clients = append(clients, side{clientGo, []string{program}, func(r *row) *[]harness.Result { return &r.Rival }})
	}
	f := &field{options: o, servers: map[nullstore.Config]*server{}}
	defer func() { err = errors.Join(err, f.close()) }()
	for round := range o.rounds {
		for _, r := range c.Rows {
			for i := range clients {
				s := clients[(i+round)%len(clients)] // who is first takes turns
				if err := f.run(ctx, s, r, log); err != nil {
					return nil, err
				}
			}
		}
	}
	c.label(ctx)
	return c, nil
}

// side is one of the clients that are compared.
type side struct {
	name    string
	program []string
	results func(*row) *[]harness.Result
}

// field is where cases are measured: the servers, started when they are needed.
type field struct {
	*options
	servers map[nullstore.Config]*server
}

// run measures a case once with one client. What a client has no calls for is left out.
func (f *field) run(ctx context.Context, s side, r *row, log io.Writer) error {
	if s.name == ours && new(user).operations()[r.Workload] == nil {
		return nil
	}
	at, err := f.server(ctx, r.kase)
	if err != nil {
		return err
	}
	spec := f.spec
	spec.Workload, spec.Callers, spec.PD, spec.Stats = r.Workload, r.Callers, at.PD, at.Stats
	if s.name != ours {
		spec.CPUProfile, spec.MemProfile, spec.MutexProfile, spec.Trace = "", "", "", ""
	}
	result, err := measure(ctx, s.program, spec)
	if err != nil {
		return err
	}
	all := s.results(r)
	*all = append(*all, result)
	fmt.Fprintf(log, "%s\t%s\t%s op/s, p50 %s µs, CPU %s µs/op, %s allocs/op\n",
		r.kase, s.name, number(result.Rate), number(result.P50), number(result.CPU), number(result.Allocs))
	if result.Errors > 0 {
		return fmt.Errorf("%s with %s: %d operations failed, the first with: %s", r.kase, s.name, result.Errors, result.FirstError)
	}
	return nil
}

// server returns what a case is measured against.
func (f *field) server(ctx context.Context, k kase) (address, error) {
	c := nullstore.Config{Regions: k.Regions, Keys: f.spec.Keys, KeySize: f.spec.KeySize, ValueSize: f.spec.ValueSize, Delay: k.Delay}
	w, err := harness.Find(k.Workload)
	if err != nil {
		return address{}, err
	}
	c.Encoded = w.Keys == harness.TxnKeys
	if f.pd != "" {
		return f.real(ctx, c)
	}
	if s := f.servers[c]; s != nil {
		return s.address, nil
	}
	s, err := startServer(ctx, "part-"+f.options.server, c)
	if err != nil {
		return address{}, err
	}
	f.servers[c] = s
	return s.address, nil
}

// real is a cluster that was there before; each kind of keys is loaded once.
func (f *field) real(ctx context.Context, c nullstore.Config) (address, error) {
	at := address{PD: strings.Split(f.pd, ",")}
	if _, loaded := f.servers[c]; loaded || !f.load {
		return at, nil
	}
	f.servers[c] = nil
	return at, load(ctx, at.PD, harness.MakeData(c.Keys, c.KeySize, c.ValueSize, 1), c.Encoded)
}

func (f *field) close() error {
	var errs []error
	for _, s := range f.servers {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// label takes the clients' names from what they said, and our version from git where the
// program was built without it.
func (c *campaign) label(ctx context.Context) {
	for _, r := range c.Rows {
		for _, x := range r.Ours {
			c.Ours = x.Client
		}
		for _, x := range r.Rival {
			c.Rival = x.Client
		}
	}
	if c.Ours == ours {
		if commit, err := output(ctx, "", "git", "rev-parse", "--short=8", "HEAD"); err == nil {
			c.Ours += " " + commit
		}
	}
}

func (c *campaign) write(name string) error {
	if name == "" {
		return nil
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}

func (o *options) serverName() string {
	if o.pd != "" {
		return o.pd
	}
	return o.server
}

func machine() string {
	s := fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return s
	}
	for line := range strings.Lines(string(info)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model) + ", " + s
		}
	}
	return s
}
