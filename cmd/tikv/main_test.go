package main

import (
	"bytes"
	"strings"
	"testing"
)

// tool runs the program in this process.
func tool(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	noEnv := func(string) (string, bool) { return "", false }
	code = run(t.Context(), args, stdio{strings.NewReader(""), &o, &e, noEnv})
	return code, o.String(), e.String()
}

func TestVersion(t *testing.T) {
	code, out, errOut := tool(t, "version")
	if code != 0 || !strings.HasPrefix(out, "tikv ") || !strings.Contains(out, "\nkvproto ") || errOut != "" {
		t.Fatal(code, out, errOut)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"frobnicate"}, {"version", "now"}, {"--frob"}, {"version", "--frob"}} {
		code, out, errOut := tool(t, args...)
		if code != exitUsage || out != "" || !strings.HasPrefix(errOut, "tikv: ") {
			t.Errorf("%q: %d %q %q", args, code, out, errOut)
		}
	}
}
