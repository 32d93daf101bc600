package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
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

// parkTest is the surroundings of one parked call.
type parkTest struct {
	cluster *playground.Cluster
	gate    *gate
	client  *tikv.Client
	cold    bool // the client has not spoken to a store and knows no region
}

// cancelCall is an exported call. It is made ready before the place to park is.
type cancelCall struct {
	name  string
	ready func(ctx context.Context, p *parkTest) (func(context.Context) error, error)
	at    []*parkPoint
	owes  bool // a cancelled call rolls back in the background, under the client
}

// parkPoint is a place to wait at.
type parkPoint struct {
	name string
	cold bool
	// park makes calls wait; what it returns lets them go on and says how many wait.
	park func(t *testing.T, p *parkTest) (release func(), waiting func() int)
	// share: another call of the same kind waits too, and must get its answer.
	share bool
}

func cancelAt(t *testing.T, call cancelCall, point *parkPoint) {
	p := newParkTest(t, point.cold)
	defer p.close(t)
	fn, err := call.ready(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	goroutines := bubble()
	release, waiting := point.park(t, p)
	if point == atLock || point == atStatus { // a transaction older than the lock conflicts at once
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
	if after := p.state(); after != before && !(call.owes && strings.Contains(after, "roll back")) {
		t.Errorf("left behind: %s, before: %s", after, before)
	}
	release()
	if other != nil {
		if err := <-other; err != nil {
			t.Errorf("the other caller: %v", err)
		}
	}
	p.works(t, call)
	<-time.After(time.Minute) // what is owed is done by then
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
	p := newParkTest(t, false)
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

// parkKeys are in the cluster from the beginning.
var parkKeys = [][]byte{[]byte("a"), []byte("b")}

func newParkTest(t *testing.T, cold bool) *parkTest {
	p := &parkTest{cold: cold, gate: newGate()}
	var err error
	if p.cluster, err = playground.Start(t.Context(), playground.WithStores(1), playground.WithAPIVersion(playground.APIV2), playground.WithCoprocessor(103, listing)); err != nil {
		t.Fatal(err)
	}
	if p.client, err = p.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed := p.client
	if cold { // what seeds the data must not warm the client
		if seed, err = p.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer seed.Close()
	}
	if err := fill(t.Context(), seed); err != nil {
		t.Fatal(err)
	}
	return p
}

func fill(ctx context.Context, c *tikv.Client) error {
	if err := c.Raw().BatchPut(ctx, []tikv.Pair{{Key: parkKeys[0], Value: []byte("1")}, {Key: parkKeys[1], Value: []byte("2")}}); err != nil {
		return err
	}
	err := c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		return errors.Join(tx.Put(parkKeys[0], []byte("1")), tx.Put(parkKeys[1], []byte("2")))
	})
	if err != nil {
		return err
	}
	snap, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	_, err = tikv.Collect(snap.Scan(ctx, tikv.Range{}))
	return err
}

func (p *parkTest) options() []tikv.Option {
	return []tikv.Option{tikv.WithAPIVersion(tikv.APIV2), tikv.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return p.gate.dial(ctx, addr, p.cluster.DialContext)
	})}
}

func (p *parkTest) open(ctx context.Context) (*tikv.Client, error) {
	return tikv.Open(ctx, p.cluster.PD(), p.options()...)
}

func (p *parkTest) close(t *testing.T) {
	p.gate.release()
	if err := p.client.Close(); err != nil {
		t.Errorf("closing the client: %v", err)
	}
	if err := p.cluster.Close(); err != nil {
		t.Errorf("closing the cluster: %v", err)
	}
}

// state is what the client has under way.
func (p *parkTest) state() string {
	queued, pending, tasks := p.client.Idle()
	// Begun for one caller, the safe point is fetched for all, in bounded time; the upkeep of
	// the region cache is there as long as it has entries.
	tasks = slices.DeleteFunc(tasks, func(name string) bool { return name == "safe point" || name == "region upkeep" })
	return fmt.Sprintf("%d queued, %d pending, tasks %q", queued, pending, tasks)
}

