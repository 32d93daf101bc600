package tikv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// onEachVersion runs a test in fake time on a cluster of each API version, with raw
// regions that begin at k3 and k6.
func onEachVersion(t *testing.T, test func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client)) {
	t.Helper()
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV1TTL, playground.APIV2} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cluster := tikvtest.NewCluster(t, playground.WithAPIVersion(v), playground.WithSplitKeys(playground.KeyRaw, []byte("k3"), []byte("k6")))
				test(t, cluster, cluster.Open())
			})
		})
	}
}

func b(s string) []byte { return []byte(s) }

func put(t *testing.T, r *tikv.Raw, kvs ...string) {
	t.Helper()
	for i := 0; i < len(kvs); i += 2 {
		if err := r.Put(t.Context(), b(kvs[i]), b(kvs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
}

func expect(t *testing.T, r *tikv.Raw, kvs ...string) {
	t.Helper()
	for i := 0; i < len(kvs); i += 2 {
		got, err := r.Get(t.Context(), b(kvs[i]))
		if err != nil || got == nil || string(got) != kvs[i+1] {
			t.Fatalf("%s is %q, not %q (%v)", kvs[i], got, kvs[i+1], err)
		}
	}
}

func absent(t *testing.T, r *tikv.Raw, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if got, err := r.Get(t.Context(), b(key)); !errors.Is(err, tikv.ErrNotFound) || got != nil {
			t.Fatalf("%s is there: %q, %v", key, got, err)
		}
	}
}

// text shows pairs as k=v, ...
func text(pairs []tikv.Pair) string {
	var out []string
	for _, p := range pairs {
		out = append(out, string(p.Key)+"="+string(p.Value))
	}
	return strings.Join(out, " ")
}

func TestRawSingleKeys(t *testing.T) {
	onEachVersion(t, func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) {
		r := c.Raw()
		absent(t, r, "k1", "")
		put(t, r, "k1", "v1", "k3", "", "k9", "v9", "k1", "v1b", "\xff\xff", "high", "\x00", "low")
		expect(t, r, "k1", "v1b", "k3", "", "k9", "v9", "\xff\xff", "high", "\x00", "low")
		put(t, r, "", "the empty key") // TiKV takes it
		expect(t, r, "", "the empty key")
		for range 2 {
			if err := r.Delete(t.Context(), b("k1")); err != nil {
				t.Fatal(err)
			}
		}
		absent(t, r, "k1")
		expect(t, r, "k9", "v9")
	})
}

func TestRawTTL(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r, a, ctx := c.Raw(), c.AtomicRaw(), t.Context()
		if cluster.APIVersion() == playground.APIV1 {
			_, _, err := r.TTL(ctx, b("k"))
			for i, err := range []error{err, r.Put(ctx, b("k"), b("v"), tikv.WithTTL(time.Second)), r.Put(ctx, b("k"), b("v"), tikv.WithKeepTTL()),
				r.BatchPut(ctx, nil, tikv.WithTTLs(nil))} {
				if !errors.Is(err, tikv.ErrUnsupported) || !tikv.NotSent(err) {
					t.Fatal(i, err)
				}
			}
			return
		}
		ttl := func(key string) string {
			left, expires, err := r.TTL(ctx, b(key))
			if errors.Is(err, tikv.ErrNotFound) {
				return "absent"
			} else if err != nil {
				t.Fatal(err)
			} else if expires != (left != 0) {
				t.Fatal(left, expires)
			}
			return left.String()
		}
		put(t, r, "never", "v")
		for key, opts := range map[string][]tikv.PutOption{"k10": {tikv.WithTTL(10 * time.Second)}, "k60": {tikv.WithTTL(time.Minute)}} {
			if err := r.Put(ctx, b(key), b("v"), opts...); err != nil {
				t.Fatal(err)
			}
		}
		if got := []string{ttl("never"), ttl("k10"), ttl("k60"), ttl("k")}; !slices.Equal(got, []string{"0s", "10s", "1m0s", "absent"}) {
			t.Fatal(got)
		}
		cluster.Advance(4 * time.Second)
		if err := r.Put(ctx, b("k10"), b("w"), tikv.WithKeepTTL()); err != nil {
			t.Fatal(err)
		}
		if err := a.Put(ctx, b("k60"), b("w"), tikv.WithKeepTTL()); err != nil {
			t.Fatal(err)
		}
		if _, done, err := a.CompareAndSwap(ctx, b("k60"), b("w"), b("x"), tikv.WithKeepTTL()); err != nil || !done {
			t.Fatal(done, err)
		}
		if err := a.Put(ctx, b("new"), b("w"), tikv.WithKeepTTL()); err != nil {
			t.Fatal(err)
		}
		if got := []string{ttl("k10"), ttl("k60"), ttl("new")}; !slices.Equal(got, []string{"6s", "56s", "0s"}) {
			t.Fatal(got)
		}
		pairs := []tikv.Pair{{Key: b("k10"), Value: b("x")}, {Key: b("k20"), Value: b("x")}, {Key: b("k60"), Value: b("y")}}
		if err := r.BatchPut(ctx, pairs, tikv.WithTTLs([]time.Duration{0, 20 * time.Second, 30 * time.Second})); err != nil {
			t.Fatal(err)
		}
		if got := []string{ttl("k10"), ttl("k20"), ttl("k60")}; !slices.Equal(got, []string{"0s", "20s", "30s"}) {
			t.Fatal(got)
		}
		cluster.Advance(5 * time.Second)
		if err := r.BatchPut(ctx, pairs, tikv.WithKeepTTL()); err != nil {
			t.Fatal(err)
		}
		if got := []string{ttl("k10"), ttl("k20"), ttl("k60")}; !slices.Equal(got, []string{"0s", "15s", "25s"}) {
			t.Fatal(got)
		}
		if err := r.BatchPut(ctx, pairs[:1], tikv.WithTTL(7*time.Second)); err != nil || ttl("k10") != "7s" {
			t.Fatal(err, ttl("k10"))
		}
		cluster.Advance(time.Minute)
		absent(t, r, "k10", "k20", "k60")
		if ttl("k20") != "absent" {
			t.Fatal(ttl("k20"))
		}
		if _, done, err := a.PutIfAbsent(ctx, b("k20"), b("y"), tikv.WithTTL(2*time.Second)); err != nil || !done || ttl("k20") != "2s" {
			t.Fatal(done, err, ttl("k20"))
		}
	})
}

