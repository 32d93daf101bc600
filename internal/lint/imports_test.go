package lint

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What a package may import besides std: layers and rows of the table in DESIGN.md.
// An entry that ends in "/" stands for the packages of a module or folder.
const (
	kvproto = "github.com/pingcap/kvproto/"
	grpc    = "google.golang.org/grpc/"
	pb      = "google.golang.org/protobuf/"
)

var (
	layer0 = []string{"internal/task", "internal/backoff", "internal/keys", "internal/invariants"}
	layer1 = with(layer0, "internal/codec", "internal/wire", kvproto)
	layer2 = with(layer1, "internal/transport", grpc, pb)
	layer3 = with(layer2, "internal/pd")
	layer4 = with(layer3, "internal/region")
	layer5 = with(layer4, "internal/router")
	layer6 = with(layer5, "internal/lock", "internal/membuf")
	layer7 = with(layer6, "internal/txn", "internal/raw", "internal/admin", "internal/gc", "internal/watch")
)

var allowed = map[string][]string{
	"internal/task": {}, "internal/backoff": {}, "internal/keys": {}, "internal/invariants": {}, "internal/lint": {},
	"internal/codec":     {"internal/keys", kvproto},
	"internal/wire":      {kvproto, grpc, pb},
	"internal/transport": with(layer1, grpc, pb),
	"internal/pd":        layer2,

	"internal/transport/transporttest": with(layer1, "internal/transport"),

	"internal/region": with(layer1),
	"internal/router": layer4,
	"internal/lock":   layer5,
	"internal/membuf": layer0,
	"internal/txn":    layer6,
	"internal/raw":    layer5,
	".":               layer7,
	"playground":      with(layer0, "playground/", kvproto, grpc, pb, "github.com/tidwall/btree", "go.etcd.io/bbolt"),
	"playground/":     with(layer0, "playground/", kvproto, grpc, pb, "github.com/tidwall/btree", "go.etcd.io/bbolt"),
	"tikvtest":        {".", "playground", "internal/task"},
	"cmd/":            nil, // any package but the engine's: checked below
	"internal/cmd/":   nil,

	"bench":                    nil, // and its own packages
	"bench/internal/harness":   {},  // it has a copy in a module of its own
	"bench/internal/nullstore": {"bench/internal/harness", "internal/keys", kvproto, grpc, pb},
}

func with(base []string, more ...string) []string { return append(slices.Clone(base), more...) }

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		rule, ok := ruleOf(p.rel)
		if !ok {
			t.Errorf("package %s has no row in the table of imports", p.rel)
			continue
		}
		for _, imp := range p.Imports {
			if !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				continue // std
			}
			name := imp
			if imp == module {
				name = "."
			} else if rest, ok := strings.CutPrefix(imp, module+"/"); ok {
				name = rest
			}
			if rule == nil {
				if strings.HasPrefix(name, p.rel+"/internal/") {
					continue
				}
				if strings.HasPrefix(name, "internal/") || strings.Contains(name, "/internal/") && strings.HasPrefix(imp, module) {
					t.Errorf("%s imports %s: a command uses public packages only", p.rel, name)
				}
			} else if !permits(rule, name) {
				t.Errorf("%s may not import %s", p.rel, name)
			}
		}
	}
}

func ruleOf(rel string) ([]string, bool) {
	if rule, ok := allowed[rel]; ok {
		return rule, true
	}
	for name, rule := range allowed {
		if strings.HasSuffix(name, "/") && strings.HasPrefix(rel, name) {
			return rule, true
		}
	}
	return nil, false
}

func permits(rule []string, name string) bool {
	return slices.ContainsFunc(rule, func(r string) bool {
		return name == r || strings.HasSuffix(r, "/") && (strings.HasPrefix(name, r) || name == strings.TrimSuffix(r, "/"))
	})
}

// The module file is pinned: an upgrade of any of these is a decision, not an accident.
func TestModuleFile(t *testing.T) {
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for _, want := range []string{
		"module " + module,
		"go 1.25.0",
		"\tgithub.com/pingcap/kvproto v0.0.0-20260724054804-059694ae4472",
		"\tgoogle.golang.org/grpc v1.84.0",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("go.mod lacks the line %q", want)
		}
	}
	for _, line := range lines {
		if word, _, _ := strings.Cut(line, " "); word == "tool" || word == "replace" || word == "toolchain" {
			t.Errorf("go.mod has a %s directive", word)
		}
	}
}
