package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Quantiles are those of sorted numbers, within the width of a bucket.
func TestHistogram(t *testing.T) {
	var all, half [2]histogram
	var xs []int64
	x := int64(7)
	for i := range 10_000 {
		x = x * 6364136223846793005 >> 3
		ns := x & (1<<(5+i%30) - 1)
		xs = append(xs, ns)
		all[0].add(ns)
		half[i%2].add(ns)
	}
	half[0].merge(&half[1])
	if half[0] != all[0] {
		t.Error("merged halves are not the whole")
	}
	slices.Sort(xs)
	for _, q := range []float64{0, .01, .5, .9, .99, .999} {
		want := float64(xs[int(q*float64(len(xs)))]) / 1e3
		if got := all[0].quantile(q); got < want*.96 || got > want*1.04+.001 {
			t.Errorf("quantile %v: %v, exactly %v", q, got, want)
		}
	}
	var edge histogram
	edge.add(-1)
	edge.add(1<<63 - 1)
	if edge.quantile(0) != 0 || edge.quantile(.9) < 9e15/1e3 {
		t.Error(edge.quantile(0), edge.quantile(.9))
	}
	if new(histogram).quantile(.5) != 0 {
		t.Error("an empty histogram")
	}
}

func TestKeys(t *testing.T) {
	d := MakeData(1000, 24, 100, 4)
	if len(d.Keys) != 1000 || len(d.Value) != 100 || string(d.Keys[7]) != "bench/000000000000000007" {
		t.Fatalf("%q", d.Keys[7])
	}
	if !slices.IsSortedFunc(d.Keys, bytes.Compare) {
		t.Error("keys are not sorted")
	}
	used := map[string]int{}
	for caller := range 16 {
		for i := range 1000 {
			used[string(d.At(caller, i))]++
			if at := d.From(100, caller, i); bytes.Compare(at, d.Keys[900]) > 0 {
				t.Fatalf("a scan of 100 from %q", at)
			}
		}
	}
	if len(used) < 990 {
		t.Errorf("only %d of 1000 keys are used", len(used))
	}
	if b := d.Batch(make([][]byte, 50), 2, 3); !bytes.Equal(b[7], d.At(2, 157)) {
		t.Error("a batch's keys")
	}
	for _, n := range []int{1, 10, 250, 1000} { // four callers: up to 250 are a caller's own
		owner := map[string]int{}
		for caller := range 4 {
			for i := range 20 {
				mine := map[string]bool{}
				if err := d.Spread(n, caller, i, func(k []byte) error { mine[string(k)] = true; return nil }); err != nil || len(mine) != n {
					t.Fatalf("%d of %d keys, %v", len(mine), n, err)
				}
				for k := range mine {
					if who, taken := owner[k]; n <= 250 && taken && who != caller {
						t.Fatalf("callers %d and %d both write %s", who, caller, k)
					}
					owner[k] = caller
				}
			}
		}
	}
	stop := errors.New("stop")
	if err := d.Spread(10, 0, 0, func([]byte) error { return stop }); err != stop {
		t.Error(err)
	}
}

// A counted run is exactly so many operations, shared by all callers, none twice.
func TestCountedRun(t *testing.T) {
	const callers, warm, ops = 7, 20, 1003
	var mu sync.Mutex
	seen := map[[2]int]int{}
	s := Spec{Workload: "noop", Callers: callers, WarmOps: warm, Ops: ops}
	r, err := Run(t.Context(), s, func(caller, i int) error {
		mu.Lock()
		defer mu.Unlock()
		seen[[2]int{caller, i}]++
		return nil
	})
	if err != nil || r.Ops != ops || len(seen) != warm+ops || r.Errors != 0 || r.Rate <= 0 || r.Goroutines < callers {
		t.Fatalf("%d operations, %v: %+v", len(seen), err, r)
	}
}

// What an operation allocates is what is reported.
func TestAllocations(t *testing.T) {
	kept := make([][][]byte, 4)
	s := Spec{Workload: "noop", Callers: len(kept), WarmOps: 100, Ops: 4000}
	r, err := Run(t.Context(), s, func(caller, _ int) error {
		kept[caller] = append(kept[caller][:0], make([]byte, 1024), make([]byte, 1024))
		return nil
	})
	if err != nil || r.Allocs < 2 || r.Allocs > 2.5 || r.Bytes < 2048 || r.Bytes > 2400 {
		t.Fatalf("%v: %+v", err, r)
	}
}

