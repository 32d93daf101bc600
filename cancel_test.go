package tikv_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
)

// TestCancellation parks every exported call that takes a context at every point where
// it can wait, cancels it there, and checks that it returned at once, left nothing
// behind and took nobody else with it. The pairs are printed.
func TestCancellation(t *testing.T) {
	pairs := 0
	for _, call := range cancelCalls {
		for _, point := range call.at {
			pairs++
			t.Run(call.name+"/"+point.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { cancelAt(t, call, point) })
			})
		}
		if len(call.at) == 0 {
			t.Run(call.name+"/never waits", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { neverWaits(t, call) })
			})
		}
	}
	for _, call := range cancelCalls {
		var names []string
		for _, point := range call.at {
			names = append(names, point.name)
		}
		if names == nil {
			names = []string{"(never waits)"}
		}
		t.Logf("%-28s %s", call.name, strings.Join(names, ", "))
	}
	t.Logf("%d pairs of call and point", pairs)
}

// TestCancellationIsComplete fails when a call that takes a context is not in the list.
func TestCancellationIsComplete(t *testing.T) {
	listed := make(map[string]bool)
	for _, call := range cancelCalls {
		name, _, _ := strings.Cut(call.name, " ")
		listed[name] = true
	}
	for _, name := range contextCalls(t) {
		if !listed[name] {
			t.Errorf("%s takes a context but is not tested for cancellation", name)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("%s is in the list but takes no context", name)
	}
}

// contextCalls finds the exported functions and methods whose first argument is a
// context: methods by reflection, functions in the source.
func contextCalls(t *testing.T) []string {
	ctxType := reflect.TypeFor[context.Context]()
	var names []string
	seen := make(map[string]bool)
	for _, v := range []any{&tikv.Client{}, &tikv.Raw{}, &tikv.AtomicRaw{}, &tikv.Snapshot{}, &tikv.Txn{}, &tikv.RPC{}} {
		rt := reflect.TypeOf(v)
		for i := range rt.NumMethod() {
			m := rt.Method(i)
			if m.Type.NumIn() > 1 && m.Type.In(1) == ctxType {
				if rt.Elem().Name() == "AtomicRaw" && seen["Raw."+m.Name] {
					continue // promoted
				}
				name := rt.Elem().Name() + "." + m.Name
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() || len(fn.Type.Params.List) == 0 {
				continue
			}
			if sel, ok := fn.Type.Params.List[0].Type.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Context" {
				continue
			}
			name := fn.Name.Name
			if fn.Recv != nil {
				recv := fn.Recv.List[0].Type
				if star, ok := recv.(*ast.StarExpr); ok {
					recv = star.X
				}
				name = recv.(*ast.Ident).Name + "." + name
				if !ast.IsExported(name) {
					continue
				}
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func cancelAt(t *testing.T, call cancelCall, point *parkPoint) {
	p := newParkTest(t, point)
	defer p.close(t)
	fn, err := call.ready(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	goroutines := bubble()
	release, waiting := point.park(t, p)
	if point.fresh {
		if fn, err = call.ready(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	var other chan error
	if point.share {
		fn2, err := call.ready(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		other = start(t.Context(), fn2)
		synctest.Wait()
	}
	before := p.state()
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("the caller has had enough")
	done := start(ctx, fn)
	synctest.Wait()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	default:
	}
	if point.then != nil {
		point.then(t, p)
		synctest.Wait()
	}
	if n := waiting(); n == 0 {
		t.Error("waits, but not where it is meant to")
	}
	began := time.Now()
	cancel(over)
	synctest.Wait()
	select {
	case err := <-done:
		if !errors.Is(err, over) || !errors.Is(err, context.Canceled) || tikv.NotSent(err) == errors.Is(err, tikv.ErrUndetermined) {
			t.Errorf("the error does not tell of the cancellation: %v", err)
		}
	default:
		t.Fatal("still waits after its context ended")
	}
	if d := time.Since(began); d != 0 {
		t.Errorf("returned %v after its context ended", d)
	}
	if after := p.state(); after != before && !(call.owes && (strings.Contains(after, "roll back") || strings.Contains(after, "unlock"))) {
		t.Errorf("left behind: %s, before: %s", after, before)
	}
	release()
	if other != nil {
		if err := <-other; err != nil {
			t.Errorf("the other caller: %v", err)
		}
	}
	p.works(t, call)
	rest := time.Minute // what is owed is done by then
	if point.stores > 1 {
		rest = 15 * time.Minute // connections to other stores that it took are gone
	}
	<-time.After(rest)
	synctest.Wait()
	if idle := p.state(); idle != "0 queued, 0 pending, tasks []" {
		t.Errorf("does not come to rest: %s", idle)
	}
	if !point.cold {
		for origin, n := range bubble() {
			if n > goroutines[origin] {
				t.Errorf("%d goroutines, %d before: %s", n, goroutines[origin], origin)
			}
		}
	}
}

// bubble counts the goroutines of the test's bubble by where they were started.
func bubble() map[string]int {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	own, _, _ := strings.Cut(string(stacks), "]:")
	_, own, _ = strings.Cut(own, "synctest bubble ")
	counts := make(map[string]int)
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		head, _, _ := strings.Cut(stack, "\n")
		if strings.HasSuffix(head, "synctest bubble "+own+"]:") {
			_, origin, _ := strings.Cut(stack, "created by ")
			origin, _, _ = strings.Cut(origin, " in goroutine")
			counts[origin]++
		}
	}
	return counts
}

// neverWaits checks that a call returns though nothing answers.
func neverWaits(t *testing.T, call cancelCall) {
	p := newParkTest(t, &parkPoint{})
	defer p.close(t)
	fn, err := call.ready(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	release, _ := holdEverything(t, p)
	defer release()
	done := start(t.Context(), fn)
	synctest.Wait()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatal("waits")
	}
}

// works makes the call once more, with nothing in its way.
func (p *parkTest) works(t *testing.T, call cancelCall) {
	fn, err := call.ready(t.Context(), p)
	if err == nil {
		err = fn(t.Context())
	}
	if err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func start(ctx context.Context, fn func(context.Context) error) chan error {
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	return done
}