func TestRawBatches(t *testing.T) {
	onEachVersion(t, func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(), t.Context()
		var pairs []tikv.Pair
		var keys [][]byte
		want := make(map[string]string)
		for i := range 2000 { // more than fits one request in keys, and in bytes
			k := fmt.Sprintf("k%d/%04d", i%10, i)
			pairs = append(pairs, tikv.Pair{Key: b(k), Value: bytes.Repeat(b("v"), i%50)})
			keys = append(keys, b(k))
			want[k] = strings.Repeat("v", i%50)
		}
		if err := r.BatchPut(ctx, pairs); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, b("absent"), b("k5/0005"), b("zz"), b("k5/0005"))
		got, err := r.BatchGet(ctx, keys)
		if err != nil || len(got) != len(keys) {
			t.Fatal(len(got), err)
		}
		for i, key := range keys {
			v, ok := want[string(key)]
			if string(got[i]) != v || (got[i] != nil) != ok {
				t.Fatalf("%s is %q", key, got[i])
			}
		}
		if err := r.BatchPut(ctx, []tikv.Pair{{Key: b("dup"), Value: b("1")}, {Key: b("k1"), Value: b("x")}, {Key: b("dup"), Value: b("2")}}); err != nil {
			t.Fatal(err)
		}
		expect(t, r, "dup", "2", "k1", "x")
		if err := r.BatchDelete(ctx, append(keys, b("never"))); err != nil {
			t.Fatal(err)
		}
		rest, err := tikv.Collect(r.Scan(ctx, tikv.Range{}))
		if err != nil || text(rest) != "dup=2 k1=x" {
			t.Fatal(text(rest), err)
		}
		if none, err := r.BatchGet(ctx, nil); err != nil || len(none) != 0 {
			t.Fatal(none, err)
		}
		if err := errors.Join(r.BatchPut(ctx, nil), r.BatchDelete(ctx, nil)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRawScan(t *testing.T) {
	onEachVersion(t, func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(), t.Context()
		all := make(map[string]string)
		for i := range 40 {
			k := fmt.Sprintf("k%d%c", i/4, 'a'+i%4)
			all[k] = strings.Repeat("v", i%3)
		}
		all["\x00"], all["\xff\xff\xff"] = "low", "high"
		for k, v := range all {
			put(t, r, k, v)
		}
		sorted := slices.Sorted(maps.Keys(all))
		rnd := rand.New(rand.NewPCG(1, 2))
		bound := func() []byte {
			switch rnd.IntN(4) {
			case 0:
				return nil
			case 1:
				return b(fmt.Sprint("k", rnd.IntN(10)))
			}
			return b(sorted[rnd.IntN(len(sorted))])
		}
		for range 300 {
			rg := tikv.Range{Start: bound(), End: bound()}
			if len(rg.End) > 0 && bytes.Compare(rg.Start, rg.End) > 0 {
				rg.Start, rg.End = rg.End, rg.Start
			}
			var want []string
			for _, k := range sorted {
				if rg.Contains(b(k)) {
					want = append(want, k)
				}
			}
			var opts []tikv.ScanOption
			if rnd.IntN(2) == 0 {
				opts = append(opts, tikv.WithReverse())
				slices.Reverse(want)
			}
			if rnd.IntN(2) == 0 {
				opts = append(opts, tikv.WithPageSize(1+rnd.IntN(5)))
			}
			if rnd.IntN(2) == 0 {
				n := 1 + rnd.IntN(20)
				opts = append(opts, tikv.WithLimit(n))
				want = want[:min(n, len(want))]
			}
			keysOnly := rnd.IntN(3) == 0
			if keysOnly {
				opts = append(opts, tikv.WithKeysOnly())
			}
			got, err := tikv.Collect(r.Scan(ctx, rg, opts...))
			if err != nil || len(got) != len(want) {
				t.Fatalf("%q with %d options: %d pairs, not %d (%v)", rg, len(opts), len(got), len(want), err)
			}
			for i, p := range got {
				if string(p.Key) != want[i] || keysOnly != (p.Value == nil) || !keysOnly && string(p.Value) != all[want[i]] {
					t.Fatalf("%q: pair %d is %q=%q", rg, i, p.Key, p.Value)
				}
			}
		}
		n := 0
		for range r.Scan(ctx, tikv.Range{}, tikv.WithPageSize(3)) {
			if n++; n == 5 {
				break
			}
		}
		if n != 5 {
			t.Fatal(n)
		}
		got, err := r.BatchScan(ctx, []tikv.Range{tikv.Prefix(b("k2")), {Start: b("x"), End: b("y")}, {Start: b("k8")}}, 3, tikv.WithReverse())
		if err != nil || len(got) != 3 || text(got[0]) != "k2d=vv k2c=v k2b=" || len(got[1]) != 0 || len(got[2]) != 3 {
			t.Fatal(got, err)
		}
	})
}

func TestRawRanges(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(), t.Context()
		prefix := ""
		if cluster.APIVersion() == playground.APIV2 {
			prefix = "r\x00\x00\x00"
		}
		var want tikv.Checksum
		table := crc64.MakeTable(crc64.ECMA)
		for i := range 10 {
			k, v := fmt.Sprintf("k%d", i), fmt.Sprint("value", i)
			put(t, r, k, v)
			if i >= 2 && i < 8 {
				want.CRC64XOR ^= crc64.Checksum(b(prefix+k+v), table)
				want.Pairs++
				want.Bytes += uint64(len(prefix + k + v))
			}
		}
		if sum, err := r.Checksum(ctx, tikv.Range{Start: b("k2"), End: b("k8")}); err != nil || sum != want {
			t.Fatal(sum, want, err)
		}
		if sum, err := r.Checksum(ctx, tikv.Range{}); err != nil || sum.Pairs != 10 {
			t.Fatal(sum, err)
		}
		if err := r.DeleteRange(ctx, tikv.Range{Start: b("k2"), End: b("k8")}); err != nil {
			t.Fatal(err)
		}
		absent(t, r, "k2", "k3", "k5", "k6", "k7")
		expect(t, r, "k1", "value1", "k8", "value8")
		if err := r.DeleteRange(ctx, tikv.Range{Start: b("k1")}); !errors.Is(err, tikv.ErrInvalid) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
		if err := r.DeleteRange(ctx, tikv.Range{Start: b("k1")}, tikv.WithUnbounded()); err != nil {
			t.Fatal(err)
		}
		absent(t, r, "k1", "k8", "k9")
		expect(t, r, "k0", "value0")
	})
}

