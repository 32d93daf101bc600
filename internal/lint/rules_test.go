package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Goroutines start in internal/task alone, so that each has an owner that waits.
func TestGoroutinesHaveAnOwner(t *testing.T) {
	for _, p := range packages(t) {
		if p.rel == "internal/task" || p.tool() {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: go statement outside internal/task", at(n.Pos()))
				case *ast.CompositeLit:
					if f.selects(n.Type, "sync", "WaitGroup") {
						t.Errorf("%s: sync.WaitGroup: use task", at(n.Pos()))
					}
				case *ast.Field:
					if f.selects(n.Type, "sync", "WaitGroup") {
						t.Errorf("%s: sync.WaitGroup: use task", at(n.Pos()))
					}
				case *ast.ValueSpec:
					if f.selects(n.Type, "sync", "WaitGroup") {
						t.Errorf("%s: sync.WaitGroup: use task", at(n.Pos()))
					}
				}
				return true
			})
		}
	}
}

// Nothing sleeps; what waits does so on a timer that its context can end.
func TestNothingSleeps(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range append(slices.Clone(p.files), p.tests...) {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok && f.selects(e, "time", "Sleep") {
					t.Errorf("%s: time.Sleep", at(n.Pos()))
				}
				return true
			})
		}
	}
}

// Commands report errors; they do not panic. (The library's own rule, no panic that
// input can reach, is for reviewers: an invariant may panic.)
func TestCommandsDoNotPanic(t *testing.T) {
	for _, p := range packages(t) {
		if !p.tool() {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
						t.Errorf("%s: panic", at(n.Pos()))
					}
				}
				return true
			})
		}
	}
}

// A context comes from the caller. Roots are made by task.Root, in Open and Close.
func TestContextsComeFromTheCaller(t *testing.T) {
	for _, p := range packages(t) {
		if p.rel == "internal/task" || p.tool() {
			continue
		}
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && (strings.HasPrefix(fn.Name.Name, "Open") || fn.Name.Name == "Close") {
					continue
				}
				ast.Inspect(decl, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok && f.selects(call.Fun, module+"/internal/task", "Root") {
						return false // the owner of what the group runs
					}
					for _, name := range []string{"Background", "TODO", "WithoutCancel"} {
						if e, ok := n.(ast.Expr); ok && f.selects(e, "context", name) {
							t.Errorf("%s: context.%s", at(n.Pos()), name)
						}
					}
					return true
				})
			}
		}
	}
}

// Package-level variables hold no state: sentinels, interface assertions, tables that
// nothing writes, embeds, pools of byte buffers.
func TestNoPackageState(t *testing.T) {
	for _, p := range packages(t) {
		if p.tool() || p.rel == "internal/lint" {
			continue
		}
		assigned := assignments(p)
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						t.Errorf("%s: init function", at(d.Pos()))
					}
				case *ast.GenDecl:
					if d.Tok == token.VAR {
						checkVars(t, f, d, assigned)
					}
				}
			}
		}
	}
}

func checkVars(t *testing.T, f file, d *ast.GenDecl, assigned map[string]bool) {
	embed := d.Doc != nil && strings.Contains(docText(d.Doc), "//go:embed")
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		for i, name := range v.Names {
			switch {
			case name.Name == "_", embed:
			case assigned[name.Name]:
				t.Errorf("%s: package-level variable %s is written to", at(name.Pos()), name.Name)
			case i >= len(v.Values):
				if !f.selects(v.Type, "sync", "Pool") {
					t.Errorf("%s: package-level variable %s has no value: state?", at(name.Pos()), name.Name)
				}
			case !constant(f, v.Values[i]):
				t.Errorf("%s: package-level variable %s is neither sentinel nor constant table", at(name.Pos()), name.Name)
			}
		}
	}
}

// constant reports whether e is a sentinel error or made of literals alone.
func constant(f file, e ast.Expr) bool {
	ok := true
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit: // an entry of a table
			return false
		case *ast.CompositeLit:
			for _, state := range []string{"Mutex", "RWMutex", "Once", "Cond", "Map"} {
				ok = ok && !f.selects(n.Type, "sync", state)
			}
		case *ast.UnaryExpr:
			ok = ok && n.Op != token.ARROW
		case *ast.CallExpr:
			pure := f.selects(n.Fun, "errors", "New") || f.selects(n.Fun, "reflect", "TypeFor") || f.selects(n.Fun, "crc64", "MakeTable") ||
				f.selects(n.Fun, "hash/crc64", "MakeTable") || f.selects(n.Fun, "fmt", "Errorf") ||
				f.selects(n.Fun, "bytes", "Repeat")
			switch fun := n.Fun.(type) {
			case *ast.Ident: // a conversion, new(T), or a table's own constructor
				pure = pure || fun.Name != "make"
			case *ast.ArrayType, *ast.ParenExpr, *ast.IndexExpr, *ast.IndexListExpr:
				pure = true
			case *ast.SelectorExpr: // time.Duration(…): a conversion to a named type
				x, isID := fun.X.(*ast.Ident)
				pure = pure || isID && f.imports[x.Name] == "time" && fun.Sel.Name == "Duration"
			}
			ok = ok && pure
		}
		return ok
	})
	return ok
}

// assignments are the identifiers that some function of p assigns to, takes the
// address of, or changes through an index. Local names that hide a package-level one
// count too: they should be renamed.
func assignments(p *pkg) map[string]bool {
	set := make(map[string]bool)
	add := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.Ident:
				set[x.Name] = true
			}
			return
		}
	}
	for _, f := range p.files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok == token.ASSIGN {
					for _, lhs := range n.Lhs {
						add(lhs)
					}
				}
			case *ast.IncDecStmt:
				add(n.X)
			}
			return true
		})
	}
	return set
}

func docText(c *ast.CommentGroup) string {
	var b strings.Builder
	for _, line := range c.List {
		b.WriteString(line.Text)
		b.WriteByte('\n')
	}
	return b.String()
}

// Every package looks for leaked goroutines when its tests end.
func TestPackagesCheckForLeaks(t *testing.T) {
	for _, p := range packages(t) {
		found := false
		for _, f := range p.tests {
			for _, decl := range f.ast.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || !strings.EqualFold(fn.Name.Name, "TestMain") {
					continue
				}
				ast.Inspect(fn, func(n ast.Node) bool {
					if e, ok := n.(ast.Expr); ok && (f.selects(e, "go.uber.org/goleak", "VerifyTestMain") || f.selects(e, "go.uber.org/goleak", "Find")) {
						found = true
					}
					return true
				})
			}
		}
		if !found {
			t.Errorf("package %s has no TestMain that looks for leaked goroutines", p.rel)
		}
	}
}
