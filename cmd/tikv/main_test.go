package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// tool runs the program in this process.
func tool(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	noEnv := func(string) (string, bool) { return "", false }
	code = run(t.Context(), args, stdio{strings.NewReader(""), &o, &e, noEnv, 0})
	return code, o.String(), e.String()
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		code, out, errOut := tool(t, arg)
		if code != 0 || !strings.HasPrefix(out, "tikv ") || !strings.Contains(out, "\nkvproto ") || errOut != "" {
			t.Fatal(code, out, errOut)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"frobnicate"}, {"version", "now"}, {"--frob"}, {"version", "--frob"}} {
		code, out, errOut := tool(t, args...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errOut, "tikv: ") || !strings.Contains(errOut, "--help' for usage") {
			t.Errorf("%q: %d %q %q", args, code, out, errOut)
		}
	}
}

// noSpace is an output that takes n bytes.
type noSpace struct{ n int }

var errNoSpace = errors.New("no space left")

func (w *noSpace) Write(b []byte) (int, error) {
	if w.n -= len(b); w.n < 0 {
		return 0, errNoSpace
	}
	return len(b), nil
}

// What cannot be printed is a failure.
func TestOutputFails(t *testing.T) {
	_, pd := startCluster(t)
	if code, _, errOut := tool(t, "put", "a", "1", "--pd", pd, patience); code != 0 {
		t.Fatal(errOut)
	}
	for _, line := range []string{"demo", "version", "get a", "get a -o raw", "get a -o json", "scan", "scan -o json", "scan -o raw", "count", "count -o json"} {
		var e bytes.Buffer
		args := strings.Fields(line)
		if len(args) > 0 && args[0] != "demo" && args[0] != "version" {
			args = append(args, "--pd", pd, patience)
		}
		code := run(t.Context(), args, stdio{strings.NewReader(""), new(noSpace), &e, func(string) (string, bool) { return "", false }, 0})
		if code != exitFailure || !strings.Contains(e.String(), "no space left") {
			t.Errorf("tikv %s: exit %d, %q", line, code, &e)
		}
	}
}
