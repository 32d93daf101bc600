package lint

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a program that opens, gets and commits may link beyond one that links gRPC and
// the two services alone.
const (
	morePackages = 25
	moreBytes    = 2 << 20
)

var linkable = []string{
	module, "google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto",
	"golang.org/x/", "github.com/gogo/protobuf", "github.com/golang/protobuf", "github.com/pingcap/kvproto",
}

func TestLinkedPackages(t *testing.T) {
	bare, hello := measure(t, "bare"), measure(t, "hello")
	t.Logf("bare: %d packages beside std, %.1f MB stripped", len(bare.packages), float64(bare.size)/1e6)
	t.Logf("hello (open, get, commit): %d packages beside std, %.1f MB stripped", len(hello.packages), float64(hello.size)/1e6)
	if n := len(hello.packages) - len(bare.packages); n > morePackages {
		t.Errorf("hello links %d packages more than bare; %d are allowed", n, morePackages)
	}
	if n := hello.size - bare.size; n > moreBytes {
		t.Errorf("hello is %d bytes larger than bare; %d are allowed", n, moreBytes)
	}
	for pkg, mod := range hello.packages {
		allowed := false
		for _, m := range linkable {
			allowed = allowed || mod == m || strings.HasSuffix(m, "/") && strings.HasPrefix(mod, m) || strings.HasPrefix(mod, m+"/")
		}
		if !allowed {
			t.Errorf("hello links %s of module %s", pkg, mod)
		}
	}
}

type linked struct {
	packages map[string]string // path to module
	size     int64
}

func measure(t *testing.T, name string) linked {
	t.Helper()
	dir := "./testdata/" + name
	l := linked{packages: make(map[string]string)}
	for line := range strings.Lines(run(t, "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{.Module.Path}}{{end}}", dir)) {
		if pkg, mod, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			l.packages[pkg] = mod
		}
	}
	bin := filepath.Join(t.TempDir(), name)
	run(t, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", bin, dir)
	info, err := os.Stat(bin)
	if err != nil {
		t.Fatal(err)
	}
	l.size = info.Size()
	return l
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}
