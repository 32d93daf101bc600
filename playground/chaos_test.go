package playground

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// chaos is a client that knows nothing but the protocol, in a cluster that is split,
// whose leaders move, and whose nodes stop and start, while it works.
type chaos struct {
	*testCluster
	pds    []pdpb.PDClient
	kvs    map[uint64]tikvpb.TikvClient
	last   atomic.Uint64 // the largest timestamp given out so far
	redone atomic.Int64  // attempts that failed
	lost   atomic.Int64  // among them those without an answer
}

func newChaos(t *testing.T, c *testCluster) *chaos {
	x := &chaos{testCluster: c, kvs: make(map[uint64]tikvpb.TikvClient)}
	soon := grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Millisecond, Multiplier: 1, MaxDelay: time.Millisecond}})
	addrs := c.PD()
	for _, s := range c.stores {
		addrs = append(addrs, s.Server().Addr())
	}
	for _, addr := range addrs {
		cc, err := c.dial(addr, soon)
		if err != nil {
			t.Fatal(err)
		}
		c.conns[addr] = cc
	}
	for _, addr := range c.PD() {
		x.pds = append(x.pds, pdpb.NewPDClient(c.conn(addr)))
	}
	for _, s := range c.stores {
		x.kvs[s.ID] = tikvpb.NewTikvClient(c.conn(s.Server().Addr()))
	}
	return x
}

func (x *chaos) pause() { <-time.After(5 * time.Millisecond) }

// attempt bounds one call: longer than every delay, so that what has not been answered by
// then was lost, and is not still to come.
func (x *chaos) attempt() (context.Context, context.CancelFunc) {
	return context.WithTimeout(x.t.Context(), 200*time.Millisecond)
}

// now asks whichever member leads, until one gives a timestamp.
func (x *chaos) now() uint64 {
	for {
		before := x.last.Load()
		for _, pd := range x.pds {
			ctx, cancel := x.attempt()
			ts, err := tsoOnce(ctx, pd, x.header())
			cancel()
			if err != nil {
				continue
			}
			if ts <= before {
				x.t.Errorf("timestamp %d after %d", ts, before)
			}
			for old := x.last.Load(); ts > old && !x.last.CompareAndSwap(old, ts); old = x.last.Load() {
			}
			return ts
		}
		x.pause()
	}
}

