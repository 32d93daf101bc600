package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/bench/internal/nullstore"
)

var update = flag.Bool("update", false, "write what is counted to baseline.json, and the harness to the rival's module")

// counts are what a case may not do more of: nothing in it is a time.
type counts struct {
	Allocs     float64 `json:"allocs_op"`
	Bytes      float64 `json:"bytes_op"`
	PerFrame   float64 `json:"requests_frame"` // 0: no frames
	Goroutines int     `json:"goroutines"`     // the most that a caller saw, callers included
	Idle       int     `json:"idle_goroutines"`
}

// How far a count may be off its baseline: a part of it, and a bit for what happens now and
// then. A lone caller whose requests each have a frame to themselves counts the same each
// time, but for what pools lose to the garbage collector and make anew, some per cent of
// the bytes on a slow machine. How many requests share a frame otherwise, and how many
// connections load opens, depends on how goroutines happen to run: there only half as many
// requests in a frame is a failure, and what smaller frames and more connections cost is none.
type slack struct {
	part, bytesPart  float64
	allocs, bytes    float64
	goroutines, idle float64
	leastPerFrame    float64
}

var (
	alone    = slack{part: 0.03, bytesPart: 0.1, allocs: 0.5, bytes: 128, goroutines: 4, idle: 4, leastPerFrame: 0.99}
	together = slack{part: 0.5, bytesPart: 0.5, allocs: 1, bytes: 256, goroutines: 64, idle: 64, leastPerFrame: 0.5}
)

func (c counts) slack() slack {
	if c.PerFrame <= 1 && c.Goroutines < 32 {
		return alone
	}
	return together
}

const tries = 6 // a count that is worse is worse each time

// countedCases are the rows of baseline.json, each with its number of operations.
var countedCases = []struct {
	run          string
	regions, ops int
}{
	{"rawget", 1, 600},
	{"rawget", 100, 600},
	{"rawput", 1, 600},
	{"rawbatchget50", 1, 300},
	{"rawbatchget50", 100, 100},
	{"rawscan100", 1, 300},
	{"snapget", 1, 600},
	{"snapbatchget50", 1, 300},
	{"snapbatchget50", 100, 100},
	{"tso", 1, 600},
	{"txn2pc", 1, 300},
	{"txnasync", 1, 300},
	{"txn1pc", 1, 300},
	{"txnpess", 1, 300},
	{"txn1000", 1, 20},
	{"txn1000", 100, 10},
}

const baselineFile = "baseline.json"

// TestCounts compares what operations of our client cost, in allocations, bytes, frames and
// goroutines, with baseline.json. It runs numbers of operations, never for a time.
func TestCounts(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates too")
	}
	want := map[string]counts{}
	if !*update {
		want = readBaseline(t)
	}
	got := map[string]counts{}
	f := newField(t, "null")
	for _, c := range countedCases {
		for _, callers := range []int{1, 64} {
			if c.run == "txn1000" && callers > 1 {
				continue
			}
			k := kase{Workload: c.run, Regions: c.regions, Callers: callers}
			base, known := want[k.String()]
			if !known && !*update {
				t.Errorf("%s: not in %s: go test ./bench -run TestCounts -update", k, baselineFile)
				continue
			}
			delete(want, k.String())
			var worse []string
			for try := range tries {
				x := f.counted(t, k, c.ops*min(callers, 4))
				if *update && try > 0 {
					x = got[k.String()].with(x)
				}
				got[k.String()] = x
				if worse = base.worse(x); len(worse) == 0 {
					break
				}
			}
			if *update {
				continue
			}
			for _, w := range worse {
				t.Errorf("%s: %s", k, w)
			}
			t.Logf("%-26s %+v", k, got[k.String()])
		}
	}
	for name := range want {
		t.Errorf("%s: in %s, but not measured", name, baselineFile)
	}
	if *update {
		writeBaseline(t, got)
	}
}

// with is the worst of two.
func (c counts) with(o counts) counts {
	return counts{max(c.Allocs, o.Allocs), max(c.Bytes, o.Bytes), min(c.PerFrame, o.PerFrame), max(c.Goroutines, o.Goroutines), max(c.Idle, o.Idle)}
}