// gate stands between a client and the network.
type gate struct {
	mu               sync.Mutex
	dialing, writing bool // dials, writes wait
	open             chan struct{}
	dialers, writers int // that wait now
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) dial(ctx context.Context, addr string, next func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	g.mu.Lock()
	hold, open := g.dialing, g.open
	if hold {
		g.dialers++
	}
	g.mu.Unlock()
	if hold {
		select {
		case <-open:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	conn, err := next(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &gatedConn{Conn: conn, gate: g, closed: make(chan struct{})}, nil
}

func (g *gate) hold(dialing, writing bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dialing, g.writing = dialing, writing
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dialing, g.writing = false, false
	close(g.open)
	g.open = make(chan struct{})
}

func (g *gate) dialsHeld() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dialers
}

func (g *gate) writesHeld() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.writers
}

// gatedConn is a connection whose writes wait while the gate says so.
type gatedConn struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.gate.mu.Lock()
	hold, open := c.gate.writing, c.gate.open
	if hold {
		c.gate.writers++
	}
	c.gate.mu.Unlock()
	if hold {
		select {
		case <-open:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// hold parks requests of the methods at PD.
func hold(methods ...string) func(*testing.T, *parkTest) (func(), func() int) {
	return func(_ *testing.T, p *parkTest) (func(), func() int) {
		var all []*playground.Injection
		for _, m := range methods {
			all = append(all, p.cluster.Inject(playground.Fault{Method: m, Hold: true}))
		}
		return removeAll(all), sum(all, (*playground.Injection).Waiting)
	}
}

func removeAll(all []*playground.Injection) func() {
	return func() {
		for _, i := range all {
			i.Remove()
		}
	}
}

func sum(all []*playground.Injection, count func(*playground.Injection) int) func() int {
	return func() int {
		n := 0
		for _, i := range all {
			n += count(i)
		}
		return n
	}
}

func holdEverything(t *testing.T, p *parkTest) (func(), func() int) {
	all := []*playground.Injection{p.cluster.Inject(playground.Fault{Hold: true})}
	return removeAll(all), sum(all, (*playground.Injection).Waiting)
}

// jam fills the store's stream until writes of n requests wait: the first is taken by
// the connection, the second waits to be written, those behind it in the queue.
func jam(n int) func(*testing.T, *parkTest) (func(), func() int) {
	return func(t *testing.T, p *parkTest) (func(), func() int) {
		p.gate.hold(false, true)
		big := make([]byte, 1<<20)
		var fillers []chan error
		for i := range n {
			key := fmt.Appendf(nil, "filler%d", i)
			fillers = append(fillers, start(t.Context(), func(ctx context.Context) error { return p.client.Raw().Put(ctx, key, big) }))
			synctest.Wait()
		}
		return func() {
			p.gate.release()
			for _, done := range fillers {
				if err := <-done; err != nil {
					t.Errorf("a request in the queue: %v", err)
				}
			}
		}, p.gate.writesHeld
	}
}

// lockKeys leaves the keys locked by a transaction of another client that is alive.
func lockKeys(t *testing.T, p *parkTest) (func(), func() int) {
	owner, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range parkKeys {
		if err := tx.Put(key, []byte("locked")); err != nil {
			t.Fatal(err)
		}
	}
	held := p.cluster.Inject(playground.Fault{Method: "KvCommit", StartTS: uint64(tx.StartTS()), Hold: true})
	done := start(t.Context(), func(ctx context.Context) error { return tx.Commit(ctx) })
	synctest.Wait()
	return func() {
		held.Remove()
		if err := <-done; err != nil {
			t.Errorf("the owner of the locks: %v", err)
		}
		if err := owner.Close(); err != nil {
			t.Errorf("the owner of the locks: %v", err)
		}
	}, held.Waiting
}

var (
	atTimestamp   = &parkPoint{name: "timestamp", park: hold("Tso")}
	atSharedTS    = &parkPoint{name: "another's timestamp", park: hold("Tso"), share: true}
	atLookup      = &parkPoint{name: "lookup", cold: true, park: hold("GetRegion", "GetPrevRegion", "BatchScanRegions", "QueryRegion")}
	atRegionByID  = &parkPoint{name: "lookup by id", park: hold("GetRegionByID", "QueryRegion")}
	atStore       = &parkPoint{name: "store lookup", cold: true, park: hold("GetStore")}
	atSharedLoad  = &parkPoint{name: "another's load", cold: true, park: hold("GetRegion", "GetPrevRegion", "BatchScanRegions", "QueryRegion"), share: true}
	atStreamWrite = &parkPoint{name: "stream write", park: jam(1)}
	atQueue       = &parkPoint{name: "queue", park: jam(2)}
	atLock        = &parkPoint{name: "lock", park: lockKeys}
	atDial        = &parkPoint{name: "dial", cold: true, park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		p.gate.hold(true, false)
		return p.gate.release, p.gate.dialsHeld
	}}
	atResponse = &parkPoint{name: "response", park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		all := []*playground.Injection{p.cluster.Inject(playground.Fault{Node: playground.Store(1), Hold: true})}
		return removeAll(all), sum(all, (*playground.Injection).Waiting)
	}}
	atBackoff = &parkPoint{name: "backoff", park: func(_ *testing.T, p *parkTest) (func(), func() int) {
		all := []*playground.Injection{p.cluster.Inject(playground.Fault{Node: playground.Store(1), RegionError: playground.ServerIsBusy})}
		return removeAll(all), sum(all, (*playground.Injection).Hits)
	}}
	// A lock whose owner's fate is being asked for.
	atStatus = &parkPoint{name: "status of a lock", park: func(t *testing.T, p *parkTest) (func(), func() int) {
		unlock, _ := lockKeys(t, p)
		asked := p.cluster.Inject(playground.Fault{Method: "KvCheckTxnStatus", Hold: true})
		return func() { asked.Remove(); unlock() }, asked.Waiting
	}}
	atSafePoint = &parkPoint{name: "safe point", cold: true, park: hold("GetGCState")}
	atMembers   = &parkPoint{name: "members", park: hold("GetMembers")}
	atKeyspace  = &parkPoint{name: "keyspace", park: hold("LoadKeyspace")}
)

// Points of one request over the stream of batched commands, of a call of its own, and
// of PD.
var (
	readPoints   = with(streamPoints, atStatus, atSafePoint)
	streamPoints = []*parkPoint{atLookup, atSharedLoad, atStore, atDial, atQueue, atStreamWrite, atResponse, atBackoff}
	unaryPoints  = []*parkPoint{atLookup, atSharedLoad, atStore, atDial, atResponse, atBackoff}
	tsPoints     = []*parkPoint{atTimestamp, atSharedTS}
	openPoints   = []*parkPoint{atDial, atMembers, atKeyspace}
)

func with(points []*parkPoint, more ...*parkPoint) []*parkPoint {
	return append(slices.Clone(points), more...)
}

// simple is a call that needs nothing made ready.
func simple(fn func(ctx context.Context, p *parkTest) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(_ context.Context, p *parkTest) (func(context.Context) error, error) {
		return func(ctx context.Context) error { return fn(ctx, p) }, nil
	}
}

func onRaw(fn func(ctx context.Context, r *tikv.Raw) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return simple(func(ctx context.Context, p *parkTest) error { return fn(ctx, p.client.Raw()) })
}

func onAtomic(fn func(ctx context.Context, r *tikv.AtomicRaw) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return simple(func(ctx context.Context, p *parkTest) error { return fn(ctx, p.client.AtomicRaw()) })
}

func onSnapshot(fn func(ctx context.Context, s *tikv.Snapshot) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		snap, err := p.client.Snapshot(ctx)
		return func(ctx context.Context) error { return fn(ctx, snap) }, err
	}
}

