package tikv_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/tikvtest"
)

// A snapshot behind the safe point is refused, by each call and in each way to get one; one
// at the safe point is not.
func TestSnapshotTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		before := cluster.Open()
		old := commit(t, before, "a", "1")
		safe := commit(t, before, "a", "2")
		conn, err := grpc.NewClient("passthrough:///"+cluster.PD()[0], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return cluster.DialContext(ctx, addr) }))
		must(t, err)
		defer conn.Close()
		advanced, err := pdpb.NewPDClient(conn).AdvanceTxnSafePoint(t.Context(),
			&pdpb.AdvanceTxnSafePointRequest{Header: &pdpb.RequestHeader{ClusterId: cluster.ID()}, Target: uint64(safe)})
		if err != nil || advanced.Header.Error != nil {
			t.Fatal(advanced, err)
		}
		c := cluster.Open()
		want(t, c.SnapshotAt(safe), "a", "2")
		snap := c.SnapshotAt(old)
		for name, err := range map[string]error{
			"Get":      second(snap.Get(t.Context(), b("a"))),
			"BatchGet": second(snap.BatchGet(t.Context(), ks("a"))),
			"Scan":     second(tikv.Collect(snap.Scan(t.Context(), tikv.Range{}))),
			"With":     second(snap.With(tikv.WithNoFillCache()).Get(t.Context(), b("a"))),
		} {
			var e *tikv.SnapshotTooOldError
			if !errors.Is(err, tikv.ErrSnapshotTooOld) || !errors.As(err, &e) || e.ReadTS != old || e.SafePoint != safe || tikv.IsRetryable(err) || !tikv.NotSent(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A read that is committed alone passes the lock that a snapshot waits for.
func TestReadCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := tikvtest.NewCluster(t).Open()
		commit(t, c, "a", "1")
		start, err := c.Timestamp(t.Context())
		must(t, err)
		locked, err := tikv.Call(t.Context(), c.RPC(), tikv.ToKey(tikv.KeyTxn, b("a")), tikvpb.TikvClient.KvPrewrite, &kvrpcpb.PrewriteRequest{
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: b("a"), Value: b("2")}}, PrimaryLock: b("a"), StartVersion: uint64(start), LockTtl: 5000,
		})
		if err != nil || len(locked.Errors) > 0 {
			t.Fatal(locked, err)
		}
		snap, err := c.Snapshot(t.Context())
		must(t, err)
		began := time.Now()
		want(t, snap.With(tikv.WithIsolation(tikv.IsolationRC)), "a", "1")
		if d := time.Since(began); d > 0 {
			t.Errorf("it has waited %v", d)
		}
		want(t, snap, "a", "1") // when the lock is over
		if d := time.Since(began); d < 4*time.Second {
			t.Errorf("a snapshot has waited %v", d)
		}
	})
}

// Who may not wait for a shared lock is told that it is one.
func TestSharedLockIsTold(t *testing.T) {
	dueling(t, func(d *duel) {
		ctx := d.Context()
		must(d.T, d.one.Lock(ctx, ks("z"), tikv.WithShared()))
		var e *tikv.LockedError
		if err := d.two.Lock(ctx, ks("z"), tikv.WithNoWait()); !errors.As(err, &e) || !e.Lock.Shared || e.Lock.StartTS != d.one.StartTS() || string(e.Lock.Primary) != "a" {
			d.Errorf("%+v %v, want %d", e.Lock, err, d.one.StartTS())
		}
	})
}

// weighing is a hook that adds up what answers weigh.
type weighing struct {
	mu    sync.Mutex
	bytes int
}

func (a *weighing) StartRPC(ctx context.Context, _ tikv.CallInfo) context.Context { return ctx }

func (a *weighing) EndRPC(_ context.Context, info tikv.CallInfo, res tikv.CallResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if info.Method == "RawGet" {
		a.bytes += res.ResponseBytes
	}
}

func TestHooksWeighAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := new(weighing)
		c := tikvtest.NewCluster(t).Open(tikv.WithHooks(tikv.RPCHook(seen)))
		put(t, c.Raw(), "k", string(make([]byte, 1000)))
		if _, err := c.Raw().Get(t.Context(), b("k")); err != nil {
			t.Fatal(err)
		}
		seen.mu.Lock()
		defer seen.mu.Unlock()
		if seen.bytes < 1000 || seen.bytes > 1200 {
			t.Errorf("an answer with 1,000 bytes weighs %d", seen.bytes)
		}
	})
}