func TestRawCompareAndSwap(t *testing.T) {
	onEachVersion(t, func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) {
		a, ctx := c.AtomicRaw(), t.Context()
		for i, step := range []struct {
			do   func() ([]byte, bool, error)
			prev []byte
			done bool
		}{
			{func() ([]byte, bool, error) { return a.CompareAndSwap(ctx, b("k"), b("x"), b("1")) }, nil, false},
			{func() ([]byte, bool, error) { return a.CompareAndSwap(ctx, b("k"), nil, b("1")) }, nil, true},
			{func() ([]byte, bool, error) { return a.CompareAndSwap(ctx, b("k"), nil, b("2")) }, b("1"), false},
			{func() ([]byte, bool, error) { return a.CompareAndSwap(ctx, b("k"), b("1"), b("")) }, b("1"), true},
			{func() ([]byte, bool, error) { return a.CompareAndSwap(ctx, b("k"), b("1"), b("3")) }, b(""), false},
			{func() ([]byte, bool, error) { return a.PutIfAbsent(ctx, b("k"), b("4")) }, b(""), false},
			{func() ([]byte, bool, error) { return a.CompareAndSwap(ctx, b("k"), b(""), b("5")) }, b(""), true},
			{func() ([]byte, bool, error) { return a.DeleteIfEquals(ctx, b("k"), b("6")) }, b("5"), false},
			{func() ([]byte, bool, error) { return a.DeleteIfEquals(ctx, b("k"), b("5")) }, b("5"), true},
			{func() ([]byte, bool, error) { return a.PutIfAbsent(ctx, b("k"), b("7")) }, nil, true},
		} {
			prev, done, err := step.do()
			if err != nil || done != step.done || !bytes.Equal(prev, step.prev) || (prev == nil) != (step.prev == nil) {
				t.Fatal(i, prev, done, err)
			}
		}
		expect(t, &a.Raw, "k", "7")
		put(t, &a.Raw, "k", "8")
		if err := a.BatchPut(ctx, []tikv.Pair{{Key: b("k"), Value: b("9")}}); err != nil {
			t.Fatal(err)
		}
		if err := a.Delete(ctx, b("k")); err != nil {
			t.Fatal(err)
		}
		absent(t, &a.Raw, "k")
	})
}

