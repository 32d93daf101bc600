package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/bench/internal/harness"
)

// ours is this project's client as any program would use it.
const ours = "tikv-go"

// ourClient is the part of the program that is a client under measurement.
func ourClient(ctx context.Context, in io.Reader, out io.Writer) error {
	return harness.Serve(ctx, ourVersion(), in, out, openOurs)
}

func ourVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ours
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return ours + " " + s.Value[:min(8, len(s.Value))]
		}
	}
	return ours
}

// user is a program that uses the client: each method is an operation.
type user struct {
	harness.Data
	ctx     context.Context
	client  *tikv.Client
	raw     *tikv.Raw
	ts      tikv.Timestamp
	batches [][][]byte // each caller's own, filled again for each operation
}

// operations are the workloads that the client has calls for by now.
func (u *user) operations() map[string]harness.Op {
	return map[string]harness.Op{
		"noop":           func(caller, i int) error { _ = u.At(caller, i); return nil },
		"rawget":         u.rawGet,
		"rawput":         u.rawPut,
		"rawbatchget50":  u.rawBatchGet,
		"rawscan100":     u.rawScan,
		"snapget":        u.snapshotGet,
		"snapbatchget50": u.snapshotBatchGet,
		"tso":            u.timestamp,
		"txn2pc":         u.transaction(1, tikv.CommitTwoPhase),
		"txnasync":       u.transaction(1, tikv.CommitAsync),
		"txn1pc":         u.transaction(1, tikv.CommitAuto),
		"txnpess":        u.pessimistic,
		"txn1000":        u.transaction(1000, tikv.CommitTwoPhase),
		"txn100k":        u.transaction(100_000, tikv.CommitTwoPhase),
	}
}

// openOurs is a harness.Open.
func openOurs(ctx context.Context, s harness.Spec, d harness.Data) (op harness.Op, stop func() error, err error) {
	u := &user{Data: d, ctx: ctx, batches: make([][][]byte, s.Callers)}
	op, ok := u.operations()[s.Workload]
	if !ok {
		return nil, nil, fmt.Errorf("%w: %s", errNotYet, s.Workload)
	}
	for i := range u.batches {
		u.batches[i] = make([][]byte, batchSize)
	}
	if s.Workload == "noop" {
		return op, func() error { return nil }, nil
	}
	if u.client, err = tikv.Open(ctx, s.PD); err != nil {
		return nil, nil, err
	}
	u.raw = u.client.Raw()
	if u.ts, err = u.client.Timestamp(ctx); err != nil {
		u.client.Close()
		return nil, nil, err
	}
	return op, u.client.Close, nil
}

var errNotYet = errors.New("this client has no calls yet for")

// Sizes that the names of workloads say.
const (
	batchSize = 50
	scanLimit = 100
)

func (u *user) rawGet(caller, i int) error { return u.value(u.raw.Get(u.ctx, u.At(caller, i))) }

func (u *user) rawPut(caller, i int) error { return u.raw.Put(u.ctx, u.At(caller, i), u.Value) }

func (u *user) rawBatchGet(caller, i int) error {
	return u.values(u.raw.BatchGet(u.ctx, u.Batch(u.batches[caller], caller, i)))
}

func (u *user) rawScan(caller, i int) error {
	n := 0
	for kv, err := range u.raw.Scan(u.ctx, tikv.Range{Start: u.From(scanLimit, caller, i)}, tikv.WithLimit(scanLimit)) {
		if err := u.value(kv.Value, err); err != nil {
			return err
		}
		n++
	}
	if n != scanLimit {
		return fmt.Errorf("a scan of %d pairs", n)
	}
	return nil
}

func (u *user) snapshotGet(caller, i int) error {
	return u.value(u.client.SnapshotAt(u.ts).Get(u.ctx, u.At(caller, i)))
}

func (u *user) snapshotBatchGet(caller, i int) error {
	return u.values(u.client.SnapshotAt(u.ts).BatchGet(u.ctx, u.Batch(u.batches[caller], caller, i)))
}

func (u *user) timestamp(int, int) error {
	_, err := u.client.Timestamp(u.ctx)
	return err
}

func (u *user) transaction(n int, mode tikv.CommitMode) harness.Op {
	how := tikv.WithCommitMode(mode)
	return func(caller, i int) error {
		tx, err := u.client.Begin(u.ctx)
		if err != nil {
			return err
		}
		if err := u.Spread(n, caller, i, func(key []byte) error { return tx.Put(key, u.Value) }); err != nil {
			return err
		}
		return tx.Commit(u.ctx, how)
	}
}

// pessimistic locks and writes one key, as the rival does.
func (u *user) pessimistic(caller, i int) error {
	tx, err := u.client.Begin(u.ctx, tikv.WithPessimistic(), tikv.WithCommitMode(tikv.CommitTwoPhase))
	if err != nil {
		return err
	}
	err = u.Spread(1, caller, i, func(key []byte) error {
		if err := tx.Lock(u.ctx, [][]byte{key}); err != nil {
			return err
		}
		return tx.Put(key, u.Value)
	})
	if err != nil {
		return err
	}
	return tx.Commit(u.ctx)
}

// value checks what a get returned.
func (u *user) value(v []byte, err error) error {
	if err == nil && len(v) != len(u.Value) {
		return fmt.Errorf("a value of %d bytes", len(v))
	}
	return err
}

// values checks what a batch get returned.
func (u *user) values(vs [][]byte, err error) error {
	if err != nil {
		return err
	}
	if len(vs) != batchSize {
		return fmt.Errorf("%d values", len(vs))
	}
	return u.value(vs[batchSize-1], nil)
}