func TestErrorsAreCounted(t *testing.T) {
	broken := errors.New("broken")
	for _, s := range []Spec{
		{Callers: 3, Ops: 300},
		{Callers: 3, Dur: time.Minute}, // ends by the errors
	} {
		s.Workload = "noop"
		var n atomic.Int64
		r, err := Run(t.Context(), s, func(int, int) error {
			if n.Add(1); s.Ops == 0 || n.Load()%3 == 0 {
				return broken
			}
			return nil
		})
		if err != nil || r.FirstError != "broken" || r.Errors == 0 || s.Ops > 0 && r.Ops+r.Errors != 300 {
			t.Errorf("%v: %+v", err, r)
		}
	}
}

// A timed run counts what ends while it is measured, and ends with its context.
func TestTimedRun(t *testing.T) {
	var during atomic.Uint64
	s := Spec{Workload: "noop", Callers: 4, Warm: time.Millisecond, Dur: 20 * time.Millisecond}
	op := func(int, int) error { during.Add(1); return nil }
	r, err := Run(t.Context(), s, op)
	for err == nil && r.Ops == 0 { // no caller had the processor in that time
		s.Dur *= 2
		r, err = Run(t.Context(), s, op)
	}
	if err != nil || r.Ops > during.Load() || r.Seconds < .02 || r.P50 > r.P99 {
		t.Fatalf("%v: %+v", err, r)
	}
	s.Dur, s.Workload = time.Hour, "txn100k" // which ends early
	if r, err := Run(t.Context(), s, func(int, int) error { return nil }); err != nil || r.Ops > 4 {
		t.Fatalf("%v: %+v", err, r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.Workload = "noop"
	if _, err := Run(ctx, s, func(int, int) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestServe(t *testing.T) {
	stats := serveStats(t)
	dir := t.TempDir()
	s := Spec{Workload: "rawget", Callers: 2, Ops: 10, Keys: 100, KeySize: 24, ValueSize: 10, Stats: stats,
		CPUProfile: filepath.Join(dir, "cpu"), MutexProfile: filepath.Join(dir, "mutex"), Trace: filepath.Join(dir, "trace")}
	in, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	stopped := 0
	open := func(_ context.Context, got Spec, d Data) (Op, func() error, error) {
		if got.Workload != "rawget" || len(d.Keys) != 100 || len(d.Value) != 10 {
			t.Errorf("%+v", got)
		}
		return func(int, int) error { return nil }, func() error { stopped++; return nil }, nil
	}
	var out bytes.Buffer
	if err := Serve(t.Context(), "me", bytes.NewReader(in), &out, open); err != nil {
		t.Fatal(err)
	}
	var r Result
	if err := json.NewDecoder(&out).Decode(&r); err != nil || r.Client != "me" || r.Ops != 10 || stopped != 1 {
		t.Fatalf("%v: %+v", err, r)
	}
	// Each reading of the counters is 30 requests in 3 frames more than the last.
	if r.Requests != 3 || r.Frames != .3 || r.PerFrame != 10 || r.Timestamps != 5 || r.ServerCPU != 100 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{s.CPUProfile, s.MutexProfile, s.Trace} {
		if found, err := filepath.Glob(name); err != nil || len(found) != 1 {
			t.Errorf("%s was not written", name)
		}
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		in   string
		open Open
	}{
		"no order":  {"{", open},
		"no client": {"{}", func(context.Context, Spec, Data) (Op, func() error, error) { return nil, nil, broken }},
		"no first operation": {string(in), func(context.Context, Spec, Data) (Op, func() error, error) {
			return func(int, int) error { return broken }, func() error { return nil }, nil
		}},
		"no end": {string(in), func(context.Context, Spec, Data) (Op, func() error, error) {
			return func(int, int) error { return nil }, func() error { return broken }, nil
		}},
		"no counters": {strings.Replace(string(in), stats, "127.0.0.1:1", 1), open},
	} {
		out.Reset()
		if err := Serve(t.Context(), "me", strings.NewReader(c.in), &out, c.open); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, %s", name, err, &out)
		}
	}
}

// serveStats tells counters that grow by the same with each reading.
func serveStats(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := uint64(1); ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = json.NewEncoder(conn).Encode(Stats{Requests: 30 * n, Frames: 3 * n, Timestamps: 10 * n, TimestampRequests: 2 * n, CPU: time.Duration(n) * time.Millisecond})
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestUsage(t *testing.T) {
	before := CPU()
	for x, i := 1.0, 0; i < 1e8 && CPU() == before; i++ {
		x *= 1.0001
	}
	if after := usage(); after.Total() <= before {
		t.Errorf("processor time stands at %v", after)
	}
}
