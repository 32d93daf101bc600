package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The rival's module cannot import this one, so it has a copy of the harness: the same.
func TestRivalHasTheSameHarness(t *testing.T) {
	const mine, theirs = "internal/harness", "rival/internal/harness"
	files := map[string][]byte{}
	for _, dir := range []string{mine, theirs} {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) == 0 {
			t.Fatal(dir, names, err)
		}
		for _, name := range names {
			if files[name], err = os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range files {
		dir, base := filepath.ToSlash(filepath.Dir(name)), filepath.Base(name)
		if strings.HasSuffix(base, "_test.go") {
			continue
		}
		other := filepath.Join(theirs, base)
		if dir == theirs {
			other = filepath.Join(mine, base)
		}
		switch {
		case bytes.Equal(text, files[other]):
		case *update && dir == mine:
			if err := os.WriteFile(other, text, 0o644); err != nil {
				t.Fatal(err)
			}
		case *update && files[other] == nil:
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		case !*update:
			t.Errorf("%s differs from %s: change %s, then go test ./bench -run Rival -update", name, other, mine)
		}
	}
}
