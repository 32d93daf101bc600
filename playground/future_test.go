package playground

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// A timestamp that PD can not have given out is refused where it would raise max_ts: a
// minute ahead is the clocks' drift, and nothing is where a request settles another's
// transaction, unless TiDB sends it (TiKV components/concurrency_manager/src/lib.rs,
// update_max_ts).
func TestInventedTimestamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		ctx, kv := c.at(KeyTxn, "k")
		c.Advance(time.Hour)
		c.timestamp()
		c.Advance(-time.Hour) // the clock goes back, PD's timestamps do not
		now := c.timestamp()
		after := func(ms uint64) uint64 { return now + ms<<18 }
		key, max := []byte("k"), ^uint64(0)
		type ask func(tikvpb.TikvClient, *kvrpcpb.Context, uint64) (*errorpb.Error, error)
		get := func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
			r, err := kv.KvGet(t.Context(), &kvrpcpb.GetRequest{Context: ctx, Key: key, Version: ts})
			return r.GetRegionError(), err
		}
		scan := func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
			r, err := kv.KvScan(t.Context(), &kvrpcpb.ScanRequest{Context: ctx, StartKey: key, Version: ts, Limit: 1})
			return r.GetRegionError(), err
		}
		batch := func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
			r, err := kv.KvBatchGet(t.Context(), &kvrpcpb.BatchGetRequest{Context: ctx, Keys: [][]byte{key}, Version: ts})
			return r.GetRegionError(), err
		}
		prewrite := func(op kvrpcpb.Op) ask {
			return func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
				r, err := kv.KvPrewrite(t.Context(), &kvrpcpb.PrewriteRequest{Context: ctx, PrimaryLock: key, StartVersion: ts, LockTtl: 1,
					Mutations: []*kvrpcpb.Mutation{{Op: op, Key: key}}})
				return r.GetRegionError(), err
			}
		}
		status := func(caller, current bool) ask {
			return func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
				q := &kvrpcpb.CheckTxnStatusRequest{Context: ctx, PrimaryKey: key, LockTs: 5, RollbackIfNotExist: true}
				if caller {
					q.CallerStartTs = ts
				}
				if current {
					q.CurrentTs = ts
				}
				r, err := kv.KvCheckTxnStatus(t.Context(), q)
				return r.GetRegionError(), err
			}
		}
		locks := func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
			r, err := kv.KvScanLock(t.Context(), &kvrpcpb.ScanLockRequest{Context: ctx, MaxVersion: ts})
			return r.GetRegionError(), err
		}
		secondaries := func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
			r, err := kv.KvCheckSecondaryLocks(t.Context(), &kvrpcpb.CheckSecondaryLocksRequest{Context: ctx, Keys: [][]byte{[]byte("other")}, StartVersion: ts})
			return r.GetRegionError(), err
		}
		lock := func(change func(*kvrpcpb.PessimisticLockRequest)) ask {
			return func(kv tikvpb.TikvClient, ctx *kvrpcpb.Context, ts uint64) (*errorpb.Error, error) {
				key := []byte("locked")
				q := &kvrpcpb.PessimisticLockRequest{Context: ctx, PrimaryLock: key, StartVersion: 7, ForUpdateTs: ts, LockTtl: 1,
					Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: key}}}
				change(q)
				r, err := kv.KvPessimisticLock(t.Context(), q)
				return r.GetRegionError(), err
			}
		}
		tidb := func(ctx *kvrpcpb.Context) { ctx.RequestOrigin = kvrpcpb.RequestOrigin_RequestOriginTiDB }
		stale := func(ctx *kvrpcpb.Context) { ctx.StaleRead = true }
		for _, test := range []struct {
			name    string
			ask     ask
			ctx     func(*kvrpcpb.Context)
			ts      uint64
			refused bool
		}{
			{"get now", get, nil, now, false},
			{"get in a minute", get, nil, after(59_000), false},
			{"get later", get, nil, after(62_000), true},
			{"get the latest", get, nil, max, false},
			{"stale get later", get, stale, after(62_000), false},
			{"scan later", scan, nil, after(62_000), true},
			{"batch get later", batch, nil, after(62_000), true},
			{"insert later", prewrite(kvrpcpb.Op_Insert), nil, after(62_000), true},
			{"check later", prewrite(kvrpcpb.Op_CheckNotExists), nil, after(62_000), true},
			{"put later", prewrite(kvrpcpb.Op_Put), nil, after(62_000), false},
			{"lock later", lock(func(*kvrpcpb.PessimisticLockRequest) {}), nil, after(62_000), false},
			{"lock and read later", lock(func(q *kvrpcpb.PessimisticLockRequest) { q.ReturnValues = true }), nil, after(62_000), true},
			{"lock and look later", lock(func(q *kvrpcpb.PessimisticLockRequest) { q.CheckExistence = true }), nil, after(62_000), true},
			{"lock what is absent later", lock(func(q *kvrpcpb.PessimisticLockRequest) { q.Mutations[0].Assertion = kvrpcpb.Assertion_NotExist }), nil, after(62_000), true},
			{"status now", status(true, true), nil, now, false},
			{"status, caller in a second", status(true, false), nil, after(2000), true},
			{"status, current in a second", status(false, true), nil, after(2000), true},
			{"status of TiDB in a second", status(true, true), tidb, after(2000), false},
			{"status of TiDB later", status(true, true), tidb, after(62_000), true},
			{"status, no end", status(true, true), nil, max, false},
			{"locks in a second", locks, nil, after(2000), true},
			{"locks up to the end", locks, nil, max, false},
			{"secondaries in a second", secondaries, nil, after(2000), true},
		} {
			rctx := *ctx
			if test.ctx != nil {
				test.ctx(&rctx)
			}
			e, err := test.ask(kv, &rctx, test.ts)
			if err != nil {
				t.Fatal(test.name, err)
			}
			if got := strings.HasPrefix(e.GetMessage(), "invalid max_ts update: "); got != test.refused || (e != nil) != test.refused {
				t.Errorf("%s: %v", test.name, e)
			}
		}
	})
}
