package lint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// docs/parity.tsv has a row for every exported symbol of client-go, and nothing else:
// so many, and these.
const (
	paritySymbols = 2082
	parityKeys    = "20c911190459614244f2de15efc2419998ede87127011d52872fef481becb1b7"
)

// maxShared is how many rows may give the same reason, unless it is one of those that
// are about a whole kind of symbols.
const maxShared = 30

var manyShare = []string{"internal helper:", "metrics:", "TiDB:"}

// parityRow is a symbol of client-go, and what became of it.
type parityRow struct {
	line                     int
	pkg, symbol, disposition string
	ours, tests              []string
}

// What docs/parity.tsv says of us is there: each of our names exists, and the tests that
// a row gives exist and come by it.
func TestParity(t *testing.T) {
	rows := parityRows(t)
	names := publicNames(t)
	tests := testReach{}
	shared, kinds := make(map[string]int), make(map[string]int)
	for _, r := range rows {
		kind, reason, explained := strings.Cut(r.disposition, ": ")
		kinds[kind]++
		switch kind {
		case "same", "better":
			if explained || len(r.ours) == 0 || len(r.tests) == 0 {
				t.Errorf("line %d: %s needs our name and its test, and no reason", r.line, kind)
			}
		case "not needed", "later":
			if shared[r.disposition]++; reason == "" || len(r.tests) > 0 {
				t.Errorf("line %d: %s needs a reason, and has no test", r.line, kind)
			}
		default:
			t.Errorf("line %d: the disposition %q is none", r.line, r.disposition)
		}
		for _, name := range r.ours {
			if !names.has(name) {
				t.Errorf("line %d: there is no %s", r.line, name)
			}
		}
		tests.check(t, r, names)
	}
	for reason, n := range shared {
		_, why, _ := strings.Cut(reason, ": ")
		if n > maxShared && !slices.ContainsFunc(manyShare, func(kind string) bool { return strings.HasPrefix(why, kind) }) {
			t.Errorf("%d rows say %q", n, reason)
		}
	}
	checkLater(t, shared)
	t.Logf("%d symbols of client-go: %d the same, %d better, %d not needed, %d later", len(rows), kinds["same"], kinds["better"], kinds["not needed"], kinds["later"])
}

// checkLater compares what is later with docs/parity.md, which lists it with numbers.
func checkLater(t *testing.T, shared map[string]int) {
	t.Helper()
	page, err := os.ReadFile("../../docs/parity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, listed, _ := strings.Cut(string(page), "| what | symbols | today |\n|---|---|---|\n")
	rows := 0
	for reason, n := range shared {
		if what, ok := strings.CutPrefix(reason, "later: "); ok {
			if rows++; !strings.Contains("\n"+listed, fmt.Sprintf("\n| %s | %d | ", what, n)) {
				t.Errorf("docs/parity.md does not say that %q is later, %d symbols", what, n)
			}
		}
	}
	if n := strings.Count(listed, "\n"); n != rows {
		t.Errorf("docs/parity.md has %d things that are later, the table %d", n, rows)
	}
}

// parityRows reads the table, whose rows are in the order of their symbols.
func parityRows(t *testing.T) []parityRow {
	t.Helper()
	data, err := os.ReadFile("../../docs/parity.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if lines[0] != "package\tsymbol\tdisposition\tours\ttest" {
		t.Fatalf("the columns are %q", lines[0])
	}
	var rows []parityRow
	keys := sha256.New()
	last := ""
	for i, line := range lines[1:] {
		cols := strings.Split(line, "\t")
		if len(cols) != 5 {
			t.Fatalf("line %d has %d columns", i+2, len(cols))
		}
		key := cols[0] + "\t" + cols[1] + "\n"
		if key <= last {
			t.Errorf("line %d: %s.%s stands twice, or not in its place", i+2, cols[0], cols[1])
		}
		last = key
		keys.Write([]byte(key))
		rows = append(rows, parityRow{i + 2, cols[0], cols[1], cols[2], list(cols[3]), list(cols[4])})
	}
	if sum := hex.EncodeToString(keys.Sum(nil)); len(rows) != paritySymbols || sum != parityKeys {
		t.Errorf("the table has %d symbols, %s, not the %d of client-go", len(rows), sum, paritySymbols)
	}
	return rows
}

func list(col string) []string {
	if col == "" {
		return nil
	}
	return strings.Split(col, ", ")
}

// exported is what the public packages export: "Txn", with its members; "Txn.Get" has
// none. Names outside of the root begin with their package.
type exported map[string]map[string]bool

func (e exported) has(name string) bool {
	of, member := splitName(name)
	members, ok := e[of]
	return ok && (member == "" || members[member])
}

// splitName cuts "playground.Cluster.Split" into "playground.Cluster" and "Split".
func splitName(name string) (of, member string) {
	at := strings.LastIndexByte(name, '.')
	if at < 0 || strings.Count(name, ".") == 1 && name[0] >= 'a' {
		return name, ""
	}
	return name[:at], name[at+1:]
}

// publicNames reads what the public packages export.
func publicNames(t *testing.T) exported {
	names := make(exported)
	for _, p := range packages(t) {
		prefix := p.rel + "."
		switch p.rel {
		case ".":
			prefix = ""
		case "playground", "tikvtest":
		default:
			continue
		}
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				names.add(prefix, decl)
			}
		}
	}
	return names
}

