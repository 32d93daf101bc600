package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tikv-go/tikv/bench/internal/harness"
	"github.com/tikv-go/tikv/bench/internal/nullstore"
)

// Every workload that we have runs against the embedded cluster, which is more honest than
// the null store: what is read has been written.
func TestPlayground(t *testing.T) {
	f := newField(t, "playground")
	f.spec.Keys = 3000
	for name := range new(user).operations() {
		w, err := harness.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if w.Name == "noop" || w.Name == "txn100k" {
			continue
		}
		f.counted(t, kase{Workload: w.Name, Regions: 10, Callers: 3}, 30)
	}
}

// A cluster that is there already is loaded once for each kind of keys, and only if asked.
func TestRealCluster(t *testing.T) {
	c := nullstore.Config{Regions: 1, Keys: 1, KeySize: 16, ValueSize: 1}
	s, err := startServer(context.Background(), "part-playground", c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	f := newField(t, "null")
	f.spec.Keys, f.pd = 2000, s.PD[0]
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	get := kase{Workload: "rawget", Regions: 1, Callers: 1}
	f.spec.Ops = 10
	err = f.run(context.Background(), side{ours, []string{exe, "part-client"}, func(r *row) *[]harness.Result { return &r.Ours }}, &row{kase: get}, io.Discard)
	if err == nil {
		t.Fatal("keys are there before they were loaded")
	}
	f.load = true
	f.counted(t, get, 50)
	f.counted(t, kase{Workload: "snapbatchget50", Regions: 1, Callers: 2}, 50)
	f.counted(t, kase{Workload: "rawscan100", Regions: 1, Callers: 2}, 50)
	if len(f.servers) != 2 {
		t.Errorf("loaded %d times", len(f.servers))
	}
}

// The whole program: two rounds of two cases, as a table, in Markdown and in JSON.
func TestProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	o, err := parse([]string{"-run", "noop,rawget@3", "-c", "1,4", "-rounds", "2", "-dur", "5ms", "-warm", "1ms", "-keys", "1000", "-json", file})
	if err != nil {
		t.Fatal(err)
	}
	var log, out bytes.Buffer
	if err := o.measure(context.Background(), &out, &log); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "op/s"); n != 8 {
		t.Errorf("%d measurements:\n%s", n, &log)
	}
	var c campaign
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || len(c.Rows) != 4 || len(c.Rows[3].Ours) != 2 || c.Rows[3].Ours[1].Seconds == 0 || c.Rows[3].Callers != 4 || c.Rows[3].Regions != 3 {
		t.Fatalf("%v: %s", err, b)
	}
	for _, markdown := range []bool{false, true} {
		if markdown {
			out.Reset()
			if err := c.printMarkdown(&out); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"noop c=1", "noop c=4", "rawget@3 c=1", "rawget@3 c=4", ours, "2 rounds", "allocs/op"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, &out)
			}
		}
		if strings.HasPrefix(strings.Split(out.String(), "\n")[2], "|") != markdown {
			t.Errorf("Markdown %v:\n%s", markdown, &out)
		}
	}
}

func TestFlags(t *testing.T) {
	o, err := parse([]string{"-campaign"})
	if err != nil || len(o.cases) != 21 || o.rounds != 5 || o.spec.Dur != 3*time.Second || o.against != clientGo || !o.markdown {
		t.Fatalf("%v: %+v", err, o)
	}
	o, err = parse([]string{"-run", "rawget,snapget@7", "-c", "1,64", "-regions", "3", "-delay", "1ms"})
	want := []kase{{"rawget", 3, 1e6, 1}, {"rawget", 3, 1e6, 64}, {"snapget", 7, 1e6, 1}, {"snapget", 7, 1e6, 64}}
	if err != nil || len(o.cases) != 4 {
		t.Fatalf("%v: %+v", err, o)
	}
	for i, k := range want {
		if o.cases[i] != k {
			t.Errorf("%v, not %v", o.cases[i], k)
		}
	}
	for _, args := range []string{
		"", "-run nothing", "-run rawget -c 0", "-run rawget -c x", "-run rawget@0", "-run rawget@x", "-run rawget@1000000",
		"-run rawget -against other", "-run rawget -rival-src .", "-run rawget -rounds 0", "-run rawget -dur 0s", "-run rawget -regions 0",
		"-run rawget -keys 10", "-run rawget -key-size 8", "-run rawget -value-size 0", "-run rawget -server other", "-run rawget -delay 1ms -server playground",
		"-run rawget -delay 1ms -pd a", "-run rawget -server playground -pd a", "-run rawget -load", "-run rawget more",
	} {
		if _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// What a client has no calls for is left out of what is measured, and said in the list.
func TestList(t *testing.T) {
	var out bytes.Buffer
	list(&out)
	have := new(user).operations()
	for _, w := range harness.Workloads {
		found := false
		for line := range strings.Lines(out.String()) {
			if name, rest, _ := strings.Cut(line, " "); name == w.Name {
				found = strings.Contains(rest, w.About) && strings.Contains(rest, "alone") == (have[name] == nil)
			}
		}
		if !found {
			t.Errorf("%s is not listed:\n%s", w.Name, &out)
		}
	}
}

func TestNumbers(t *testing.T) {
	for x, want := range map[float64]string{0: "0", .123: "0.12", 1.005: "1.00", 9.99: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 9999: "9999", 10_000: "10.0k", 123_456: "123k", 999_499: "999k", 1e6: "1.00M", 9.4e7: "94.0M"} {
		if got := number(x); got != want {
			t.Errorf("%v: %s, not %s", x, got, want)
		}
	}
	for _, c := range []struct {
		xs   []float64
		want spread
	}{{nil, spread{}}, {[]float64{3}, spread{3, 3, 3}}, {[]float64{4, 1}, spread{2.5, 1, 4}}, {[]float64{9, 1, 2}, spread{2, 1, 9}}} {
		if got := spreadOf(c.xs); got != c.want {
			t.Errorf("%v: %v", c.xs, got)
		}
	}
	r := row{Ours: []harness.Result{{Rate: 10}, {Rate: 30}, {Rate: 5}}, Rival: []harness.Result{{Rate: 5}, {Rate: 10}}}
	if got := r.ratios(figures[0].of); len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("ratios %v", got)
	}
	if lines := r.lines(); len(lines) != 3 || lines[2][2] != "2.50 [2.00..3.00]" || lines[2][3] != "-" {
		t.Errorf("%q", lines)
	}
}