func tsoOnce(ctx context.Context, pd pdpb.PDClient, h *pdpb.RequestHeader) (uint64, error) {
	stream, err := pd.Tso(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&pdpb.TsoRequest{Header: h, Count: 1}); err != nil {
		return 0, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	return uint64(resp.Timestamp.Physical)<<18 | uint64(resp.Timestamp.Logical), nil
}

// region asks PD for the region of a user key.
func (x *chaos) region(mode KeyMode, key string) *pdpb.GetRegionResponse {
	req := &pdpb.GetRegionRequest{Header: x.header(), RegionKey: x.api.regionKey(mode, []byte(key))}
	for {
		for _, pd := range x.pds {
			ctx, cancel := x.attempt()
			resp, err := pd.GetRegion(ctx, req)
			cancel()
			if err == nil && resp.Header.Error == nil && resp.Leader != nil {
				return resp
			}
		}
		x.pause()
	}
}

// answer is any answer of a store.
type answer interface{ GetRegionError() *errorpb.Error }

// send sends a request to the region of a key until a store takes it. sure is false if
// an attempt may have been carried out without an answer.
func send[P answer](x *chaos, mode KeyMode, key string, call func(context.Context, tikvpb.TikvClient, *kvrpcpb.Context) (P, error)) (resp P, sure bool) {
	sure = true
	for {
		r := x.region(mode, key)
		ctx, cancel := x.attempt()
		resp, err := call(ctx, x.kvs[r.Leader.StoreId], x.context(r.Region, r.Leader))
		cancel()
		switch {
		case err != nil:
			sure = false
			x.lost.Add(1)
		case resp.GetRegionError() == nil:
			return resp, sure
		}
		x.redone.Add(1)
		x.pause()
	}
}

// register writes growing numbers under a raw key, each once: a write without an answer
// happened or not, but a read after it settles which, for good.
func (x *chaos) register(key string, rounds int) error {
	settled := 0
	for n := 1; n <= rounds; n++ {
		value := fmt.Appendf(nil, "%d", n)
		r := x.region(KeyRaw, key)
		ctx, cancel := x.attempt()
		put, err := x.kvs[r.Leader.StoreId].RawPut(ctx, &kvrpcpb.RawPutRequest{Context: x.context(r.Region, r.Leader), Key: []byte(key), Value: value})
		cancel()
		acked, may := err == nil && put.RegionError == nil && put.Error == "", err != nil
		if err == nil && put.Error != "" {
			return fmt.Errorf("put %s: %s", key, put.Error)
		}
		if may {
			x.lost.Add(1)
		}
		for range 2 { // the second read must see what the first saw
			get, _ := send(x, KeyRaw, key, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.RawGetResponse, error) {
				return kv.RawGet(ctx, &kvrpcpb.RawGetRequest{Context: at, Key: []byte(key)})
			})
			seen := 0
			if !get.NotFound {
				if _, err := fmt.Sscan(string(get.Value), &seen); err != nil {
					return fmt.Errorf("get %s: %q %q", key, get.Value, get.Error)
				}
			}
			if seen != n && (acked || seen != settled) || seen == n && !acked && !may {
				return fmt.Errorf("%s is %d after %d (acknowledged: %v, lost: %v, settled before: %d)", key, seen, n, acked, may, settled)
			}
			settled, acked = seen, acked || seen == n
			may = may && seen == n
		}
	}
	return nil
}

// counter adds one to a raw key by compare-and-swap, and returns how often it surely and
// perhaps did.
func (x *chaos) counter(key string, rounds int) (sure, perhaps int, err error) {
	for range rounds {
		get, _ := send(x, KeyRaw, key, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.RawGetResponse, error) {
			return kv.RawGet(ctx, &kvrpcpb.RawGetRequest{Context: at, Key: []byte(key)})
		})
		n := 0
		_, _ = fmt.Sscan(string(get.Value), &n)
		cas, first := send(x, KeyRaw, key, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.RawCASResponse, error) {
			return kv.RawCompareAndSwap(ctx, &kvrpcpb.RawCASRequest{Context: at, Key: []byte(key),
				Value: fmt.Appendf(nil, "%d", n+1), PreviousValue: get.Value, PreviousNotExist: get.NotFound})
		})
		switch {
		case cas.Error != "":
			return sure, perhaps, fmt.Errorf("compare and swap: %s", cas.Error)
		case cas.Succeed:
			sure++
		case !first:
			perhaps++ // an attempt before this one may have been the one that did it
		}
	}
	return sure, perhaps, nil
}

// pair writes growing numbers to two keys of a transaction, apart from each other. Both
// always show the same, and nothing that was committed is lost.
func (x *chaos) pair(a, b string, rounds int) error {
	for n, committed := 1, 0; n <= rounds; n++ {
		start, value := x.now(), fmt.Appendf(nil, "%d", n)
		for _, key := range []string{a, b} {
			p, _ := send(x, KeyTxn, key, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.PrewriteResponse, error) {
				return kv.KvPrewrite(ctx, &kvrpcpb.PrewriteRequest{Context: at, StartVersion: start, PrimaryLock: []byte(a), LockTtl: 10,
					Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte(key), Value: value}}})
			})
			if len(p.Errors) > 0 {
				return fmt.Errorf("prewrite %s: %v", key, p.Errors)
			}
		}
		if n%3 == 0 { // it dies, and the next one settles what it left
			if err := x.settle(a, b, start, n%2 == 0); err != nil {
				return err
			}
		} else {
			commit := x.now()
			for _, key := range []string{a, b} {
				r, _ := send(x, KeyTxn, key, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.CommitResponse, error) {
					return kv.KvCommit(ctx, &kvrpcpb.CommitRequest{Context: at, StartVersion: start, CommitVersion: commit, Keys: [][]byte{[]byte(key)}})
				})
				if r.Error != nil {
					return fmt.Errorf("commit %s: %v", key, r.Error)
				}
			}
			committed = n
		}
		ts, want := x.now(), fmt.Sprint(committed)
		for _, key := range []string{a, b} {
			g, _ := send(x, KeyTxn, key, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.GetResponse, error) {
				return kv.KvGet(ctx, &kvrpcpb.GetRequest{Context: at, Key: []byte(key), Version: ts})
			})
			if g.Error != nil || string(g.Value) != want {
				return fmt.Errorf("%s at %d: %v, want %s", key, ts, g, want)
			}
		}
	}
	return nil
}

