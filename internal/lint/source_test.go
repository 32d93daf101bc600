package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const module = "github.com/tikv-go/tikv"

// pkg is a package of this module, its files parsed.
type pkg struct {
	Dir, ImportPath           string
	GoFiles, IgnoredGoFiles   []string
	TestGoFiles, XTestGoFiles []string
	Imports                   []string
	files, tests              []file
	rel                       string // import path below the module, "." for the root
}

type file struct {
	name string // below the module's folder
	ast  *ast.File
	// imports maps the name a package goes by in the file to its path.
	imports map[string]string
}

var fset = token.NewFileSet()

// load lists and parses the module once for all rules.
var load = sync.OnceValues(func() ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.Bytes())
	}
	var pkgs []*pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		p.rel = "."
		if p.ImportPath != module {
			p.rel = strings.TrimPrefix(p.ImportPath, module+"/")
		}
		if p.files, err = parse(p, p.GoFiles, p.IgnoredGoFiles); err != nil {
			return nil, err
		}
		if p.tests, err = parse(p, p.TestGoFiles, p.XTestGoFiles); err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
})

func parse(p *pkg, lists ...[]string) ([]file, error) {
	var files []file
	for _, list := range lists {
		for _, name := range list {
			if strings.HasSuffix(name, "_test.go") != strings.HasSuffix(list[0], "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			files = append(files, file{filepath.Join(p.rel, name), f, importsOf(f)})
		}
	}
	return files, nil
}

func importsOf(f *ast.File) map[string]string {
	m := make(map[string]string)
	for _, spec := range f.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name := path[strings.LastIndexByte(path, '/')+1:]
		if strings.HasPrefix(name, "v") && strings.Contains(path, "/") {
			if _, err := strconv.Atoi(name[1:]); err == nil { // math/rand/v2
				name = filepath.Base(filepath.Dir(path))
			}
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		m[name] = path
	}
	return m
}

// packages returns the module's packages, failing the test where they do not load.
func packages(t *testing.T) []*pkg {
	t.Helper()
	pkgs, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 4 {
		t.Fatalf("go list found %d packages", len(pkgs))
	}
	return pkgs
}

// tool reports whether p is a command or benchmark: outside of most rules.
func (p *pkg) tool() bool {
	return strings.HasPrefix(p.rel, "cmd/") || p.rel == "bench" || strings.HasPrefix(p.rel, "bench/") || strings.HasPrefix(p.rel, "internal/cmd/")
}

// at names a position for an error.
func at(pos token.Pos) string {
	p := fset.Position(pos)
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// selects reports whether e is path.name in f, for example ("time", "Sleep").
func (f file) selects(e ast.Expr, path, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && f.imports[x.Name] == path
}
