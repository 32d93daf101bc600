package tikv_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// faultBench is a cluster with clients, on which cases of a work are run one after the
// other.
type faultBench struct {
	t       *testing.T
	work    faultWork
	cluster *tikvtest.Cluster
	other   *tikv.Client
	clients map[bool]*mortal // by whether they are strict
}

func newFaultBench(t *testing.T, w faultWork) *faultBench {
	mode, api := playground.KeyTxn, playground.APIV1
	if w.raw {
		mode, api = playground.KeyRaw, playground.APIV2
	}
	members := 1
	if w.pd {
		members = 3
	}
	start := []playground.Option{playground.WithMembers(members), playground.WithAPIVersion(api)}
	if !w.together {
		start = append(start, playground.WithSplitKeys(mode, []byte("m")))
	}
	b := &faultBench{t: t, work: w, clients: make(map[bool]*mortal)}
	b.cluster = tikvtest.NewCluster(t, start...)
	b.other = b.cluster.Open()
	t.Cleanup(func() {
		for _, m := range b.clients {
			if err := m.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		}
	})
	return b
}

// run runs a case, and reports whether another one may follow.
func (b *faultBench) run(c faultCase) (again bool) {
	e := &faultTest{faultBench: b, kind: c.kind, strict: c.strict, name: c.name(), ctx: b.t.Context(), dying: make(chan struct{})}
	m := b.clients[c.strict]
	if once := b.work.cold || c.kind.kills; m == nil || once {
		m = b.open(c)
		if once {
			defer func() { _ = m.Close() }() // it tells what it abandons
		} else {
			b.clients[c.strict] = m
		}
	}
	e.client, e.mortal = m.Client, m
	e.run()
	// Clients that wait ask PD for themselves now and then, and would meet the next fault.
	return !c.kind.spoils && !b.work.pd && !e.failed.Load()
}

// mortal is a client whose process can die.
type mortal struct {
	*tikv.Client
	net *mortalNet
}

func (b *faultBench) open(c faultCase) *mortal {
	b.t.Helper()
	n := &mortalNet{dial: b.cluster.DialContext}
	opts := append(b.cluster.ClientOptions(), tikv.WithDialer(n.Dial))
	if c.strict {
		opts = append(opts, tikv.WithRPCTimeout(2*time.Second))
	}
	if c.kind.kills {
		opts = append(opts, tikv.WithCloseTimeout(0))
	}
	client, err := tikv.Open(b.t.Context(), b.cluster.PD(), opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return &mortal{client, n}
}

// kill lets the client die: nothing that it has sent is answered from now on, and nothing
// else is sent.
func (e *faultTest) kill() {
	e.mortal.net.cut()
	go func() {
		defer close(e.dying)
		e.mortal.die()
	}()
}

// perish opens another client for what is done before it dies.
func (e *faultTest) perish(do func(m *mortal)) {
	e.t.Helper()
	m := e.open(faultCase{kind: faultKind{kills: true}})
	defer m.die()
	do(m)
}

// die ends a client as the end of its process would.
func (m *mortal) die() {
	m.net.cut()
	_ = m.Close() // which tells what it abandons
}

// mortalNet is a network that a client can be cut off from.
type mortalNet struct {
	dial func(ctx context.Context, addr string) (net.Conn, error)

	mu    sync.Mutex
	gone  bool
	conns []net.Conn
}

var errCutOff = errors.New("cut off")

func (n *mortalNet) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if !n.keep(nil) {
		return nil, errCutOff
	}
	conn, err := n.dial(ctx, addr)
	if err == nil && !n.keep(conn) {
		_ = conn.Close()
		return nil, errCutOff
	}
	return conn, err
}

// keep remembers a connection, if there is one, or reports that it is too late.
func (n *mortalNet) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c != nil && !n.gone {
		n.conns = append(n.conns, c)
	}
	return !n.gone
}

func (n *mortalNet) cut() {
	n.mu.Lock()
	conns := n.conns
	n.gone, n.conns = true, nil
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// outstanding counts what is to be done later.
type outstanding struct {
	mu sync.Mutex
	n  int
}

func (c *outstanding) add(n int) {
	c.mu.Lock()
	c.n += n
	c.mu.Unlock()
}

func (c *outstanding) zero() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n == 0
}
