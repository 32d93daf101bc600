package playground

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryFaultIsListed compares the table of docs/playground.md with what can be done
// to a cluster: every field of Fault and of StoreState, every method that changes the
// cluster, every verb of the control address; and with the tests that there are.
func TestEveryFaultIsListed(t *testing.T) {
	rows := readFaults(t)
	var inGo, verbs, tests []string
	for _, r := range rows {
		inGo = append(inGo, quoted(r[1])...)
		verbs = append(verbs, quoted(r[2])...)
		named := strings.FieldsFunc(r[3], func(c rune) bool { return c == ',' || c == ' ' })
		if len(named) == 0 {
			t.Errorf("%s: shown by no test", r[0])
		}
		tests = append(tests, named...)
	}
	want := func(list []string, what, name string) {
		if !slices.Contains(list, name) {
			t.Errorf("%s %s is not listed", what, name)
		}
	}
	for _, of := range []reflect.Type{reflect.TypeFor[Fault](), reflect.TypeFor[StoreState]()} {
		for i := range of.NumField() {
			want(inGo, of.Name(), of.Field(i).Name)
		}
	}
	shows := []string{ // and ways to reach the cluster
		"APIVersion", "ClientTLS", "Close", "ControlHandler", "Counts", "DialContext", "ID", "Locks", "Now", "PD", "Regions",
		"Trace", "Txns", "Versions", "Waiting",
	}
	cluster := reflect.TypeFor[*Cluster]()
	for i := range cluster.NumMethod() {
		if name := cluster.Method(i).Name; !slices.Contains(shows, name) {
			want(inGo, "Cluster", name)
		}
	}
	c := start(t)
	for verb := range c.verbs(nil) {
		want(verbs, "the verb", verb)
	}
	known := testNames(t)
	for _, name := range tests {
		if !known[name] {
			t.Errorf("there is no %s", name)
		}
	}
}

// readFaults reads the table's rows: what, in Go, over HTTP, shown by.
func readFaults(t *testing.T) (rows [][]string) {
	page, err := os.ReadFile("../docs/playground.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| fault | in Go |")
	if !found {
		t.Fatal("docs/playground.md has no table of faults")
	}
	for i, line := range strings.Split(table, "\n") {
		if i < 2 {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 4 {
			return rows
		}
		rows = append(rows, cells)
	}
	return rows
}

// quoted are the names in backquotes.
func quoted(cell string) (names []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		names = append(names, m[1])
	}
	return names
}

// TestSeededBugsAreListed compares docs/testing.md with the patches of .ci/seeded-bugs.
func TestSeededBugsAreListed(t *testing.T) {
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	patches, err := filepath.Glob("testdata/bugs/*.patch")
	if err != nil || len(patches) < 20 {
		t.Fatal(len(patches), err)
	}
	for _, path := range patches {
		patch, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bug, _, _ := strings.Cut(strings.TrimPrefix(string(patch), "bug: "), "\n")
		row := "| " + strings.TrimSuffix(filepath.Base(path), ".patch") + ": " + bug + " |"
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/testing.md lacks %q", row)
		}
	}
	if listed := strings.Count(string(page), "` | `Test"); listed != len(patches) {
		t.Errorf("docs/testing.md lists %d bugs, there are %d", listed, len(patches))
	}
}
