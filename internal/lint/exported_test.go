package lint

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Every exported name says what it is, in a comment that begins with its name (a
// group of constants or variables may have one comment for all).
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if p.tool() {
			continue
		}
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					if exportedFunc(d) && d.Doc == nil && !obvious(d) {
						t.Errorf("%s: %s is not documented", at(d.Pos()), d.Name.Name)
					}
				case *ast.GenDecl:
					checkDocs(t, d)
				}
			}
		}
	}
}

func checkDocs(t *testing.T, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				t.Errorf("%s: type %s is not documented", at(s.Pos()), s.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil && !enumMember(d, s) {
					t.Errorf("%s: %s is not documented", at(name.Pos()), name.Name)
				}
			}
		}
	}
}

// enumMember reports whether s belongs to a group of typed constants: the type's
// comment speaks for them.
func enumMember(d *ast.GenDecl, s *ast.ValueSpec) bool {
	if d.Tok != token.CONST {
		return false
	}
	for _, spec := range d.Specs {
		if spec.(*ast.ValueSpec).Type != nil {
			return true
		}
	}
	return false
}

// obvious are methods of well-known interfaces.
func obvious(d *ast.FuncDecl) bool {
	switch d.Name.Name {
	case "Error", "Is", "Unwrap", "String", "GoString":
		return d.Recv != nil
	}
	return false
}

func exportedFunc(d *ast.FuncDecl) bool {
	if !d.Name.IsExported() {
		return false
	}
	return d.Recv == nil || token.IsExported(receiver(d))
}

// receiver names the type that a method belongs to.
func receiver(d *ast.FuncDecl) string {
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// The public packages show no type of an internal one.
func TestNoInternalTypesInPublicSignatures(t *testing.T) {
	for _, p := range packages(t) {
		if p.rel != "." && p.rel != "playground" && p.rel != "tikvtest" {
			continue
		}
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				switch d := decl.(type) {
				case *ast.FuncDecl:
					if exportedFunc(d) {
						noInternal(t, f, d.Name.Name, d.Type)
					}
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						publicSpec(t, f, spec)
					}
				}
			}
		}
	}
}

func publicSpec(t *testing.T, f file, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		if s.Type != nil && s.Names[0].IsExported() {
			noInternal(t, f, s.Names[0].Name, s.Type)
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		st, ok := s.Type.(*ast.StructType)
		if !ok {
			if it, ok := s.Type.(*ast.InterfaceType); ok {
				for _, m := range it.Methods.List {
					if len(m.Names) == 0 || m.Names[0].IsExported() {
						noInternal(t, f, s.Name.Name, m.Type)
					}
				}
				return
			}
			noInternal(t, f, s.Name.Name, s.Type)
			return
		}
		for _, field := range st.Fields.List {
			if len(field.Names) == 0 || field.Names[0].IsExported() {
				noInternal(t, f, s.Name.Name, field.Type)
			}
		}
	}
}

func noInternal(t *testing.T, f file, name string, n ast.Node) {
	ast.Inspect(n, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && strings.Contains(f.imports[x.Name], "/internal/") {
				t.Errorf("%s: %s shows the internal type %s.%s", at(n.Pos()), name, x.Name, sel.Sel.Name)
			}
		}
		return true
	})
}

// What can wait takes a context, and takes it first. A method without one may not call
// anything, in its package, that is given a context. Close is the exception.
func TestContextComesFirst(t *testing.T) {
	for _, p := range packages(t) {
		if p.tool() {
			continue
		}
		waits := waiting(p)
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || !exportedFunc(fn) {
					continue
				}
				index := contextParam(f, fn.Type)
				if index > 0 {
					t.Errorf("%s: %s takes its context after other arguments", at(fn.Pos()), fn.Name.Name)
				}
				if p.rel == "." && index < 0 && fn.Name.Name != "Close" && fn.Body != nil && callsWaiting(fn.Body, waits) {
					t.Errorf("%s: %s can wait but takes no context", at(fn.Pos()), fn.Name.Name)
				}
			}
		}
	}
}

// contextParam is the index of the parameter of type context.Context, or -1.
func contextParam(f file, ft *ast.FuncType) int {
	i := 0
	for _, field := range ft.Params.List {
		if f.selects(field.Type, "context", "Context") {
			return i
		}
		i += max(1, len(field.Names))
	}
	return -1
}

// waiting names the functions and methods of p that take a context.
func waiting(p *pkg) map[string]bool {
	set := make(map[string]bool)
	for _, f := range p.files {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && contextParam(f, fn.Type) == 0 && !strings.HasPrefix(fn.Name.Name, "Test") {
				set[fn.Name.Name] = true
			}
		}
	}
	return set
}

// callsWaiting reports whether body, function literals apart (they run later, under
// the context they are given), calls one of the functions in set with a context.
func callsWaiting(body *ast.BlockStmt, set map[string]bool) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		if _, ok := n.(*ast.FuncLit); ok {
			return false
		}
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		name := ""
		switch fun := call.Fun.(type) {
		case *ast.Ident:
			name = fun.Name
		case *ast.SelectorExpr:
			name = fun.Sel.Name
		}
		if set[name] && looksLikeContext(call.Args[0]) {
			found = true
		}
		return true
	})
	return found
}

func looksLikeContext(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name == "ctx"
	case *ast.SelectorExpr:
		return x.Sel.Name == "ctx"
	case *ast.CallExpr:
		sel, ok := x.Fun.(*ast.SelectorExpr)
		return ok && (sel.Sel.Name == "Context" || sel.Sel.Name == "Background")
	}
	return false
}
