package tikv_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
)

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

// askRegion sends a read of a key that the region holds to it.
func askRegion(ctx context.Context, p *parkTest, r playground.Region) error {
	key := r.Start
	if len(key) == 0 {
		key = parkKeys[0]
	}
	_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToRegion(tikv.KeyRaw, r.ID), tikvpb.TikvClient.RawGet, &kvrpcpb.RawGetRequest{Key: key})
	return err
}

// onPessimistic is a pessimistic transaction that has locked nothing.
func onPessimistic(fn func(ctx context.Context, tx *tikv.Txn) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		tx, err := p.client.Begin(ctx, tikv.WithPessimistic())
		return func(ctx context.Context) error { return errors.Join(fn(ctx, tx), tx.Rollback(ctx)) }, err
	}
}

// onPipelined is a pipelined transaction that has flushed a key.
func onPipelined(fn func(ctx context.Context, tx *tikv.Txn) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		tx, err := p.client.Begin(ctx, tikv.WithPipelined(tikv.Pipeline{}), tikv.WithTxnLimits(1, 1<<20))
		if err != nil {
			return nil, err
		}
		err = errors.Join(tx.Put([]byte("mine"), []byte("1")), tx.Put([]byte("next"), nil), tx.Put([]byte("last"), nil))
		return func(ctx context.Context) error { return errors.Join(fn(ctx, tx), tx.Rollback(ctx)) }, err
	}
}

