package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tikv/client-go/v2/config"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/oracle"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/txnkv/transaction"

	"github.com/tikv-go/tikv/bench/rival/internal/harness"
)

// user is a program that uses the client: each method is an operation. It has a raw client
// or a transactional one, not both.
type user struct {
	harness.Data
	ctx     context.Context
	raw     *rawkv.Client
	txn     *tikv.KVStore
	ts      uint64
	batches [][][]byte // each caller's own, filled again for each operation
}

// Sizes that the names of workloads say.
const (
	batchSize = 50
	scanLimit = 100
)

func (u *user) operations() map[string]harness.Op {
	plain := func(n int) harness.Op {
		return func(caller, i int) error { return u.transaction(n, caller, i, nil) }
	}
	return map[string]harness.Op{
		"noop":           func(caller, i int) error { _ = u.At(caller, i); return nil },
		"rawget":         u.rawGet,
		"rawput":         u.rawPut,
		"rawbatchget50":  u.rawBatchGet,
		"rawscan100":     u.rawScan,
		"snapget":        u.snapshotGet,
		"snapbatchget50": u.snapshotBatchGet,
		"tso":            u.timestamp,
		"txn2pc":         plain(1),
		"txn1000":        plain(1000),
		"txn100k":        plain(100_000),
		"txnasync": func(caller, i int) error {
			return u.transaction(1, caller, i, func(t *transaction.KVTxn, _ []byte) error { t.SetEnableAsyncCommit(true); return nil })
		},
		"txn1pc": func(caller, i int) error {
			return u.transaction(1, caller, i, func(t *transaction.KVTxn, _ []byte) error { t.SetEnable1PC(true); return nil })
		},
		"txnpess": func(caller, i int) error { return u.transaction(1, caller, i, u.lock) },
	}
}

// open is a harness.Open.
func open(ctx context.Context, s harness.Spec, d harness.Data) (op harness.Op, stop func() error, err error) {
	w, err := harness.Find(s.Workload)
	if err != nil {
		return nil, nil, err
	}
	u := &user{Data: d, ctx: ctx, batches: make([][][]byte, s.Callers)}
	for i := range u.batches {
		u.batches[i] = make([][]byte, batchSize)
	}
	op, ok := u.operations()[w.Name]
	if !ok {
		return nil, nil, fmt.Errorf("no workload %s", w.Name)
	}
	switch w.Keys {
	case harness.NoKeys:
		return op, func() error { return nil }, nil
	case harness.RawKeys:
		u.raw, err = rawkv.NewClientWithOpts(ctx, s.PD)
		if err != nil {
			return nil, nil, err
		}
		return op, u.raw.Close, nil
	}
	if u.txn, err = openTxn(s.PD); err != nil {
		return nil, nil, err
	}
	if u.ts, err = u.now(); err != nil {
		return nil, nil, errors.Join(err, u.txn.Close())
	}
	return op, u.txn.Close, nil
}

// openTxn is txnkv.NewClient without its connection to etcd, which the null store has not.
func openTxn(pd []string) (*tikv.KVStore, error) {
	c, err := tikv.NewPDClient(pd)
	if err != nil {
		return nil, err
	}
	codec := tikv.NewCodecPDClient(tikv.ModeTxn, intercepted(c))
	rpc := tikv.NewRPCClient(tikv.WithSecurity(config.GetGlobalConfig().Security), tikv.WithCodec(codec.GetCodec()))
	return tikv.NewKVStore("bench", codec, tikv.NewMockSafePointKV(), rpc)
}

func (u *user) rawGet(caller, i int) error { return u.value(u.raw.Get(u.ctx, u.At(caller, i))) }

func (u *user) rawPut(caller, i int) error { return u.raw.Put(u.ctx, u.At(caller, i), u.Value) }

func (u *user) rawBatchGet(caller, i int) error {
	vs, err := u.raw.BatchGet(u.ctx, u.Batch(u.batches[caller], caller, i))
	if err == nil && len(vs) != batchSize {
		return fmt.Errorf("%d values", len(vs))
	}
	if err == nil {
		err = u.value(vs[batchSize-1], nil)
	}
	return err
}

func (u *user) rawScan(caller, i int) error {
	keys, values, err := u.raw.Scan(u.ctx, u.From(scanLimit, caller, i), nil, scanLimit)
	if err == nil && len(keys) != scanLimit {
		return fmt.Errorf("a scan of %d pairs", len(keys))
	}
	for i := range values {
		if err := u.value(values[i], err); err != nil {
			return err
		}
	}
	return err
}

func (u *user) snapshotGet(caller, i int) error {
	v, err := u.txn.GetSnapshot(u.ts).Get(u.ctx, u.At(caller, i))
	return u.value(bytesOf(v), err)
}

// snapshotBatchGet may find fewer values than keys: a batch may have one twice.
func (u *user) snapshotBatchGet(caller, i int) error {
	vs, err := u.txn.GetSnapshot(u.ts).BatchGet(u.ctx, u.Batch(u.batches[caller], caller, i))
	if err == nil && len(vs) < batchSize*4/5 {
		return fmt.Errorf("%d values", len(vs))
	}
	return err
}

func (u *user) timestamp(int, int) error {
	_, err := u.now()
	return err
}

func (u *user) now() (uint64, error) {
	return u.txn.GetOracle().GetTimestamp(u.ctx, &oracle.Option{TxnScope: oracle.GlobalTxnScope})
}

// transaction writes n keys; prepare sees it before, with the first.
func (u *user) transaction(n, caller, i int, prepare func(t *transaction.KVTxn, key []byte) error) error {
	t, err := u.txn.Begin()
	if err != nil {
		return err
	}
	if prepare != nil {
		err := u.Spread(1, caller, i, func(key []byte) error { return prepare(t, key) })
		if err != nil {
			return errors.Join(err, t.Rollback())
		}
	}
	if err := u.Spread(n, caller, i, func(key []byte) error { return t.Set(key, u.Value) }); err != nil {
		return errors.Join(err, t.Rollback())
	}
	return t.Commit(u.ctx)
}

func (u *user) lock(t *transaction.KVTxn, key []byte) error {
	t.SetPessimistic(true)
	return t.LockKeys(u.ctx, kv.NewLockCtx(t.StartTS(), kv.LockAlwaysWait, time.Now()), key)
}

// value checks what a get returned.
func (u *user) value(v []byte, err error) error {
	if err == nil && len(v) != len(u.Value) {
		return fmt.Errorf("a value of %d bytes", len(v))
	}
	return err
}