// settle rolls a transaction back from its primary key once its lock has expired, and its
// other key, by key or by region. A new leader's timestamps are up to five seconds ahead of
// the clock, and stand still until it has caught up.
func (x *chaos) settle(a, b string, start uint64, byKey bool) error {
	for began := time.Now(); ; {
		<-time.After(20 * time.Millisecond)
		now := x.now()
		s, _ := send(x, KeyTxn, a, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.CheckTxnStatusResponse, error) {
			return kv.KvCheckTxnStatus(ctx, &kvrpcpb.CheckTxnStatusRequest{Context: at, PrimaryKey: []byte(a), LockTs: start,
				CallerStartTs: now, CurrentTs: now, RollbackIfNotExist: true, VerifyIsPrimary: true})
		})
		if s.LockTtl != 0 && time.Since(began) < 6*time.Second {
			continue
		}
		if s.Error != nil || s.LockTtl != 0 || s.CommitVersion != 0 {
			return fmt.Errorf("status of %s: %v", a, s)
		}
		break
	}
	r, _ := send(x, KeyTxn, b, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.ResolveLockResponse, error) {
		q := &kvrpcpb.ResolveLockRequest{Context: at, StartVersion: start}
		if byKey {
			q.Keys = [][]byte{[]byte(b)}
		}
		return kv.KvResolveLock(ctx, q)
	})
	if r.Error != nil {
		return fmt.Errorf("resolve %s: %v", b, r)
	}
	return nil
}

// disturb changes the cluster until ctx ends: at most one store and one member of PD is
// down at a time.
func (x *chaos) disturb(ctx context.Context, r *rand.Rand) error {
	down := map[Node]bool{}
	toggle := func(n Node, none bool) error {
		switch {
		case down[n]:
			delete(down, n)
			return x.Cluster.Start(n)
		case none:
			down[n] = true
			return x.Stop(n)
		}
		return nil
	}
	of := func(member bool) (n Node, none bool) {
		if n = Store(1 + r.Uint64N(3)); member {
			n = Member(r.IntN(3))
		}
		for d := range down {
			if d.node.Kind == n.node.Kind {
				return d, false
			}
		}
		return n, true
	}
	for {
		select {
		case <-ctx.Done():
			for n := range down {
				if err := x.Cluster.Start(n); err != nil {
					return err
				}
			}
			return nil
		case <-time.After(time.Duration(1+r.IntN(40)) * time.Millisecond):
		}
		mode := KeyMode(KeyTxn)
		if r.IntN(2) == 0 {
			mode = KeyRaw
		}
		all := x.Regions(mode)
		some := all[r.IntN(len(all))]
		var err error
		switch r.IntN(6) {
		case 0, 1:
			_ = x.TransferLeader(some.ID, 1+r.Uint64N(3)) // to one that is down: refused
		case 2:
			if len(all) < 60 {
				_, err = x.Split(mode, fmt.Appendf(nil, "%c%02d", 'a'+rune(r.IntN(26)), r.IntN(100)))
			}
		case 3, 4:
			err = toggle(of(false))
		case 5:
			if r.IntN(2) == 0 {
				_ = x.TransferPD(r.IntN(3))
			} else {
				err = toggle(of(true))
			}
		}
		if err != nil {
			return err
		}
	}
}

