package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

// parkTest is the surroundings of one parked call.
type parkTest struct {
	cluster *playground.Cluster
	gate    *gate
	pages   *pageGate
	client  *tikv.Client
	further []tikv.Option // of its clients
	held    []*playground.Injection
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
	name    string
	stores  int           // of the cluster, that lead nothing but for the first; 0: one
	tls     bool          // of files
	options []tikv.Option // of the client
	cold    bool          // the client has not spoken to a store and knows no region
	// park makes calls wait; what it returns lets them go on and says how many wait.
	park func(t *testing.T, p *parkTest) (release func(), waiting func() int)
	// fresh: the call is made ready once more behind park.
	fresh bool
	// share: another call of the same kind waits too, and must get its answer.
	share bool
	// then, if not nil, takes the call that waits already to where it is to wait.
	then func(t *testing.T, p *parkTest)
}

// parkKeys are in the cluster from the beginning.
var parkKeys = [][]byte{[]byte("a"), []byte("b")}

func newParkTest(t *testing.T, at *parkPoint) *parkTest {
	p := &parkTest{gate: newGate(), pages: &pageGate{}, further: at.options}
	options := []playground.Option{
		playground.WithStores(max(at.stores, 1)), playground.WithAPIVersion(playground.APIV2), playground.WithCoprocessor(103, p.pages.answer),
	}
	if at.tls {
		dir := t.TempDir()
		options = append(options, playground.WithTLSFiles(dir))
		p.further = append(p.further, tikv.WithTLSFiles(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")))
	}
	var err error
	if p.cluster, err = playground.Start(t.Context(), options...); err != nil {
		t.Fatal(err)
	}
	for _, r := range slices.Concat(p.cluster.Regions(playground.KeyRaw), p.cluster.Regions(playground.KeyTxn)) {
		if r.Leader != 1 {
			must(t, p.cluster.TransferLeader(r.ID, 1))
		}
	}
	if p.client, err = p.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed := p.client
	if at.cold { // what seeds the data must not warm the client
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
	return append([]tikv.Option{tikv.WithAPIVersion(tikv.APIV2), tikv.WithDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return p.gate.dial(ctx, addr, p.cluster.DialContext)
	})}, p.further...)
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
	dials            int
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) dial(ctx context.Context, addr string, next func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	g.mu.Lock()
	g.dials++
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

func (g *gate) dialled() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
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

// pageGate computes the answers of the coprocessor, a page of an answer at a time.
type pageGate struct {
	mu      sync.Mutex
	open    chan struct{} // closed when pages behind the first may go on; nil: they may
	first   bool          // was computed
	waiting int
}

// hold makes pages behind the next wait, until release.
func (g *pageGate) hold() (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	open := make(chan struct{})
	g.open, g.first = open, false
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.open = nil
		close(open)
	}
}

func (g *pageGate) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// answer is a playground.Coprocessor.
func (g *pageGate) answer(ctx context.Context, plan []byte, pairs [][2][]byte) ([]byte, error) {
	g.mu.Lock()
	open := g.open
	if open != nil && !g.first {
		g.first, open = true, nil
	}
	if open != nil {
		g.waiting++
	}
	g.mu.Unlock()
	if open != nil {
		select {
		case <-open:
		case <-ctx.Done():
		}
		g.mu.Lock()
		g.waiting--
		g.mu.Unlock()
	}
	return listing(ctx, plan, pairs)
}