// worse says in what x is worse than the baseline.
func (base counts) worse(x counts) (all []string) {
	may := base.slack()
	most := func(name string, was, is, part, extra float64) {
		if limit := was*(1+part) + extra; is > limit {
			all = append(all, fmt.Sprintf("%.1f %s, baseline %.1f, limit %.1f", is, name, was, limit))
		}
	}
	most("allocations an operation", base.Allocs, x.Allocs, may.part, may.allocs)
	most("bytes an operation", base.Bytes, x.Bytes, may.bytesPart, may.bytes)
	most("goroutines", float64(base.Goroutines), float64(x.Goroutines), may.part, may.goroutines)
	most("idle goroutines", float64(base.Idle), float64(x.Idle), may.part, may.idle)
	if limit := base.PerFrame * may.leastPerFrame; x.PerFrame < limit {
		all = append(all, fmt.Sprintf("%.1f requests a frame, baseline %.1f, limit %.1f", x.PerFrame, base.PerFrame, limit))
	}
	return all
}

func TestWorse(t *testing.T) {
	one := counts{Allocs: 10, Bytes: 1000, PerFrame: 1, Goroutines: 20, Idle: 10}
	many := counts{Allocs: 10, Bytes: 1000, PerFrame: 8, Goroutines: 100, Idle: 20}
	for _, c := range []struct {
		base, x counts
		want    int
	}{
		{one, one, 0},
		{one, counts{Allocs: 1, Bytes: 1, PerFrame: 64, Goroutines: 1, Idle: 1}, 0},
		{one, counts{Allocs: 10.8, Bytes: 1228, PerFrame: 1, Goroutines: 24, Idle: 14}, 0},
		{one, counts{Allocs: 11, Bytes: 1000, PerFrame: 1, Goroutines: 20, Idle: 10}, 1},
		{one, counts{Allocs: 10, Bytes: 1229, PerFrame: 1, Goroutines: 20, Idle: 10}, 1},
		{one, counts{Allocs: 10, Bytes: 1000, PerFrame: 0.9, Goroutines: 20, Idle: 10}, 1},
		{one, counts{Allocs: 10, Bytes: 1000, PerFrame: 1, Goroutines: 26, Idle: 15}, 2},
		{many, many, 0},
		{many, counts{Allocs: 16, Bytes: 1756, PerFrame: 4, Goroutines: 214, Idle: 94}, 0},
		{many, counts{Allocs: 16.1, Bytes: 1757, PerFrame: 3.9, Goroutines: 215, Idle: 95}, 5},
	} {
		if got := c.base.worse(c.x); len(got) != c.want {
			t.Errorf("%+v: %q", c.x, got)
		}
	}
}

// newField is a field whose servers end with the test.
func newField(t *testing.T, what string) *field {
	t.Helper()
	o := &options{server: what, rounds: 1, spec: harness.Spec{Keys: 100_000, KeySize: 24, ValueSize: 100, Procs: 2}}
	f := &field{options: o, servers: map[nullstore.Config]*server{}}
	t.Cleanup(func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// counted runs a case with a number of operations.
func (f *field) counted(t *testing.T, k kase, ops int) counts {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.spec.Ops, f.spec.WarmOps = ops, ops
	r := &row{kase: k}
	if err := f.run(context.Background(), side{ours, []string{exe, "part-client"}, func(r *row) *[]harness.Result { return &r.Ours }}, r, io.Discard); err != nil {
		t.Fatal(err)
	}
	if len(r.Ours) != 1 || r.Ours[0].Ops != uint64(ops) {
		t.Fatalf("%s: %+v", k, r.Ours)
	}
	x := r.Ours[0]
	return counts{x.Allocs, x.Bytes, x.PerFrame, x.Goroutines, x.Idle}
}

func readBaseline(t *testing.T) map[string]counts {
	t.Helper()
	var all map[string]counts
	b, err := os.ReadFile(baselineFile)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func writeBaseline(t *testing.T, all map[string]counts) {
	t.Helper()
	for k, c := range all {
		c.Allocs, c.Bytes, c.PerFrame = round(c.Allocs, 10), round(c.Bytes, 1), round(c.PerFrame, 10)
		all[k] = c
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.WriteFile(baselineFile, append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func round(x, parts float64) float64 { return float64(int64(x*parts+0.5)) / parts }