func TestRawColumnFamilies(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(tikv.WithColumnFamily("write")), t.Context()
		if cluster.APIVersion() == playground.APIV2 {
			if err := r.Put(ctx, b("k"), nil); !errors.Is(err, tikv.ErrUnsupported) || !tikv.NotSent(err) {
				t.Fatal(err)
			}
			return
		}
		put(t, r, "k", "w")
		absent(t, c.Raw(), "k")
		expect(t, r, "k", "w")
		bad := c.Raw(tikv.WithColumnFamily("moon"))
		var server *tikv.ServerError
		if err := bad.Put(ctx, b("k"), nil); !errors.Is(err, tikv.ErrRejected) || !errors.As(err, &server) || !strings.Contains(server.Message, "moon") || server.Addr == "" {
			t.Fatal(err)
		}
	})
}

// Work goes on while regions split, leaders move and stores stop and start.
func TestRawThroughChanges(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(), t.Context()
		rnd := rand.New(rand.NewPCG(3, 4))
		model := make(map[string]string)
		down := uint64(0)
		for step := range 600 {
			if step%5 == 0 {
				switch regions := cluster.Regions(playground.KeyRaw); rnd.IntN(3) {
				case 0:
					if _, err := cluster.Split(playground.KeyRaw, fmt.Appendf(nil, "k%03d", rnd.IntN(200))); err != nil {
						t.Fatal(err)
					}
				case 1:
					// A store that is down takes no leader; that is no matter here.
					_ = cluster.TransferLeader(regions[rnd.IntN(len(regions))].ID, 1+rnd.Uint64N(3))
				default:
					if down != 0 {
						if err := cluster.Start(playground.Store(down)); err != nil {
							t.Fatal(err)
						}
						down = 0
					} else {
						down = 1 + rnd.Uint64N(3)
						if err := cluster.Stop(playground.Store(down)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			k, v := fmt.Sprintf("k%03d", rnd.IntN(200)), fmt.Sprint(step)
			switch rnd.IntN(6) {
			case 0, 1:
				put(t, r, k, v)
				model[k] = v
			case 2:
				if err := r.Delete(ctx, b(k)); err != nil {
					t.Fatal(err)
				}
				delete(model, k)
			case 3:
				var pairs []tikv.Pair
				for i := range 20 {
					k := fmt.Sprintf("k%03d", (i*13+step)%200)
					model[k] = v
					pairs = append(pairs, tikv.Pair{Key: b(k), Value: b(v)})
				}
				if err := r.BatchPut(ctx, pairs); err != nil {
					t.Fatal(err)
				}
			case 4:
				if want, ok := model[k]; ok {
					expect(t, r, k, want)
				} else {
					absent(t, r, k)
				}
			default:
				got, err := tikv.Collect(r.Scan(ctx, tikv.Range{}, tikv.WithPageSize(7)))
				if err != nil || len(got) != len(model) {
					t.Fatal(len(got), len(model), err)
				}
				for _, p := range got {
					if model[string(p.Key)] != string(p.Value) {
						t.Fatalf("%s is %s", p.Key, p.Value)
					}
				}
			}
		}
		counts := cluster.Counts()
		if counts.Splits < 10 || counts.LeaderMoves < 10 || counts.Starts < 10 {
			t.Fatalf("too quiet: %+v", counts)
		}
	})
}

// What may have happened is done again where that is harmless, and is not where it
// could happen twice.
func TestRawLostAnswers(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r, a, ctx := c.Raw(), c.AtomicRaw(), t.Context()
		put(t, r, "k1", "old")
		lose := func(method string) *playground.Injection {
			return cluster.Inject(playground.Fault{Method: method, Times: 1, Disconnect: true})
		}
		for _, f := range []struct {
			method string
			do     func() error
		}{
			{"RawGet", func() error { _, err := r.Get(ctx, b("k1")); return err }},
			{"RawPut", func() error { return r.Put(ctx, b("k1"), b("new")) }},
			{"RawBatchPut", func() error { return r.BatchPut(ctx, []tikv.Pair{{Key: b("k1"), Value: b("newer")}}) }},
			{"RawDelete", func() error { return r.Delete(ctx, b("k1")) }},
			{"RawScan", func() error { _, err := tikv.Collect(r.Scan(ctx, tikv.Range{})); return err }},
			{"RawDeleteRange", func() error { return r.DeleteRange(ctx, tikv.Range{Start: b("k"), End: b("l")}) }},
		} {
			fault := lose(f.method)
			if err := f.do(); err != nil || fault.Hits() != 1 {
				t.Fatalf("%s: %v after %d losses", f.method, err, fault.Hits())
			}
		}
		for _, f := range []struct {
			method, now string
			do          func() error
		}{
			{"RawCompareAndSwap", "1", func() error { _, _, err := a.CompareAndSwap(ctx, b("k1"), nil, b("1")); return err }},
			{"RawPut", "2", func() error { return a.Put(ctx, b("k1"), b("2")) }},
			{"RawBatchPut", "3", func() error { return a.BatchPut(ctx, []tikv.Pair{{Key: b("k1"), Value: b("3")}}) }},
		} {
			fault := lose(f.method)
			err := f.do()
			var un *tikv.UndeterminedError
			if !errors.Is(err, tikv.ErrUndetermined) || !errors.As(err, &un) || string(un.Key) != "k1" || tikv.NotSent(err) || fault.Hits() != 1 {
				t.Fatalf("%s: %v after %d losses", f.method, err, fault.Hits())
			}
			if strings.Contains(err.Error(), "k1") {
				t.Fatalf("a key in plain sight: %v", err)
			}
			expect(t, r, "k1", f.now)
		}
	})
}

