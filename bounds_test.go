package tikv_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// Scans with every pair of bounds, both ways, in pages and with limits, over regions
// that begin at keys, between them and at 0xff: each view yields what a sorted list says.
func TestScanBounds(t *testing.T) {
	var keys [][]byte
	for _, k := range []string{"\x00", "a", "a\x00", "a\xff", "m", "m\x00", "z", "\xff", "\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		keys = append(keys, b(k))
	}
	borders := [][]byte{b("a"), b("m"), b("m\x00"), b("\xff")}
	for _, api := range []playground.APIVersion{playground.APIV1, playground.APIV1TTL, playground.APIV2} {
		for _, mode := range []playground.KeyMode{playground.KeyTxn, playground.KeyRaw} {
			if api == playground.APIV1TTL && mode == playground.KeyTxn {
				continue
			}
			t.Run(api.String()+map[playground.KeyMode]string{playground.KeyTxn: " txn", playground.KeyRaw: " raw"}[mode], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := tikvtest.NewCluster(t, playground.WithAPIVersion(api), playground.WithSplitKeys(mode, borders...)).Open()
					if mode == playground.KeyRaw {
						for _, k := range keys {
							must(t, c.Raw().Put(t.Context(), k, nil))
						}
						scanBounds(t, c.Raw(), keys)
						return
					}
					must(t, c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return putAll(tx, "", keys...) }))
					tx := begin(t, c)
					must(t, putAll(tx, "own", keys[1], keys[4], keys[9]))
					for _, r := range []tikv.Reader{tx, tx.Snapshot(), c.Latest()} {
						scanBounds(t, r, keys)
					}
				})
			})
		}
	}
}

func scanBounds(t *testing.T, r tikv.Reader, keys [][]byte) {
	sorted := slices.SortedFunc(slices.Values(keys), bytes.Compare)
	bounds := append([][]byte{nil, b("c"), bytes.Repeat(b("\xff"), 12)}, keys...)
	for _, lo := range bounds {
		for _, hi := range bounds {
			rg := tikv.Range{Start: lo, End: hi}
			for i := range 8 {
				want := slices.DeleteFunc(slices.Clone(sorted), func(k []byte) bool { return !rg.Contains(k) })
				var opts []tikv.ScanOption
				if i&1 != 0 {
					opts = append(opts, tikv.WithReverse())
					slices.Reverse(want)
				}
				if i&2 != 0 {
					opts = append(opts, tikv.WithPageSize(2))
				}
				if i&4 != 0 {
					opts = append(opts, tikv.WithLimit(3))
					want = want[:min(3, len(want))]
				}
				pairs, err := tikv.Collect(r.Scan(t.Context(), rg, opts...))
				if len(hi) > 0 && bytes.Compare(lo, hi) > 0 {
					if !errors.Is(err, tikv.ErrInvalid) || len(pairs) > 0 {
						t.Errorf("%T of [%x, %x): %v", r, lo, hi, err)
					}
					continue
				}
				same := slices.EqualFunc(pairs, want, func(p tikv.Pair, k []byte) bool { return bytes.Equal(p.Key, k) && p.Value != nil })
				if err != nil || !same {
					t.Errorf("%T of [%x, %x), options %03b: %x, %v; want %x", r, lo, hi, i, pairs, err, want)
				}
			}
		}
	}
}
