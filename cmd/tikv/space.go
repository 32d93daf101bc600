package main

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/tikv-go/tikv"
)

// space is one of the two key spaces of a cluster.
type space interface {
	get(ctx context.Context, key []byte) ([]byte, error)
	put(ctx context.Context, key, value []byte, ttl time.Duration) error
	remove(ctx context.Context, keys [][]byte) error
	removeRange(ctx context.Context, r tikv.Range, progress func(keys int)) error
	scan(ctx context.Context, r tikv.Range, opts ...tikv.ScanOption) iter.Seq2[tikv.Pair, error]
}

func spaceOf(c *tikv.Client, raw bool) space {
	if raw {
		return rawSpace{c.Raw()}
	}
	return txnSpace{c}
}

// removePage is how many keys one transaction deletes of a range.
const removePage = 1000

type rawSpace struct{ raw *tikv.Raw }

func (s rawSpace) get(ctx context.Context, key []byte) ([]byte, error) { return s.raw.Get(ctx, key) }

func (s rawSpace) put(ctx context.Context, key, value []byte, ttl time.Duration) error {
	if ttl == 0 {
		return s.raw.Put(ctx, key, value)
	}
	return s.raw.Put(ctx, key, value, tikv.WithTTL(ttl))
}

func (s rawSpace) remove(ctx context.Context, keys [][]byte) error {
	return s.raw.BatchDelete(ctx, keys)
}

func (s rawSpace) removeRange(ctx context.Context, r tikv.Range, _ func(int)) error {
	return s.raw.DeleteRange(ctx, r, tikv.WithUnbounded())
}

func (s rawSpace) scan(ctx context.Context, r tikv.Range, opts ...tikv.ScanOption) iter.Seq2[tikv.Pair, error] {
	return s.raw.Scan(ctx, r, opts...)
}

type txnSpace struct{ c *tikv.Client }

func (s txnSpace) get(ctx context.Context, key []byte) ([]byte, error) {
	return s.c.Latest().Get(ctx, key)
}

func (s txnSpace) put(ctx context.Context, key, value []byte, ttl time.Duration) error {
	if ttl != 0 {
		return &usageError{errors.New("--ttl: transactional keys do not expire; use --raw")}
	}
	return s.c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error { return tx.Put(key, value) })
}

func (s txnSpace) remove(ctx context.Context, keys [][]byte) error {
	return s.c.RunTxn(ctx, func(_ context.Context, tx *tikv.Txn) error {
		for _, key := range keys {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeRange deletes in transactions of a bounded size: it is not atomic. Each goes on
// where the one before it ended, for what that one deleted still costs a scan time.
func (s txnSpace) removeRange(ctx context.Context, r tikv.Range, progress func(keys int)) error {
	for done := 0; ; {
		n, last := 0, []byte(nil)
		err := s.c.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
			n = 0
			for kv, err := range tx.Scan(ctx, r, tikv.WithKeysOnly(), tikv.WithLimit(removePage)) {
				if err != nil {
					return err
				}
				if err := tx.Delete(kv.Key); err != nil {
					return err
				}
				n++
				last = kv.Key
			}
			return nil
		})
		if err != nil {
			return err
		}
		if done += n; n < removePage {
			return nil
		}
		progress(done)
		r.Start = tikv.NextKey(last)
	}
}

func (s txnSpace) scan(ctx context.Context, r tikv.Range, opts ...tikv.ScanOption) iter.Seq2[tikv.Pair, error] {
	snap, err := s.c.Snapshot(ctx)
	if err != nil {
		return func(yield func(tikv.Pair, error) bool) { yield(tikv.Pair{}, err) }
	}
	return snap.Scan(ctx, r, opts...)
}