// A batch tells what became of each key.
func TestRawBatchOutcomes(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		a, ctx := c.AtomicRaw(), t.Context()
		cluster.Inject(playground.Fault{Method: "RawBatchPut", Mode: playground.KeyRaw, Key: b("k4"), Times: 1, Disconnect: true})
		big := tikv.Pair{Key: b("k9"), Value: make([]byte, 9<<20)} // more than one entry of Raft's log
		err := a.BatchPut(ctx, []tikv.Pair{{Key: b("k1")}, {Key: b("k4")}, big, {Key: b("k2")}, {Key: b("k4")}})
		var batch *tikv.BatchError
		if !errors.As(err, &batch) || !errors.Is(err, tikv.ErrUndetermined) || !errors.Is(err, tikv.ErrTooLarge) || tikv.NotSent(err) {
			t.Fatal(err)
		}
		want := []tikv.Outcome{tikv.OutcomeDone, tikv.OutcomeUnknown, tikv.OutcomeFailed, tikv.OutcomeDone, tikv.OutcomeUnknown}
		if !slices.Equal(batch.Outcomes, want) || batch.Errs[0] != nil || len(batch.Unwrap()) != 2 {
			t.Fatal(batch.Outcomes, batch.Errs)
		}
		expect(t, &a.Raw, "k1", "", "k2", "", "k4", "")
		err = a.BatchPut(ctx, []tikv.Pair{big})
		if !errors.As(err, &batch) || errors.Is(err, tikv.ErrUndetermined) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
	})
}