// onRPC is a call at a snapshot's moment.
func onRPC(fn func(ctx context.Context, v *tikv.RPC) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		snap, err := p.client.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return fn(ctx, p.client.RPC(tikv.WithReadAt(snap))) }, nil
	}
}

func onLatest(fn func(ctx context.Context, s *tikv.Snapshot) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return simple(func(ctx context.Context, p *parkTest) error { return fn(ctx, p.client.Latest()) })
}

func onTxn(fn func(ctx context.Context, tx *tikv.Txn) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		tx, err := p.client.Begin(ctx)
		if err != nil {
			return nil, err
		}
		if err := tx.Put([]byte("mine"), []byte("1")); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return fn(ctx, tx) }, nil
	}
}

// onLockable is onTxn with a write of a key that others lock.
func onLockable(fn func(ctx context.Context, tx *tikv.Txn) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return onTxn(func(ctx context.Context, tx *tikv.Txn) error {
		if err := tx.Put(parkKeys[0], []byte("1")); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
}

func drain(seq func(func(tikv.Pair, error) bool)) error {
	_, err := tikv.Collect(seq)
	return err
}

var cancelCalls = []cancelCall{
	{"Open", simple(func(ctx context.Context, p *parkTest) error { return closeOpened(p.open(ctx)) }), openPoints, false},
	{"OpenURL", simple(func(ctx context.Context, p *parkTest) error {
		return closeOpened(tikv.OpenURL(ctx, "tikv://"+strings.Join(p.cluster.PD(), ",")+"?api=v2", p.options()...))
	}), openPoints, false},

	{"Client.Timestamp", simple(func(ctx context.Context, p *parkTest) error { _, err := p.client.Timestamp(ctx); return err }), tsPoints, false},
	{"Client.RecentTimestamp", simple(func(ctx context.Context, p *parkTest) error {
		_, err := p.client.RecentTimestamp(ctx, 0)
		return err
	}), tsPoints, false},
	{"Client.Snapshot", simple(func(ctx context.Context, p *parkTest) error { _, err := p.client.Snapshot(ctx); return err }), tsPoints, false},
	{"Client.Begin", simple(func(ctx context.Context, p *parkTest) error { _, err := p.client.Begin(ctx); return err }), tsPoints, false},
	{"Client.RunTxn", simple(func(ctx context.Context, p *parkTest) error {
		return p.client.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(parkKeys[0], []byte("1")) })
	}), append(with(streamPoints, atLock), tsPoints...), true},

	{"Client.ResolveOutcome", func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		ts, err := p.client.Timestamp(ctx)
		lost := &tikv.UndeterminedError{StartTS: ts, Primary: parkKeys[0]}
		return func(ctx context.Context) error { _, err := p.client.ResolveOutcome(ctx, lost); return err }, err
	}, readPoints, false},

	{"Client.Warm", simple(func(ctx context.Context, p *parkTest) error {
		return p.client.Warm(ctx, tikv.KeyRaw, tikv.Range{}, tikv.Range{Start: parkKeys[0], End: parkKeys[1]})
	}), []*parkPoint{atLookup, atStore, atDial}, false},

	{"Raw.Get", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, err := r.Get(ctx, parkKeys[0]); return err }), streamPoints, false},
	{"Raw.BatchGet", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, err := r.BatchGet(ctx, parkKeys); return err }), streamPoints, false},
	{"Raw.Scan", onRaw(func(ctx context.Context, r *tikv.Raw) error { return drain(r.Scan(ctx, tikv.Range{})) }), streamPoints, false},
	{"Raw.Scan backwards", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		return drain(r.Scan(ctx, tikv.Range{}, tikv.WithReverse()))
	}), streamPoints, false},
	{"Raw.BatchScan", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		_, err := r.BatchScan(ctx, []tikv.Range{{}, {Start: parkKeys[1]}}, 10)
		return err
	}), streamPoints, false},
	{"Raw.TTL", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, _, err := r.TTL(ctx, parkKeys[0]); return err }), unaryPoints, false},
	{"Raw.Put", onRaw(func(ctx context.Context, r *tikv.Raw) error { return r.Put(ctx, parkKeys[0], []byte("1")) }), streamPoints, false},
	{"Raw.Delete", onRaw(func(ctx context.Context, r *tikv.Raw) error { return r.Delete(ctx, []byte("c")) }), streamPoints, false},
	{"Raw.BatchPut", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		return r.BatchPut(ctx, []tikv.Pair{{Key: parkKeys[0], Value: []byte("1")}, {Key: parkKeys[1]}})
	}), streamPoints, false},
	{"Raw.BatchDelete", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		return r.BatchDelete(ctx, [][]byte{[]byte("c"), []byte("d")})
	}), streamPoints, false},
	{"Raw.DeleteRange", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		return r.DeleteRange(ctx, tikv.Range{Start: []byte("c"), End: []byte("d")})
	}), streamPoints, false},
	{"Raw.Checksum", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, err := r.Checksum(ctx, tikv.Range{}); return err }), unaryPoints, false},
	{"AtomicRaw.CompareAndSwap", onAtomic(func(ctx context.Context, r *tikv.AtomicRaw) error {
		_, _, err := r.CompareAndSwap(ctx, parkKeys[0], []byte("x"), []byte("y"))
		return err
	}), unaryPoints, false},
	{"AtomicRaw.PutIfAbsent", onAtomic(func(ctx context.Context, r *tikv.AtomicRaw) error {
		_, _, err := r.PutIfAbsent(ctx, parkKeys[0], []byte("y"))
		return err
	}), unaryPoints, false},
	{"AtomicRaw.DeleteIfEquals", onAtomic(func(ctx context.Context, r *tikv.AtomicRaw) error {
		_, _, err := r.DeleteIfEquals(ctx, parkKeys[0], []byte("x"))
		return err
	}), unaryPoints, false},

	{"Snapshot.Get", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.Get(ctx, parkKeys[0]); return err }), readPoints, false},
	{"Snapshot.Get of the latest", onLatest(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.Get(ctx, parkKeys[1]); return err }), with(streamPoints, atLock, atStatus), false},
	{"Snapshot.BatchGet", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.BatchGet(ctx, parkKeys); return err }), readPoints, false},
	{"Snapshot.BatchGet of the latest", onLatest(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.BatchGet(ctx, parkKeys); return err }), with(streamPoints, atLock, atStatus), false},
	{"Snapshot.Get of a replica", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error {
		_, err := s.With(tikv.WithReplicaRead(tikv.ReadFollower)).Get(ctx, parkKeys[0])
		return err
	}), readPoints, false},
	{"Snapshot.Get twice", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error {
		_, err := s.With(tikv.WithHedging(time.Nanosecond)).Get(ctx, parkKeys[0])
		return err
	}), readPoints, false},
	{"Snapshot.BatchGet of any replica", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error {
		_, err := s.With(tikv.WithReplicaRead(tikv.ReadAny), tikv.WithReadTimeout(time.Hour)).BatchGet(ctx, parkKeys)
		return err
	}), readPoints, false},
	{"Snapshot.GetVersions", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.GetVersions(ctx, parkKeys); return err }), readPoints, false},
	{"Snapshot.Scan", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { return drain(s.Scan(ctx, tikv.Range{})) }), readPoints, false},
	{"Snapshot.Scan of the latest", onLatest(func(ctx context.Context, s *tikv.Snapshot) error { return drain(s.Scan(ctx, tikv.Range{})) }), with(streamPoints, atLock, atStatus), false},

	{"Call", onRPC(func(ctx context.Context, v *tikv.RPC) error {
		_, err := tikv.Call(ctx, v, tikv.ToKey(tikv.KeyTxn, parkKeys[0]), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: parkKeys[0]})
		return err
	}), readPoints, false},
	{"Call of a write", simple(func(ctx context.Context, p *parkTest) error {
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToKey(tikv.KeyRaw, parkKeys[0]), tikvpb.TikvClient.RawPut, &kvrpcpb.RawPutRequest{Key: parkKeys[0], Value: []byte("1")})
		return err
	}), streamPoints, false},
	{"Call of a command that is not batched", simple(func(ctx context.Context, p *parkTest) error {
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToKey(tikv.KeyTxn, parkKeys[0]), tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: parkKeys[0]})
		return err
	}), unaryPoints, false},
	{"Call to a region", simple(func(ctx context.Context, p *parkTest) error {
		id := p.cluster.Regions(playground.KeyRaw)[0].ID
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToRegion(tikv.KeyRaw, id), tikvpb.TikvClient.RawGet, &kvrpcpb.RawGetRequest{Key: parkKeys[0]})
		return err
	}), with(streamPoints, atRegionByID), false},
	{"Call to a store", simple(func(ctx context.Context, p *parkTest) error {
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToStore(1), tikvpb.TikvClient.GetLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{})
		return err
	}), []*parkPoint{atStore, atDial, atResponse}, false},
	{"CallRange", onRPC(func(ctx context.Context, v *tikv.RPC) error {
		_, err := tikv.Collect(tikv.CallRange(ctx, v, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.Coprocessor, &coprocessor.Request{Tp: 103}))
		return err
	}), readPoints, false},
	{"CallStream", onRPC(func(ctx context.Context, v *tikv.RPC) error {
		_, err := tikv.Collect(tikv.CallStream(ctx, v, tikv.ToKey(tikv.KeyTxn, parkKeys[0]), tikvpb.TikvClient.CoprocessorStream,
			&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{}}}))
		return err
	}), with(unaryPoints, atSafePoint), false},

	{"Txn.Get", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.Get(ctx, parkKeys[0]); return err }), readPoints, false},
	{"Txn.BatchGet", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.BatchGet(ctx, parkKeys); return err }), readPoints, false},
	{"Txn.GetVersions", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.GetVersions(ctx, parkKeys); return err }), readPoints, false},
	{"Txn.Scan", onTxn(func(ctx context.Context, tx *tikv.Txn) error { return drain(tx.Scan(ctx, tikv.Range{})) }), readPoints, false},
	{"Txn.Lock", onTxn(func(ctx context.Context, tx *tikv.Txn) error { return tx.Lock(ctx, parkKeys) }), nil, false},
	{"Txn.Commit", onLockable(func(ctx context.Context, tx *tikv.Txn) error { return tx.Commit(ctx) }), with(streamPoints, atTimestamp, atLock, atStatus), true},
	{"Txn.Rollback", onTxn(func(ctx context.Context, tx *tikv.Txn) error { return tx.Rollback(ctx) }), nil, false},
}

func closeOpened(c *tikv.Client, err error) error {
	if err != nil {
		return err
	}
	return c.Close()
}
