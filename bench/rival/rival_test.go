package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tikv-go/tikv/bench/rival/internal/harness"
)

// nullStore starts bench's null store, whose module this one cannot import: a process that
// ends with its standard input.
func nullStore(t testing.TB, program string, encoded bool) (pd []string, stats string) {
	t.Helper()
	cmd := exec.Command(program, "part-null")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	config := map[string]any{"Regions": 10, "Keys": 1000, "KeySize": 24, "ValueSize": 100, "Encoded": encoded}
	if err := json.NewEncoder(stdin).Encode(config); err != nil {
		t.Fatal(err)
	}
	var at struct {
		PD    []string
		Stats string
	}
	if err := json.NewDecoder(stdout).Decode(&at); err != nil {
		t.Fatal(err)
	}
	return at.PD, at.Stats
}

// benchProgram builds bench.
func benchProgram(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bench.exe")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// Every workload runs, and its answers are those that the operations look for.
func TestWorkloads(t *testing.T) {
	if err := quiet(); err != nil {
		t.Fatal(err)
	}
	program := benchProgram(t)
	for _, kind := range []harness.KeyKind{harness.RawKeys, harness.TxnKeys} {
		pd, stats := nullStore(t, program, kind == harness.TxnKeys)
		for _, w := range harness.Workloads {
			if w.Keys != kind || w.Name == "txn100k" {
				continue
			}
			s := harness.Spec{Workload: w.Name, Callers: 2, PD: pd, Stats: stats, WarmOps: 2, Ops: 20, Keys: 1000, KeySize: 24, ValueSize: 100}
			r, err := harness.Measure(context.Background(), s, open)
			if err != nil || r.Ops != 20 || r.Errors != 0 || (r.PerFrame == 0) != (w.Name == "tso") {
				t.Errorf("%s: %v: %+v", w.Name, err, r)
			}
		}
	}
}

func TestUnknownWorkload(t *testing.T) {
	if _, err := harness.Measure(context.Background(), harness.Spec{Workload: "nothing", Callers: 1, Keys: 1000, KeySize: 24}, open); err == nil {
		t.Error("taken")
	}
}