// A range that stops half way says what is left.
func TestRawRangeStops(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		a, ctx := c.AtomicRaw(), t.Context()
		put(t, &a.Raw, "k1", "v", "k4", "v", "k7", "v")
		cluster.Inject(playground.Fault{Method: "RawDeleteRange", Skip: 1, Times: 1, Disconnect: true})
		err := a.DeleteRange(ctx, tikv.Range{Start: b("k0"), End: b("k8")})
		var rng *tikv.RangeError
		if !errors.As(err, &rng) || !errors.Is(err, tikv.ErrUndetermined) || tikv.NotSent(err) || len(rng.Rest) != 1 ||
			string(rng.Rest[0].Start) != "k3" || string(rng.Rest[0].End) != "k8" {
			t.Fatalf("%v: %q", err, rng.Rest)
		}
		absent(t, &a.Raw, "k1", "k4")
		expect(t, &a.Raw, "k7", "v")
		if err := a.DeleteRange(ctx, rng.Rest[0]); err != nil {
			t.Fatal(err)
		}
		absent(t, &a.Raw, "k7")
	})
}

// A write that ctx ends after it was sent may have happened, or may happen yet.
func TestRawCancel(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r := c.Raw()
		put(t, r, "k1", "v") // region and store are known
		key := b("k1")
		for _, f := range []struct {
			method string
			do     func(ctx context.Context) error
			wrote  bool
		}{
			{"RawGet", func(ctx context.Context) error { _, err := r.Get(ctx, key); return err }, false},
			{"RawPut", func(ctx context.Context) error { return r.Put(ctx, key, b("w")) }, true},
			{"RawBatchDelete", func(ctx context.Context) error { return r.BatchDelete(ctx, [][]byte{key}) }, true},
		} {
			held := cluster.Inject(playground.Fault{Method: f.method, Hold: true})
			over := errors.New("over")
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error)
			go func() { done <- f.do(ctx) }()
			synctest.Wait()
			start := time.Now()
			cancel(over)
			err := <-done
			if held.Hits() != 1 || !errors.Is(err, over) || !errors.Is(err, context.Canceled) || errors.Is(err, tikv.ErrUndetermined) != f.wrote ||
				tikv.NotSent(err) == f.wrote || time.Since(start) != 0 {
				t.Fatalf("%s: %v after %v", f.method, err, time.Since(start))
			}
			held.Remove()
			synctest.Wait()
		}
		absent(t, r, "k1") // they happened after all
	})
}