func onFair(fn func(ctx context.Context, f *tikv.FairLock) error) func(context.Context, *parkTest) (func(context.Context) error, error) {
	return func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		tx, err := p.client.Begin(ctx, tikv.WithPessimistic())
		if err != nil {
			return nil, err
		}
		f, err := tx.FairLock()
		return func(ctx context.Context) error { return fn(ctx, f) }, err
	}
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
	}), append(with(streamPoints, atLock, atConflict, atLatch), tsPoints...), true},

	{"Client.ResolveOutcome", func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		ts, err := p.client.Timestamp(ctx)
		lost := &tikv.UndeterminedError{StartTS: ts, Primary: parkKeys[0]}
		return func(ctx context.Context) error { _, err := p.client.ResolveOutcome(ctx, lost); return err }, err
	}, readPoints, false},

	{"Client.Warm", simple(func(ctx context.Context, p *parkTest) error {
		return p.client.Warm(ctx, tikv.KeyRaw, tikv.Range{}, tikv.Range{Start: parkKeys[0], End: parkKeys[1]})
	}), []*parkPoint{atLookup, atStore, atDial, atPDCold, atSearch}, false},

	{"Raw.Get", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, err := r.Get(ctx, parkKeys[0]); return err }), with(streamPoints, atPDCold, atSearch, atForwarded, atDrain), false},
	{"Raw.BatchGet", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, err := r.BatchGet(ctx, parkKeys); return err }), streamPoints, false},
	{"Raw.Scan", onRaw(func(ctx context.Context, r *tikv.Raw) error { return drain(r.Scan(ctx, tikv.Range{})) }), streamPoints, false},
	{"Raw.Scan backwards", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		return drain(r.Scan(ctx, tikv.Range{}, tikv.WithReverse()))
	}), streamPoints, false},
	{"Raw.BatchScan", onRaw(func(ctx context.Context, r *tikv.Raw) error {
		_, err := r.BatchScan(ctx, []tikv.Range{{}, {Start: parkKeys[1]}}, 10)
		return err
	}), streamPoints, false},
	{"Raw.TTL", onRaw(func(ctx context.Context, r *tikv.Raw) error { _, _, err := r.TTL(ctx, parkKeys[0]); return err }), with(unaryPoints, atForwarded, atDrain), false},
	{"Raw.Put", onRaw(func(ctx context.Context, r *tikv.Raw) error { return r.Put(ctx, parkKeys[0], []byte("1")) }), with(streamPoints, atForwarded, atDrain), false},
	{"Raw.Put of an atomic view", onAtomic(func(ctx context.Context, r *tikv.AtomicRaw) error {
		return r.Put(ctx, parkKeys[0], []byte("1"), tikv.WithKeepTTL())
	}), with(unaryPoints, atSwap), false},
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

	{"Snapshot.Get", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.Get(ctx, parkKeys[0]); return err }), with(readPoints, atQuery, atForwarded, atDrain), false},
	{"Snapshot.Get of the latest", onLatest(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.Get(ctx, parkKeys[1]); return err }), with(streamPoints, atLock, atStatus), false},
	{"Snapshot.BatchGet", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.BatchGet(ctx, parkKeys); return err }), readPoints, false},
	{"Snapshot.BatchGet of the latest", onLatest(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.BatchGet(ctx, parkKeys); return err }), with(streamPoints, atLock, atStatus), false},
	{"Snapshot.Get of a replica", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error {
		_, err := s.With(tikv.WithReplicaRead(tikv.ReadFollower)).Get(ctx, parkKeys[0])
		return err
	}), with(readPoints, atReplica), false},
	{"Snapshot.Get of the past", func(ctx context.Context, p *parkTest) (func(context.Context) error, error) {
		ts, err := p.client.Timestamp(ctx)
		snap := p.client.SnapshotAt(ts, tikv.WithStaleRead(), tikv.WithReplicaRead(tikv.ReadFollower))
		return func(ctx context.Context) error { _, err := snap.Get(ctx, parkKeys[0]); return err }, err
	}, with(readPoints, atReplica, atFallback), false},
	{"Snapshot.Get twice", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error {
		_, err := s.With(tikv.WithHedging(time.Millisecond)).Get(ctx, parkKeys[0])
		return err
	}), with(readPoints, atHedge, atHedgeAlone), false},
	{"Snapshot.BatchGet of any replica", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error {
		_, err := s.With(tikv.WithReplicaRead(tikv.ReadAny), tikv.WithReadTimeout(time.Hour)).BatchGet(ctx, parkKeys)
		return err
	}), with(readPoints, atReplica), false},
	{"Snapshot.GetVersions", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { _, err := s.GetVersions(ctx, parkKeys); return err }), readPoints, false},
	{"Snapshot.Scan", onSnapshot(func(ctx context.Context, s *tikv.Snapshot) error { return drain(s.Scan(ctx, tikv.Range{})) }), readPoints, false},
	{"Snapshot.Scan of the latest", onLatest(func(ctx context.Context, s *tikv.Snapshot) error { return drain(s.Scan(ctx, tikv.Range{})) }), with(streamPoints, atLock, atStatus), false},

	{"Call", onRPC(func(ctx context.Context, v *tikv.RPC) error {
		_, err := tikv.Call(ctx, v, tikv.ToKey(tikv.KeyTxn, parkKeys[0]), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: parkKeys[0]})
		return err
	}), with(readPoints, atForwarded, atDrain), false},
	{"Call of a write", simple(func(ctx context.Context, p *parkTest) error {
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToKey(tikv.KeyRaw, parkKeys[0]), tikvpb.TikvClient.RawPut, &kvrpcpb.RawPutRequest{Key: parkKeys[0], Value: []byte("1")})
		return err
	}), streamPoints, false},
	{"Call of a command that is not batched", simple(func(ctx context.Context, p *parkTest) error {
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToKey(tikv.KeyTxn, parkKeys[0]), tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: parkKeys[0]})
		return err
	}), unaryPoints, false},
	{"Call to a region", simple(func(ctx context.Context, p *parkTest) error {
		return askRegion(ctx, p, p.cluster.Regions(playground.KeyRaw)[0])
	}),
		with(streamPoints, atRegionByID, atQuery, atPDCold, atSearch), false},
	{"Call to a new region", func(_ context.Context, p *parkTest) (func(context.Context) error, error) {
		known := p.cluster.Regions(playground.KeyRaw)
		return func(ctx context.Context) error {
			regions := p.cluster.Regions(playground.KeyRaw)
			if at := slices.IndexFunc(regions, func(r playground.Region) bool { return r.ID != known[0].ID }); at >= 0 {
				return askRegion(ctx, p, regions[at])
			}
			return askRegion(ctx, p, regions[0])
		}, nil
	}, []*parkPoint{atBehind}, false},
	{"Call to a store", simple(func(ctx context.Context, p *parkTest) error {
		_, err := tikv.Call(ctx, p.client.RPC(), tikv.ToStore(1), tikvpb.TikvClient.GetLockWaitInfo, &kvrpcpb.GetLockWaitInfoRequest{})
		return err
	}), []*parkPoint{atStore, atDial, atResponse, atFull, atAway}, false},
	{"CallRange", onRPC(func(ctx context.Context, v *tikv.RPC) error {
		_, err := tikv.Collect(tikv.CallRange(ctx, v, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.Coprocessor, &coprocessor.Request{Tp: 103}))
		return err
	}), readPoints, false},
	{"CallStream", onRPC(func(ctx context.Context, v *tikv.RPC) error {
		_, err := tikv.Collect(tikv.CallStream(ctx, v, tikv.ToKey(tikv.KeyTxn, parkKeys[0]), tikvpb.TikvClient.CoprocessorStream,
			&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{}}}))
		return err
	}), with(unaryPoints, atSafePoint, atNextMessage, atDrain), false},

	{"Txn.Get", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.Get(ctx, parkKeys[0]); return err }), readPoints, false},
	{"Txn.BatchGet", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.BatchGet(ctx, parkKeys); return err }), readPoints, false},
	{"Txn.Get of a flushed key", onPipelined(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.Get(ctx, []byte("mine")); return err }), flushPoints, true},
	{"Txn.BatchGet of a flushed key", onPipelined(func(ctx context.Context, tx *tikv.Txn) error {
		_, err := tx.BatchGet(ctx, append([][]byte{[]byte("mine")}, parkKeys...))
		return err
	}), flushPoints, true},
	{"Txn.GetVersions", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.GetVersions(ctx, parkKeys); return err }), readPoints, false},
	{"Txn.Scan", onTxn(func(ctx context.Context, tx *tikv.Txn) error { return drain(tx.Scan(ctx, tikv.Range{})) }), readPoints, false},
	{"Txn.Lock", onTxn(func(ctx context.Context, tx *tikv.Txn) error { return tx.Lock(ctx, parkKeys) }), nil, false},
	{"Txn.Lock pessimistic", onPessimistic(func(ctx context.Context, tx *tikv.Txn) error { return tx.Lock(ctx, parkKeys) }), streamPoints, true},
	{"Txn.GetForUpdate", onTxn(func(ctx context.Context, tx *tikv.Txn) error { _, err := tx.GetForUpdate(ctx, parkKeys[0]); return err }), readPoints, false},
	{"Txn.GetForUpdate pessimistic", onPessimistic(func(ctx context.Context, tx *tikv.Txn) error {
		stage, err := tx.FairLock()
		if err == nil {
			_, err = tx.GetForUpdate(ctx, parkKeys[0])
		}
		return errors.Join(err, stage.Cancel(ctx))
	}), streamPoints, true},
	{"Txn.BatchGetForUpdate", onTxn(func(ctx context.Context, tx *tikv.Txn) error {
		_, err := tx.BatchGetForUpdate(ctx, parkKeys)
		return err
	}), readPoints, false},
	{"FairLock.Retry", onFair(func(ctx context.Context, f *tikv.FairLock) error { return f.Retry(ctx) }), nil, false},
	{"FairLock.Done", onFair(func(ctx context.Context, f *tikv.FairLock) error { return f.Done(ctx) }), nil, false},
	{"FairLock.Cancel", onFair(func(ctx context.Context, f *tikv.FairLock) error { return f.Cancel(ctx) }), nil, false},
	{"Txn.Commit", onLockable(func(ctx context.Context, tx *tikv.Txn) error { return tx.Commit(ctx) }), with(streamPoints, atTimestamp, atLock, atStatus, atForwarded, atDrain, atLatch), true},
	{"Txn.Commit pipelined", onPipelined(func(ctx context.Context, tx *tikv.Txn) error { return tx.Commit(ctx) }), with(flushPoints, atTimestamp), true},
	{"Txn.Rollback pipelined", onPipelined(func(ctx context.Context, tx *tikv.Txn) error { return tx.Rollback(ctx) }), flushPoints, true},
	{"Txn.Rollback", onTxn(func(ctx context.Context, tx *tikv.Txn) error { return tx.Rollback(ctx) }), nil, false},
}

func closeOpened(c *tikv.Client, err error) error {
	if err != nil {
		return err
	}
	return c.Close()
}