func TestChaos(t *testing.T) {
	for _, dir := range []bool{false, true} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("dir=%v/%d", dir, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testChaos(t, seed, dir) })
			})
		}
	}
}

func testChaos(t *testing.T, seed uint64, dir bool) {
	const rounds = 40
	opts := []Option{WithMembers(3), WithSeed(seed)}
	path := t.TempDir()
	if dir {
		opts = append(opts, WithDir(path, false))
	}
	c := start(t, opts...)
	x := newChaos(t, c)
	tasks := task.New(t.Context())
	slow := c.Inject(Fault{Delay: 3 * time.Millisecond, Chance: 0.5})
	deaf := c.Inject(Fault{DropAnswer: true, Chance: 0.02})
	life, calm := context.WithCancel(t.Context())
	storm := make(chan error, 1)
	tasks.Go("disturb", func(context.Context) { storm <- x.disturb(life, rand.New(rand.NewPCG(seed, 5))) })
	var sure, perhaps [4]int
	err := task.Each(t.Context(), 0, 12, func(_ context.Context, i int) (err error) {
		switch at := fmt.Sprintf("%c50", 'b'+2*rune(i)); i % 3 {
		case 0:
			return x.register(at, rounds)
		case 1:
			sure[i/3], perhaps[i/3], err = x.counter("counter", rounds)
			return err
		default:
			return x.pair(at, at+"-other", rounds)
		}
	})
	slow.Remove()
	deaf.Remove()
	calm()
	if err := <-storm; err != nil {
		t.Error(err)
	}
	tasks.Close(nil)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second)               // until every connection is made again
	if err := c.TransferPD(0); err != nil { // whom the test's own calls ask
		t.Fatal(err)
	}
	v, _ := c.rawGet("counter")
	n, least, most := 0, 0, 0
	_, _ = fmt.Sscan(v, &n)
	for i := range sure {
		least, most = least+sure[i], most+sure[i]+perhaps[i]
	}
	if n < least || n > most || least == 0 {
		t.Errorf("the counter is %d, of %d to %d", n, least, most)
	}
	x.checkCalm()
	if s := c.Counts(); s.Splits < 10 || s.LeaderMoves < 15 || s.Starts < 5 || x.redone.Load() < 5 || x.lost.Load() == 0 {
		t.Errorf("too calm: %+v, %d redone, %d lost", s, x.redone.Load(), x.lost.Load())
	}
	if !dir {
		return
	}
	regions := c.Regions(KeyRaw)
	for addr, cc := range c.conns {
		_ = cc.Close()
		delete(c.conns, addr)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, WithDir(path, false))
	for i, r := range again.Regions(KeyRaw) {
		if i >= len(regions) || r.ID != regions[i].ID || !bytes.Equal(r.Start, regions[i].Start) || r.Version != regions[i].Version {
			t.Fatalf("region %d is %+v after the restart", i, r)
		}
	}
	if now, _ := again.rawGet("counter"); now != v {
		t.Errorf("the counter is %s after the restart, not %s", now, v)
	}
	if ts := again.timestamp(); ts <= x.last.Load() {
		t.Errorf("timestamp %d after %d", ts, x.last.Load())
	}
}

// checkCalm checks that nothing is left of the storm: every region has a leader, holds
// no command that would keep a split out, and no lock.
func (x *chaos) checkCalm() {
	x.t.Helper()
	if !x.topo.Led() {
		x.t.Error("a region has no leader")
	}
	for _, r := range x.Regions(KeyTxn) {
		at := append(bytes.Clone(r.Start), 0xff)
		if _, err := x.Split(KeyTxn, at); err != nil {
			x.t.Error(err)
		}
	}
	if locks := x.txn.Locks(keys.Range{}); len(locks) > 0 {
		x.t.Error("left locked:", locks)
	}
}