func TestRawDeadline(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		for id := range uint64(3) {
			if err := cluster.Stop(playground.Store(id + 1)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		err := c.Raw().Put(ctx, b("k1"), b("v"))
		var away *tikv.UnavailableError
		if !errors.Is(err, tikv.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &away) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
		if time.Since(start) != 5*time.Second || string(away.Key) != "k1" || away.Total < 3 || len(away.Attempts) != 8 || away.Elapsed != 5*time.Second {
			t.Fatalf("%v: %+v", time.Since(start), away)
		}
		if strings.Contains(err.Error(), "k1") || strings.Contains(err.Error(), "6b31") {
			t.Fatalf("a key in plain sight: %v", err)
		}
		start = time.Now()
		_, err = c.Raw(tikv.WithRetryFor(2*time.Second)).Get(t.Context(), b("k1"))
		if !errors.Is(err, tikv.ErrUnavailable) || time.Since(start) != 2*time.Second {
			t.Fatal(err, time.Since(start))
		}
		plain := cluster.Open(tikv.WithPlainKeys(), tikv.WithRetryFor(time.Second))
		if _, err = plain.Raw().Get(t.Context(), b("k1")); err == nil || !strings.Contains(err.Error(), "key 6b31") {
			t.Fatal(err)
		}
	})
}

// Bytes given may be reused as soon as a call has returned; those returned stay.
func TestRawBytes(t *testing.T) {
	onEachVersion(t, func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(), t.Context()
		key, value := b("k1"), b("v1")
		if err := r.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
		copy(key, "xx")
		copy(value, "xx")
		expect(t, r, "k1", "v1")
		got, err := r.Get(ctx, b("k1"))
		if err != nil {
			t.Fatal(err)
		}
		start, end := b("k"), b("l")
		scan := r.Scan(ctx, tikv.Range{Start: start, End: end})
		copy(start, "x")
		copy(end, "a") // before the loop
		pairs, err := tikv.Collect(scan)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			put(t, r, fmt.Sprint("k", i%7), "other")
			if string(got) != "v1" || text(pairs) != "k1=v1" {
				t.Fatal(string(got), text(pairs))
			}
		}
	})
}

