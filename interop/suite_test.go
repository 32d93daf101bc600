package interop

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv"
)

// area is one thing that the official client is asked to do, on one cluster.
type area struct {
	name  string
	args  []string // the playground's
	txn   []txnkv.ClientOpt
	raw   []rawkv.ClientOpt
	setup func(*env)
	cases []kase
}

// kase is one question with one answer. Its keys have a prefix of their own, so that the
// cases of an area do not see each other's; what changes more than its own keys is alone
// on its cluster.
type kase struct {
	name  string
	run   func(*env)
	alone bool
}

// areas is the suite. docs/interop.md lists it, and what the version of the official
// client that the module requires cannot be asked.
func areas() []area {
	var all []area
	for _, some := range [][]area{
		rawAreas(), txnAreas(), {readArea()}, {replicaArea()}, pessimisticAreas(), {asyncArea()}, {pipelinedArea()},
		deadAreas(), {gcArea()}, {regionArea()}, {errorArea()}, {churnArea()}, {pdArea()}, {keyspaceArea()},
		{feedArea(), feedKeyspaceArea()}, copAreas(), {bucketArea()}, memberAreas(),
		{flashbackArea()}, {sharedArea()}, {busyArea()}, {forwardArea()},
	} {
		all = append(all, some...)
	}
	return all
}

// TestOfficial runs the suite.
func TestOfficial(t *testing.T) {
	for _, a := range areas() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.run(t)
		})
	}
}

func (a area) run(t *testing.T) {
	shared := a.start(t)
	for i, c := range a.cases {
		t.Run(c.name, func(t *testing.T) {
			e := shared
			if c.alone {
				e = a.start(t)
			}
			c.run(e.with(t, casePrefix(i)))
		})
	}
}

func casePrefix(i int) string { return fmt.Sprintf("%03d/", i) }

// TestSuite counts the cases: the suite has at least 150, each once, and
// docs/interop.md has the numbers.
func TestSuite(t *testing.T) {
	const least = 150
	page, err := os.ReadFile("../docs/interop.md")
	must(t, err)
	total, seen := 0, make(map[string]bool)
	for _, a := range areas() {
		for _, c := range a.cases {
			if name := a.name + "/" + c.name; seen[name] {
				t.Errorf("%s is there twice", name)
			} else {
				seen[name] = true
			}
		}
		t.Logf("%4d  %s", len(a.cases), a.name)
		if row := fmt.Sprintf("| %s | %d |", a.name, len(a.cases)); !strings.Contains(string(page), row) {
			t.Errorf("docs/interop.md lacks %q", row)
		}
		total += len(a.cases)
	}
	t.Logf("%4d  in all", total)
	if total < least {
		t.Errorf("%d cases, want %d", total, least)
	}
	if row := fmt.Sprintf("%d cases", total); !strings.Contains(string(page), row) {
		t.Errorf("docs/interop.md lacks %q", row)
	}
}