func (e exported) add(prefix string, decl ast.Decl) {
	member := func(of, name string) {
		if e[prefix+of] == nil {
			e[prefix+of] = make(map[string]bool)
		}
		if ast.IsExported(name) {
			e[prefix+of][name] = true
		}
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		switch {
		case exportedFunc(d) && d.Recv != nil:
			member(receiver(d), d.Name.Name)
		case exportedFunc(d):
			member(d.Name.Name, "")
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() {
						member(name.Name, "")
					}
				}
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					member(s.Name.Name, "")
					for _, name := range membersOf(s.Type) {
						member(s.Name.Name, name)
					}
				}
			}
		}
	}
}

// membersOf is the fields of a struct, or the methods of an interface.
func membersOf(e ast.Expr) (names []string) {
	var fields *ast.FieldList
	switch x := e.(type) {
	case *ast.StructType:
		fields = x.Fields
	case *ast.InterfaceType:
		fields = x.Methods
	default:
		return nil
	}
	for _, f := range fields.List {
		for _, name := range f.Names {
			names = append(names, name.Name)
		}
	}
	return names
}

// anyones are members that say nothing about their type.
var anyones = []string{"Error", "Is", "Unwrap", "String", "Key", "Value", "Op", "Err"}

// testReach is, of each folder, what its tests are written with.
type testReach map[string]map[string]testDecl

// testDecl is a function, method (".name"), type or variable of a folder's tests: the names
// in it, and which of the folder's other declarations those may be.
type testDecl struct{ words, calls map[string]bool }

// check finds a row's tests, "TestTxn" or "playground:TestTxn", and our names in them and
// in what they call. A type may be met by one of its members.
func (tr testReach) check(t *testing.T, r parityRow, names exported) {
	t.Helper()
	words := make(map[string]bool)
	for _, test := range r.tests {
		dir, name, ok := strings.Cut(test, ":")
		if !ok {
			dir, name = ".", test
		}
		if !tr.collect(t, dir, name, words) {
			t.Errorf("line %d: there is no test %s", r.line, test)
			return
		}
	}
	for _, name := range r.ours {
		if len(r.tests) == 0 {
			return
		}
		of, member := splitName(name)
		met := words[of[strings.LastIndexByte(of, '.')+1:]]
		if member != "" {
			met = words[member]
		} else {
			for m := range names[of] {
				met = met || words[m] && !slices.Contains(anyones, m)
			}
		}
		if !met {
			t.Errorf("line %d: %s do not come by %s", r.line, strings.Join(r.tests, ", "), name)
		}
	}
}

// collect adds the words of a test, and reports whether there is one of that name.
func (tr testReach) collect(t *testing.T, dir, name string, words map[string]bool) bool {
	t.Helper()
	if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Example") && !strings.HasPrefix(name, "Fuzz") {
		return false
	}
	decls, ok := tr[dir]
	if !ok {
		decls = testDecls(t, dir)
		tr[dir] = decls
	}
	if _, ok := decls[name]; !ok {
		return false
	}
	seen := map[string]bool{name: true}
	for todo := []string{name}; len(todo) > 0; {
		next := decls[todo[len(todo)-1]]
		todo = todo[:len(todo)-1]
		for w := range next.words {
			words[w] = true
		}
		for call := range next.calls {
			if !seen[call] {
				seen[call] = true
				todo = append(todo, call)
			}
		}
	}
	return true
}

// testDecls reads a folder's tests.
func testDecls(t *testing.T, dir string) map[string]testDecl {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("there are no tests in %s: %v", dir, err)
	}
	decls := make(map[string]testDecl)
	for _, path := range files {
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		imports := importsOf(f)
		of := func(name string) testDecl {
			if _, ok := decls[name]; !ok {
				decls[name] = testDecl{make(map[string]bool), make(map[string]bool)}
			}
			return decls[name]
		}
		for _, decl := range f.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil { // who has a value of the type may call its methods, through an interface say
					owner := of(receiver(d))
					owner.words[name], owner.calls["."+name] = true, true
					name = "." + name
				}
				of(name).read(d.Body, imports)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range s.Names {
							of(name.Name).read(s, imports)
						}
					}
				}
			}
		}
	}
	return decls
}

// read takes the names in n. What is selected from a package is none of the folder's.
func (d testDecl) read(n ast.Node, imports map[string]string) {
	selected := make(map[*ast.Ident]bool)
	ast.Inspect(n, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.SelectorExpr:
			selected[x.Sel] = true
			pkg, ok := x.X.(*ast.Ident)
			switch from := imports[pkgName(pkg)]; {
			case !ok || from == "":
				d.calls["."+x.Sel.Name], d.words[x.Sel.Name] = true, true
			case strings.HasPrefix(from, module):
				d.words[x.Sel.Name] = true
			}
		case *ast.Ident:
			if !selected[x] {
				d.calls[x.Name], d.words[x.Name] = true, true
			}
		}
		return true
	})
}

func pkgName(id *ast.Ident) string {
	if id == nil {
		return ""
	}
	return id.Name
}