func TestRawBadArguments(t *testing.T) {
	onEachVersion(t, func(t *testing.T, cluster *tikvtest.Cluster, c *tikv.Client) {
		r, a, ctx := c.Raw(), c.AtomicRaw(), t.Context()
		calls := len(cluster.Counts().Calls)
		nilView := c.Raw(nil, tikv.WithColumnFamily(""), tikv.WithPriority(77), tikv.WithRetryFor(-1))
		scan := func(r *tikv.Raw, rg tikv.Range, opts ...tikv.ScanOption) error {
			_, err := tikv.Collect(r.Scan(ctx, rg, opts...))
			return err
		}
		inverted := tikv.Range{Start: b("b"), End: b("a")}
		one := []tikv.Pair{{Key: b("k")}}
		_, err1 := r.BatchScan(ctx, nil, 0)
		_, err2 := r.BatchScan(ctx, nil, 1, tikv.WithLimit(2))
		_, err3 := r.BatchScan(ctx, []tikv.Range{inverted}, 1)
		_, err4 := r.Checksum(ctx, inverted)
		_, _, err5 := a.DeleteIfEquals(ctx, b("k"), nil)
		_, err6 := nilView.Get(ctx, b("k"))
		for i, err := range []error{
			scan(r, inverted), scan(r, tikv.Range{}, nil), scan(r, tikv.Range{}, tikv.WithLimit(0)), scan(r, tikv.Range{}, tikv.WithPageSize(-1)),
			r.DeleteRange(ctx, inverted), r.DeleteRange(ctx, tikv.Range{}), r.DeleteRange(ctx, tikv.Range{End: b("a")}, nil),
			r.Put(ctx, b("k"), nil, nil), r.Put(ctx, b("k"), nil, tikv.WithTTL(-time.Second)), r.Put(ctx, b("k"), nil, tikv.WithTTL(0)),
			r.Put(ctx, b("k"), nil, tikv.WithTTL(time.Millisecond)), r.Put(ctx, b("k"), nil, tikv.WithTTL(1500*time.Millisecond)),
			r.Put(ctx, b("k"), nil, tikv.WithTTL(time.Second), tikv.WithKeepTTL()),
			r.BatchPut(ctx, one, tikv.WithTTLs(make([]time.Duration, 2))), r.BatchPut(ctx, one, tikv.WithTTLs([]time.Duration{-1})),
			err1, err2, err3, err4, err5, err6, scan(nilView, tikv.Range{}),
		} {
			var arg *tikv.ArgumentError
			if !errors.Is(err, tikv.ErrInvalid) || !errors.As(err, &arg) || arg.Op == "" || arg.Reason == "" || !tikv.NotSent(err) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if n := len(err6.(interface{ Unwrap() []error }).Unwrap()); n != 4 {
			t.Errorf("%d of 4 mistakes are reported: %v", n, err6)
		}
		if len(cluster.Counts().Calls) != calls {
			t.Error("something was sent")
		}
	})
}

func TestRawTooLarge(t *testing.T) {
	onEachVersion(t, func(t *testing.T, _ *tikvtest.Cluster, c *tikv.Client) {
		r, ctx := c.Raw(), t.Context()
		err := r.Put(ctx, bytes.Repeat(b("k"), 9000), b("v"))
		if !errors.Is(err, tikv.ErrTooLarge) || !errors.Is(err, tikv.ErrRejected) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
		err = r.Put(ctx, b("k"), make([]byte, 9<<20))
		if !errors.Is(err, tikv.ErrTooLarge) || !tikv.NotSent(err) {
			t.Fatal(err)
		}
		absent(t, r, "k")
	})
}

// A raw get costs one lookup and one request, and few allocations around them.
func TestRawGetSendsOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tikvtest.NewCluster(t)
		r := cluster.Open().Raw()
		put(t, r, "k", "v")
		synctest.Wait()
		before := cluster.Counts().Calls
		for range 10 {
			expect(t, r, "k", "v")
		}
		after := cluster.Counts().Calls
		for method, n := range after {
			if grew := n - before[method]; grew != 0 && (method != "RawGet" || grew != 10) {
				t.Errorf("%d calls of %s", grew, method)
			}
		}
	})
}
