package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

func startCluster(t *testing.T, opts ...playground.Option) (*playground.Cluster, string) {
	t.Helper()
	c, err := playground.Start(t.Context(), append(opts, playground.WithStores(1), playground.WithTCP("127.0.0.1", 0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, strings.Join(c.PD(), ",")
}

// patience is what commands are given, so that none fails on a machine that is slow.
const patience = "--timeout=10m"

// session is a user who has set TIKV_PD and types commands.
type session struct {
	pd, in string
	ctx    context.Context
}

func (s session) run(t *testing.T, line string) (code int, out, errOut string) {
	t.Helper()
	if !strings.Contains(line, "--timeout") {
		line += " " + patience
	}
	var o, e bytes.Buffer
	env := func(name string) (string, bool) {
		if name == "TIKV_PD" {
			return s.pd, true
		}
		return "", false
	}
	ctx := s.ctx
	if ctx == nil {
		ctx = t.Context()
	}
	code = run(ctx, strings.Fields(line), stdio{strings.NewReader(s.in), &o, &e, env, 0})
	return code, o.String(), e.String()
}

func TestDataCommands(t *testing.T) {
	for _, space := range []string{"", " --raw"} {
		_, pd := startCluster(t)
		s := session{pd: pd}
		for _, step := range []struct {
			line string
			code int
			out  string
		}{
			{"get a", exitAbsent, ""},
			{"put a 1", 0, ""},
			{"get a", 0, "1\n"},
			{"get a -o raw", 0, "1"},
			{"get a -o json", 0, `{"key":"a","value":"1"}` + "\n"},
			{`put b\x00 \xff\n`, 0, ""},
			{`get b\x00`, 0, `\xff\n` + "\n"},
			{`get 6200 --format hex`, 0, "ff0a\n"},
			{`get YgA= --format base64`, 0, "/wo=\n"},
			{`get b\x00 -o raw`, 0, "\xff\n"},
			{"scan", 0, "KEY    VALUE\na      1\nb\\x00  \\xff\\n\n"},
			{"scan --keys-only --reverse", 0, "KEY\nb\\x00\na\n"},
			{"scan a b", 0, "KEY  VALUE\na    1\n"},
			{"scan --prefix b -o json", 0, `{"key":"b\\x00","value":"\\xff\\n"}` + "\n"},
			{"scan --limit 1 -o raw", 0, "a\t1\n"},
			{"scan x", 0, ""},
			{"count", 0, "2\n"},
			{"count b -o json", 0, "{\"keys\":1}\n"},
			{"delete a absent", 0, ""},
			{"count", 0, "1\n"},
		} {
			code, out, errOut := s.run(t, step.line+space)
			if code != step.code || out != step.out {
				t.Errorf("tikv %s%s: exit %d, output %q, errors %q", step.line, space, code, out, errOut)
			}
			if (errOut != "") != (code != 0) {
				t.Errorf("tikv %s%s: exit %d with errors %q", step.line, space, code, errOut)
			}
		}
	}
}

func TestWrongDataCommands(t *testing.T) {
	s := session{pd: "127.0.0.1:1"} // nothing is asked
	for line, says := range map[string]string{
		"get":                            "one key",
		"get a b":                        "one key",
		"put a":                          "a key and a value",
		"scan a b c":                     "at most",
		"scan a --prefix b":              "excludes",
		"scan --limit -1":                "negative",
		"get a --api v3":                 "unknown API version",
		"get a --raw --txn":              "exclude",
		"get a --txn --api v1ttl":        "no transactional keys",
		"get a --url tikv://x --pd y":    "--url excludes",
		"get a -o yaml":                  "table, json or raw",
		"get a --format rot13":           "raw, escaped, hex or base64",
		`get \q`:                         "unknown escape",
		"get xyz --format hex":           "not --format hex",
		"put a 1 --ttl -1s --raw":        "--ttl must be positive",
		"delete":                         "expected keys",
		"delete a --prefix b":            "expected keys",
		"delete --from a":                "go together",
		"delete --prefix a --from b":     "excludes",
		"get a --url tikv://x?frob=1":    "frob",
		"get a --timeout soon":           "timeout",
		"count --pd 127.0.0.1:1 --raw=x": "raw",
		"get a --timeout 0s":             "--timeout must be positive",
		"get a --pd 127.0.0.1":           "not host:port",
		"put a 1 -o json":                "unknown shorthand flag", // it prints nothing
	} {
		code, out, errOut := s.run(t, line)
		if code != exitUsage || out != "" || !strings.Contains(errOut, says) {
			t.Errorf("tikv %s: exit %d, %q, %q", line, code, out, errOut)
		}
	}
}

func TestTTLAndKeyspace(t *testing.T) {
	_, pd := startCluster(t, playground.WithAPIVersion(playground.APIV2), playground.WithKeyspaces("tenant"))
	s := session{pd: pd}
	for _, step := range []struct {
		line string
		code int
	}{
		{"put k v --api v2 --raw --ttl 1h", 0},
		{"put k v --api v2 --ttl 1h", exitUsage}, // transactional
		{"put k v --keyspace tenant", 0},
		{"put k v --keyspace nobody", exitUsage},
		{"put k v", exitUsage}, // of another API version
		{"scan", exitUsage},
		{"get k --raw", exitUsage},
		{"get k --url tikv://" + pd + "/tenant", 0},
	} {
		got, out, errOut := s.run(t, step.line)
		if got != step.code {
			t.Errorf("tikv %s: exit %d, %q %q", step.line, got, out, errOut)
		}
		if strings.Contains(errOut, "rejected") && !strings.Contains(errOut, "api v1;") {
			t.Errorf("tikv %s: does not say which API version was used: %q", step.line, errOut)
		}
	}
	if code, out, _ := s.run(t, "get k --api v2"); code != exitAbsent || out != "" {
		t.Errorf("keyspaces are not apart: %d %q", code, out)
	}
}

func TestDeleteRangeAsks(t *testing.T) {
	for _, space := range []string{"", " --raw"} {
		_, pd := startCluster(t)
		s := session{pd: pd}
		for _, key := range []string{"a1", "a2", "b1"} {
			if code, _, errOut := s.run(t, "put "+key+" v"+space); code != 0 {
				t.Fatal(errOut)
			}
		}
		for answer, want := range map[string]string{"": "3\n", "no\n": "3\n", "y\n": "3\n"} {
			s.in = answer
			code, _, errOut := s.run(t, "delete --prefix a"+space)
			if code != exitFailure || !strings.Contains(errOut, "deletes 2 keys, from a up to but not including b") || !strings.Contains(errOut, "Nothing was deleted") {
				t.Errorf("answer %q: exit %d, %q", answer, code, errOut)
			}
			if _, out, _ := s.run(t, "count"+space); out != want {
				t.Errorf("answer %q: %q keys are left", answer, out)
			}
		}
		s.in = "yes\n"
		if code, _, errOut := s.run(t, "delete --prefix a"+space); code != 0 {
			t.Error(errOut)
		}
		if _, out, _ := s.run(t, "scan --keys-only -o raw"+space); out != "b1\n" {
			t.Errorf("left: %q", out)
		}
		s.in = ""
		if code, _, errOut := s.run(t, "delete --from a --to c --yes"+space); code != 0 {
			t.Error(errOut)
		}
		if _, out, _ := s.run(t, "count"+space); out != "0\n" {
			t.Errorf("left: %q", out)
		}
	}
}

// The table flushes its columns in parts; nothing is lost between.
func TestLongScan(t *testing.T) {
	_, pd := startCluster(t)
	s := session{pd: pd}
	client, err := (&target{pd: pd, timeout: defaultTimeout}).open(t.Context(), stdio{})
	if err != nil {
		t.Fatal(err)
	}
	sp := spaceOf(client, true)
	for i := range 1000 {
		if err := sp.put(t.Context(), []byte{'k', byte('a' + i/100), byte('a' + i/10%10), byte('a' + i%10)}, []byte("v"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, out, _ := s.run(t, "scan --raw --prefix k"); strings.Count(out, "\n") != 1001 {
		t.Errorf("%d lines", strings.Count(out, "\n"))
	}
	if _, out, _ := s.run(t, "count --raw --prefix k"); out != "1000\n" {
		t.Errorf("count says %q", out)
	}
}

func TestUnavailable(t *testing.T) {
	s := session{pd: "127.0.0.1:1"}
	code, _, errOut := s.run(t, "get a --timeout 50ms")
	if code != exitUnavailable || !strings.Contains(errOut, "PD was asked at 127.0.0.1:1") {
		t.Errorf("exit %d, %q", code, errOut)
	}
}

func TestOutcomeUnknown(t *testing.T) {
	c, pd := startCluster(t)
	lost := c.Inject(playground.Fault{Method: "KvPrewrite", DropAnswer: true})
	for timeout := time.Second; lost.Hits() == 0; timeout *= 2 { // until it is enough to get there
		code, _, errOut := session{pd: pd}.run(t, "put a 1 --timeout "+timeout.String())
		if lost.Hits() > 0 && code != exitUnknown {
			t.Errorf("exit %d, %q", code, errOut)
		}
	}
}

// Ctrl-C ends a command wherever it is.
func TestInterrupt(t *testing.T) {
	c, pd := startCluster(t)
	for _, line := range []string{"get a", "put a 1", "scan", "count --raw", "delete a"} {
		ctx, cancel := context.WithCancel(t.Context())
		held := c.Inject(playground.Fault{Node: playground.Store(1), Hold: true})
		done := make(chan int)
		go func() {
			code, _, _ := session{pd: pd, ctx: ctx}.run(t, line)
			done <- code
		}()
		for held.Waiting() == 0 {
			select {
			case code := <-done:
				t.Fatalf("tikv %s ended by itself with %d", line, code)
			default:
				runtime.Gosched()
			}
		}
		cancel()
		if code := <-done; code == 0 {
			t.Errorf("tikv %s: exit 0 after an interrupt", line)
		}
		held.Remove()
	}
}

// A value that comes from standard input is waited for no longer than until Ctrl-C.
func TestInterruptOfInput(t *testing.T) {
	in, typing := io.Pipe()
	defer typing.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		var out bytes.Buffer
		done <- run(ctx, []string{"put", "a", "-"}, stdio{in, &out, &out, func(string) (string, bool) { return "", false }, 0})
	}()
	typing.Write([]byte("half")) // returns when it was read
	cancel()
	if code := <-done; code != exitFailure {
		t.Errorf("exit %d after an interrupt", code)
	}
}

// JSON holds text alone: bytes are not replaced in silence.
func TestJSONOfBytes(t *testing.T) {
	_, pd := startCluster(t)
	s := session{pd: pd}
	if code, _, errOut := s.run(t, `put k\xff <&>`); code != 0 {
		t.Fatal(errOut)
	}
	for _, line := range []string{"scan", "get k\xff"} {
		code, out, errOut := s.run(t, strings.Replace(line, `\xff`, "\xff", 1)+" -o json --format raw")
		if code != exitUsage || out != "" || !strings.Contains(errOut, "--format") {
			t.Errorf("tikv %s: exit %d, %q, %q", line, code, out, errOut)
		}
	}
	if code, out, _ := s.run(t, "scan -o json"); code != 0 || out != `{"key":"k\\xff","value":"<&>"}`+"\n" {
		t.Errorf("exit %d, %q", code, out)
	}
}

// Deleting a range never walks twice over what it deleted: a scan pays for it.
func TestDeleteRangeGoesForward(t *testing.T) {
	c, pd := startCluster(t)
	s := session{pd: pd}
	client, err := (&target{pd: pd, timeout: defaultTimeout}).open(t.Context(), stdio{})
	if err != nil {
		t.Fatal(err)
	}
	err = client.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error {
		for i := range 2*removePage + 10 {
			if err := tx.Put(fmt.Appendf(nil, "k%05d", i), []byte("v")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	first := c.Inject(playground.Fault{Method: "KvScan", Key: []byte("k00000")})
	code, _, errOut := s.run(t, "delete --from k00000 --to l --yes")
	if code != 0 || first.Hits() != 2 { // one to count, one to delete
		t.Errorf("exit %d, %d scans from the start; %s", code, first.Hits(), errOut)
	}
	if _, out, _ := s.run(t, "count"); out != "0\n" {
		t.Errorf("left: %q", out)
	}
}

// Nor does an interrupted command wait for a cluster that does not tell what became of it.
func TestInterruptLeavesLocks(t *testing.T) {
	c, pd := startCluster(t)
	prewrite := c.Inject(playground.Fault{Method: "KvPrewrite", Hold: true})
	c.Inject(playground.Fault{Method: "KvCheckTxnStatus", Hold: true})
	cmd := exec.Command(program, "put", "a", "1", "--pd", pd, patience)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for prewrite.Waiting() == 0 {
		runtime.Gosched()
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitUnknown || !strings.Contains(errOut.String(), "interrupt") || strings.Contains(errOut.String(), "abandoned") {
		t.Errorf("exit %d, %q", code, &errOut)
	}
}
