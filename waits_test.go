package tikv_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// waits has every place of the engine where a goroutine waits for another, and from where
// TestCancellation gets there: the names of its points, or who waits there instead of a
// caller, and why that has an end.
var waits = map[string]string{
	"internal/backoff Sleep":    "backoff, conflict, lost race, new region, store away, full store, PD away",
	"internal/task Group.Wait":  "-: Close, for WithCloseTimeout",
	"internal/task Group.Close": "-: Close and the end of a CallRange's loop: the tasks' context has ended",

	"internal/transport Pending.Wait":      "queue, stream write, response, forwarded, replica, draining connection, two attempts",
	"internal/transport Pending.Cancel":    "-: of an abandoned call, which ends at once",
	"internal/transport Pool.Stream":       "dial",
	"internal/transport Stream.SendMsg":    "-: the first message of a stream finds room (grpc's write quota)",
	"internal/transport Stream.RecvMsg":    "response, next message",
	"internal/transport endpoint.exchange": "dial, response, forwarded, draining connection",
	"internal/transport endpoint.open":     "-: the owner of an address, at most DialTimeout: dial",
	"internal/transport endpoint.own":      "-: the owner of an address",
	"internal/transport endpoint.flush":    "-: the owner of an address: stream write",
	"internal/transport stream.written":    "-: the owner of an address, for the reader that has just been cancelled",
	"internal/transport stream.receive":    "-: the reader of a stream",
	"internal/transport Pool.tell":         "-: the task that hands feedback on",
	"internal/transport Pool.watch":        "-: the task that looks after TLS files",
	"internal/transport link.ready":        "-: a task that renews connections, at most DialTimeout",

	"internal/region flights.do": "store lookup, lookup, another's load",
	"internal/region loader.get": "lookup, another's load, shared lookup, search for PD's leader, PD away",

	"internal/router hedge.end": "second attempt",

	"internal/pd Client.Timestamp":     "timestamp, another's timestamp, PD away",
	"internal/pd Client.survey":        "members, PD away",
	"internal/pd Client.lookup":        "shared lookup",
	"internal/pd Client.follow":        "search for PD's leader",
	"internal/pd Client.findGroup":     "-: the oracle's task, for answers that come in a second",
	"internal/pd oracle.await":         "-: the oracle's task",
	"internal/pd memberConn.recv":      "-: the oracle's task: timestamp",
	"internal/pd serviceConn.recv":     "-: the oracle's task: timestamp",
	"internal/pd recent.keep":          "-: the task that keeps timestamps fresh",
	"internal/pd queries.run":          "-: the task that has the stream of lookups",
	"internal/pd queryStream.exchange": "-: the task that has the stream of lookups: shared lookup",
	"internal/pd Client.AcquireTokens": "-: not used yet",

	"internal/txn latch.take":           "latch",
	"internal/txn pipe.await":           "response, backoff", // a write waits, too, for the flush before it, whose requests have budgets
	"internal/txn pipe.letGo":           "-: a task that is owed, for a flush that has been cancelled",
	"internal/txn pace.wait":            "-: the task of a flush",
	"internal/txn Txn.RollbackFor":      "-: the caller, for unlocks that are owed, until its context ends: TestRollbackUnlocks",
	"internal/txn Stage.Cancel":         "-: the caller, for unlocks that are owed, until its context ends",
	"internal/txn pessimist.awaitFreed": "-: the caller, for unlocks of a call before, until its context ends: TestWriteOfWhatWasShared",
	"internal/txn lockCall.undo":        "-: the caller, for unlocks of this call after a deadlock, until its context ends",
	"internal/lock flights.share":       "another's question",

	"internal/txn inflight.wait":    "-: Close, for WithCloseTimeout",
	"internal/txn Engine.checkSafe": "safe point",

	". Client.Close":       "-: Close, for another Close",
	". rangeWalk.walk":     "lookup, response",
	". many":               "dial",
	". messages.Recv":      "response, next message",
	". pdStream.SendMsg":   "-: the oracle's task or a caller, whose message finds room (grpc's write quota)",
	". pdStream.RecvMsg":   "-: tasks of PD's streams",
	". streaming.next":     "next message",
	". streaming.exchange": "response, dial",
	"internal/task Each":   "response",
}

// TestWaits finds the places in the source.
func TestWaits(t *testing.T) {
	found := make(map[string]bool)
	for _, dir := range []string{".", "internal/backoff", "internal/task", "internal/transport", "internal/region", "internal/router", "internal/pd", "internal/raw", "internal/lock", "internal/txn"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
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
				if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil && waitsIn(fn.Body) {
					found[dir+" "+nameOf(fn)] = true
				}
			}
		}
	}
	points := make(map[string]bool)
	for _, call := range cancelCalls {
		for _, point := range call.at {
			points[point.name] = true
		}
	}
	for place := range found {
		if waits[place] == "" {
			t.Errorf("%s waits, and the table does not say how TestCancellation gets there", place)
		}
	}
	for place, how := range waits {
		if !found[place] {
			t.Errorf("%s does not wait", place)
		}
		if strings.HasPrefix(how, "-: ") {
			continue
		}
		for point := range strings.SplitSeq(how, ", ") {
			if !points[point] {
				t.Errorf("%s: no call is parked at %q", place, point)
			}
		}
	}
}

// waitsIn reports whether a function receives from a channel, has a select without a
// default, or calls what waits in grpc or sync.
func waitsIn(body *ast.BlockStmt) (waits bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectStmt:
			idle := slices.ContainsFunc(n.Body.List, func(s ast.Stmt) bool { return s.(*ast.CommClause).Comm == nil })
			waits = waits || !idle
			for _, s := range n.Body.List { // what the cases wait for is the select's matter
				for _, in := range s.(*ast.CommClause).Body {
					waits = waits || waitsIn(&ast.BlockStmt{List: []ast.Stmt{in}})
				}
			}
			return false
		case *ast.UnaryExpr:
			waits = waits || n.Op == token.ARROW
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				waits = waits || slices.Contains([]string{"NewStream", "SendMsg", "RecvMsg", "Recv", "WaitForStateChange"}, sel.Sel.Name)
				if x, ok := sel.X.(*ast.Ident); ok && sel.Sel.Name == "Wait" && x.Name == "wg" {
					waits = true
				}
			}
		}
		return true
	})
	return waits
}

// nameOf is a function's name, behind that of its receiver's type.
func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name + "." + fn.Name.Name
		default:
			return fn.Name.Name
		}
	}
}
