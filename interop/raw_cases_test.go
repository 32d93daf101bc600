package interop

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv/client-go/v2/rawkv"
)

// rawAreas are raw operations in each API version, and in two keyspaces.
func rawAreas() []area {
	v1ttl := []rawkv.ClientOpt{rawkv.WithAPIVersion(kvrpcpb.APIVersion_V1TTL)}
	v2 := []rawkv.ClientOpt{rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2)}
	tenant := append(slices.Clone(v2), rawkv.WithKeyspace("tenant"))
	return []area{
		{name: "raw v1", cases: slices.Concat(rawCases(), rawSplitCases(), rawV1Cases())},
		{name: "raw v1ttl", args: []string{"--api", "v1ttl"}, raw: v1ttl, cases: slices.Concat(rawCases(), rawSplitCases(), rawTTLCases())},
		{name: "raw v2", args: []string{"--api", "v2"}, raw: v2, cases: slices.Concat(rawCases(), rawSplitCases(), rawTTLCases())},
		{name: "raw keyspace", args: []string{"--keyspace", "tenant,other"}, raw: tenant, cases: slices.Concat(rawCases(), rawKeyspaceCases())},
	}
}

// rawPut puts pairs, "k=v".
func (e *env) rawPut(pairs ...string) {
	e.Helper()
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		e.must(e.raw.Put(e.ctx(), e.key(k), []byte(v)))
	}
}

// rawWant reads pairs: "k=v", or "k" for an absent key.
func (e *env) rawWant(pairs ...string) {
	e.Helper()
	for _, p := range pairs {
		k, want, present := strings.Cut(p, "=")
		if v, err := e.raw.Get(e.ctx(), e.key(k)); err != nil || present != (v != nil) || string(v) != want {
			e.Fatalf("%s is %q %v, want %q %v", k, v, err, want, present)
		}
	}
}

// rawPairs prints what a scan returned: "a=1 b=2".
func (e *env) rawPairs(keys, values [][]byte, err error) string {
	e.Helper()
	e.must(err)
	var all []string
	for i, k := range keys {
		all = append(all, e.bare(k)+"="+string(values[i]))
	}
	return strings.Join(all, " ")
}

func (e *env) rawScan() string {
	e.Helper()
	return e.rawPairs(e.raw.Scan(e.ctx(), e.key(""), e.end(), 1000))
}

// atomic is another client, whose writes are atomic.
func (e *env) atomic() *rawkv.Client {
	e.Helper()
	return e.c.officialRaw(e.T, e.area.raw...).SetAtomicForCAS(true)
}

func rawCases() []kase {
	return []kase{
		{name: "put, overwrite, get", run: func(e *env) {
			e.rawPut("a=1", "a=2")
			e.rawWant("a=2")
		}},
		{name: "empty is not absent", run: func(e *env) {
			e.rawPut("empty=")
			e.rawWant("empty=", "absent")
			got, err := e.raw.BatchGet(e.ctx(), e.keys("empty", "absent"))
			if err != nil || len(got) != 2 || got[0] == nil || len(got[0]) != 0 || got[1] != nil {
				e.Fatalf("%q %v", got, err)
			}
		}},
		{name: "delete, and delete what is absent", run: func(e *env) {
			e.rawPut("a=1")
			e.must(e.raw.Delete(e.ctx(), e.key("a")))
			e.must(e.raw.Delete(e.ctx(), e.key("absent")))
			e.rawWant("a", "absent")
		}},
		{name: "bytes of any value", run: func(e *env) {
			for _, k := range []string{"\x00", "\xff", "a\x00", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\xff\x00"} {
				value := []byte(k + k)
				e.must(e.raw.Put(e.ctx(), e.key(k), value))
				if v, err := e.raw.Get(e.ctx(), e.key(k)); err != nil || !bytes.Equal(v, value) {
					e.Fatalf("%q: %q %v", k, v, err)
				}
			}
		}},
		{name: "a value of 1 MiB", run: func(e *env) {
			value := bytes.Repeat([]byte{'x'}, 1<<20)
			e.must(e.raw.Put(e.ctx(), e.key("large"), value))
			if v, err := e.raw.Get(e.ctx(), e.key("large")); err != nil || !bytes.Equal(v, value) {
				e.Fatal(len(v), err)
			}
		}},
		{name: "batch get in the order asked, with gaps and twice", run: func(e *env) {
			e.rawPut("a=1", "b=2", "c=3")
			got, err := e.raw.BatchGet(e.ctx(), e.keys("c", "x", "a", "c"))
			e.must(err)
			e.same("values", fmt.Sprintf("%s", got), "[3  1 3]")
		}},
		{name: "batch put and delete", run: func(e *env) {
			e.must(e.raw.BatchPut(e.ctx(), e.keys("a", "b", "c"), [][]byte{[]byte("1"), []byte("2"), []byte("3")}))
			e.must(e.raw.BatchDelete(e.ctx(), e.keys("a", "c", "absent")))
			e.same("left", e.rawScan(), "b=2")
		}},
		{name: "a batch puts a key twice: the last wins", run: func(e *env) {
			e.must(e.raw.BatchPut(e.ctx(), e.keys("a", "a"), [][]byte{[]byte("1"), []byte("2")}))
			e.rawWant("a=2")
		}},
		{name: "scan: bounds, order, limit", run: func(e *env) {
			e.rawPut("c=3", "a=1", "b=2", "d=4")
			e.same("[b, d)", e.rawPairs(e.raw.Scan(e.ctx(), e.key("b"), e.key("d"), 10)), "b=2 c=3")
			e.same("two", e.rawPairs(e.raw.Scan(e.ctx(), e.key("a"), e.end(), 2)), "a=1 b=2")
			e.same("between keys", e.rawPairs(e.raw.Scan(e.ctx(), e.key("aa"), e.key("cc"), 10)), "b=2 c=3")
			e.same("nothing", e.rawPairs(e.raw.Scan(e.ctx(), e.key("x"), e.key("y"), 10)), "")
		}},
		{name: "scan keys only", run: func(e *env) {
			e.rawPut("a=1", "b=2")
			keys, values, err := e.raw.Scan(e.ctx(), e.key(""), e.end(), 10, rawkv.ScanKeyOnly())
			e.must(err)
			e.same("keys", fmt.Sprintf("%s", keys), fmt.Sprintf("%s", e.keys("a", "b")))
			for _, v := range values {
				e.same("value", len(v), 0)
			}
		}},
		{name: "scan backwards: bounds, order, limit", run: func(e *env) {
			e.rawPut("a=1", "b=2", "c=3", "d=4")
			e.same("[b, d)", e.rawPairs(e.raw.ReverseScan(e.ctx(), e.key("d"), e.key("b"), 10)), "c=3 b=2")
			e.same("two", e.rawPairs(e.raw.ReverseScan(e.ctx(), e.end(), e.key(""), 2)), "d=4 c=3")
		}},
		{name: "delete range is half open", run: func(e *env) {
			e.rawPut("a=1", "b=2", "c=3", "d=4")
			e.must(e.raw.DeleteRange(e.ctx(), e.key("b"), e.key("d")))
			e.same("left", e.rawScan(), "a=1 d=4")
		}},
		{name: "swap: absent, other, equal", run: func(e *env) {
			swap := e.swapper()
			swap(nil, "1", "absent true")
			swap(nil, "2", "1 false")
			swap([]byte("0"), "2", "1 false")
			swap([]byte("1"), "2", "1 true")
			e.rawWant("cas=2")
		}},
		{name: "swap: absent is not empty", run: func(e *env) {
			swap := e.swapper()
			swap([]byte{}, "1", "absent false")
			e.rawWant("cas")
			swap(nil, "", "absent true")
			swap(nil, "1", " false")
			swap([]byte{}, "1", " true")
			e.rawWant("cas=1")
		}},
		{name: "atomic puts and deletes beside swaps", run: func(e *env) {
			atomic := e.atomic()
			e.must(atomic.Put(e.ctx(), e.key("cas"), []byte("1")))
			if _, ok, err := atomic.CompareAndSwap(e.ctx(), e.key("cas"), []byte("1"), []byte("2")); err != nil || !ok {
				e.Fatal(ok, err)
			}
			e.must(atomic.BatchPut(e.ctx(), e.keys("x", "y"), [][]byte{[]byte("1"), []byte("2")}))
			e.must(atomic.BatchDelete(e.ctx(), e.keys("x")))
			e.must(atomic.Delete(e.ctx(), e.key("cas")))
			if _, ok, err := atomic.CompareAndSwap(e.ctx(), e.key("cas"), nil, []byte("3")); err != nil || !ok {
				e.Fatal(ok, err)
			}
			e.same("left", e.rawScan(), "cas=3 y=2")
		}},
		{name: "swaps at once: each has one winner", run: func(e *env) {
			const clients, rounds = 4, 25
			e.rawPut("n=0")
			var ends []<-chan error
			for range clients {
				atomic := e.atomic()
				ends = append(ends, async(func() error {
					for won := 0; won < rounds; {
						v, err := atomic.Get(e.Context(), e.key("n"))
						if err != nil {
							return err
						}
						var n int
						if _, err := fmt.Sscan(string(v), &n); err != nil {
							return err
						}
						_, ok, err := atomic.CompareAndSwap(e.Context(), e.key("n"), v, fmt.Append(nil, n+1))
						if err != nil {
							return err
						}
						if ok {
							won++
						}
					}
					return nil
				}))
			}
			for _, end := range ends {
				e.must(<-end)
			}
			e.rawWant(fmt.Sprintf("n=%d", clients*rounds))
		}},
		{name: "checksum", run: func(e *env) {
			e.rawPut("a=1", "b=22", "c=333")
			sum, err := e.raw.Checksum(e.ctx(), e.key("a"), e.key("c"))
			e.must(err)
			wire := 0 // a key has its mode and keyspace before it
			if e.c.API == "v2" {
				wire = 4
			}
			e.same("pairs", sum.TotalKvs, 2)
			e.same("bytes", sum.TotalBytes, uint64(2*(len(e.key("a"))+wire)+3))
			if wire == 0 {
				e.same("sum", sum.Crc64Xor, xorOf(e.keys("a", "b"), [][]byte{[]byte("1"), []byte("22")}))
			}
			all, err := e.raw.Checksum(e.ctx(), e.key("a"), e.end())
			e.must(err)
			last, err := e.raw.Checksum(e.ctx(), e.key("c"), e.end())
			e.must(err)
			e.same("sum of all", all.Crc64Xor, sum.Crc64Xor^last.Crc64Xor)
		}},
		{name: "writes of many at once", run: func(e *env) {
			const writers, each = 8, 50
			var ends []<-chan error
			for w := range writers {
				ends = append(ends, async(func() error {
					for i := range each {
						if err := e.raw.Put(e.Context(), e.key(fmt.Sprintf("%d-%03d", w, i)), []byte("v")); err != nil {
							return err
						}
					}
					return nil
				}))
			}
			for _, end := range ends {
				e.must(<-end)
			}
			keys, _, err := e.raw.Scan(e.ctx(), e.key(""), e.end(), 1000)
			e.must(err)
			e.same("keys", len(keys), writers*each)
		}},
	}
}

// swapper swaps the value of "cas" and compares what was there and whether it was done.
func (e *env) swapper() func(previous []byte, value, want string) {
	atomic := e.atomic()
	return func(previous []byte, value, want string) {
		e.Helper()
		prev, ok, err := atomic.CompareAndSwap(e.ctx(), e.key("cas"), previous, []byte(value))
		e.must(err)
		was := string(prev)
		if prev == nil {
			was = "absent"
		}
		e.same("swap", fmt.Sprint(was, " ", ok), want)
	}
}

// rawSplitCases are over several regions, whose borders the client does not know yet.
func rawSplitCases() []kase {
	const n = 300
	fill := func(e *env) (keys, values [][]byte) {
		for i := range n {
			keys, values = append(keys, e.key(fmt.Sprintf("%03d", i))), append(values, fmt.Append(nil, i))
		}
		e.must(e.raw.BatchPut(e.ctx(), keys, values))
		e.splitRaw("100", "150", "2")
		return keys, values
	}
	return []kase{
		{name: "batch get over splits", run: func(e *env) {
			keys, values := fill(e)
			got, err := e.raw.BatchGet(e.ctx(), keys)
			e.must(err)
			e.same("values", fmt.Sprintf("%s", got), fmt.Sprintf("%s", values))
		}},
		{name: "batch put over splits", run: func(e *env) {
			keys, _ := fill(e)
			e.splitRaw("050", "250")
			e.must(e.raw.BatchPut(e.ctx(), keys, slices.Repeat([][]byte{[]byte("new")}, n)))
			got, err := e.raw.BatchGet(e.ctx(), keys)
			e.must(err)
			for i := range got {
				e.same("value", string(got[i]), "new")
			}
		}},
		{name: "batch delete over splits", run: func(e *env) {
			keys, _ := fill(e)
			e.must(e.raw.BatchDelete(e.ctx(), keys[10:]))
			e.same("left", e.rawScan(), "000=0 001=1 002=2 003=3 004=4 005=5 006=6 007=7 008=8 009=9")
		}},
		{name: "scan over splits", run: func(e *env) {
			keys, _ := fill(e)
			got, _, err := e.raw.Scan(e.ctx(), keys[90], keys[210], 1000)
			e.must(err)
			e.same("keys", fmt.Sprintf("%s", got), fmt.Sprintf("%s", keys[90:210]))
		}},
		{name: "scan backwards over splits", run: func(e *env) {
			keys, _ := fill(e)
			got, _, err := e.raw.ReverseScan(e.ctx(), keys[210], keys[90], 1000)
			e.must(err)
			slices.Reverse(got)
			e.same("keys", fmt.Sprintf("%s", got), fmt.Sprintf("%s", keys[90:210]))
		}},
		{name: "delete range over splits", run: func(e *env) {
			keys, _ := fill(e)
			e.must(e.raw.DeleteRange(e.ctx(), keys[1], keys[299]))
			e.same("left", e.rawScan(), "000=0 299=299")
		}},
		{name: "checksum over splits", run: func(e *env) {
			before := func() rawkv.RawChecksum {
				sum, err := e.raw.Checksum(e.ctx(), e.key(""), e.end())
				e.must(err)
				return sum
			}
			fill(e)
			one := before()
			e.splitRaw("222")
			two := before()
			e.same("sum", two, one)
			e.same("pairs", one.TotalKvs, n)
		}},
	}
}

func rawV1Cases() []kase {
	return []kase{
		{name: "no TTL on V1", run: func(e *env) {
			err := e.raw.PutWithTTL(e.ctx(), e.key("ttl"), []byte("v"), 100)
			if err == nil || !strings.Contains(err.Error(), "ttl is not enabled") {
				e.Fatal(err)
			}
			e.rawWant("ttl")
		}},
		{name: "column families are apart", run: func(e *env) {
			for _, cf := range []string{"default", "lock", "write"} {
				e.must(e.raw.Put(e.ctx(), e.key("k"), []byte(cf), rawkv.SetColumnFamily(cf)))
			}
			for _, cf := range []string{"default", "lock", "write"} {
				v, err := e.raw.Get(e.ctx(), e.key("k"), rawkv.SetColumnFamily(cf))
				if err != nil || string(v) != cf {
					e.Fatalf("%s: %q %v", cf, v, err)
				}
			}
			// Nothing may stay: in the others are locks and commits.
			for _, cf := range []string{"lock", "write"} {
				e.must(e.raw.Delete(e.ctx(), e.key("k"), rawkv.SetColumnFamily(cf)))
			}
			if v, err := e.raw.Get(e.ctx(), e.key("k"), rawkv.SetColumnFamily("lock")); err != nil || v != nil {
				e.Fatal(v, err)
			}
			e.rawWant("k=default")
		}},
		{name: "no other column family", run: func(e *env) {
			err := e.raw.Put(e.ctx(), e.key("k"), []byte("v"), rawkv.SetColumnFamily("mine"))
			if err == nil || !strings.Contains(err.Error(), "mine") {
				e.Fatal(err)
			}
		}},
	}
}

func rawTTLCases() []kase {
	left := func(e *env, key string) string {
		e.Helper()
		ttl, err := e.raw.GetKeyTTL(e.ctx(), e.key(key))
		e.must(err)
		if ttl == nil {
			return "absent"
		}
		return fmt.Sprint(*ttl)
	}
	return []kase{
		{name: "TTL is told, and ends the key", run: func(e *env) {
			e.must(e.raw.PutWithTTL(e.ctx(), e.key("ttl"), []byte("v"), 10_000))
			ttl, err := e.raw.GetKeyTTL(e.ctx(), e.key("ttl"))
			if err != nil || ttl == nil || *ttl > 10_000 || *ttl < 9_900 {
				e.Fatal(ttl, err)
			}
			e.advance(5000 * time.Second)
			e.rawWant("ttl=v")
			if ttl, err = e.raw.GetKeyTTL(e.ctx(), e.key("ttl")); err != nil || ttl == nil || *ttl > 5000 || *ttl < 4900 {
				e.Fatal(ttl, err)
			}
			e.advance(5001 * time.Second)
			e.rawWant("ttl")
			e.same("TTL", left(e, "ttl"), "absent")
		}},
		{name: "no TTL: 0; no key: none", run: func(e *env) {
			e.rawPut("k=v")
			e.same("TTL", left(e, "k"), "0")
			e.same("TTL", left(e, "absent"), "absent")
		}},
		{name: "put without TTL ends it", run: func(e *env) {
			e.must(e.raw.PutWithTTL(e.ctx(), e.key("k"), []byte("v"), 100))
			e.rawPut("k=w")
			e.same("TTL", left(e, "k"), "0")
			e.advance(200 * time.Second)
			e.rawWant("k=w")
		}},
		{name: "a batch with a TTL for each", run: func(e *env) {
			e.must(e.raw.BatchPutWithTTL(e.ctx(), e.keys("a", "b", "c"), [][]byte{[]byte("1"), []byte("2"), []byte("3")}, []uint64{0, 1000, 5000}))
			e.advance(2000 * time.Second)
			e.same("left", e.rawScan(), "a=1 c=3")
		}},
		{name: "the expired are in no read", run: func(e *env) {
			for _, k := range []string{"a", "b", "c"} {
				e.must(e.raw.PutWithTTL(e.ctx(), e.key(k), []byte("v"), 1000))
			}
			e.rawPut("b=stays")
			e.advance(2000 * time.Second)
			e.same("scan", e.rawScan(), "b=stays")
			e.same("backwards", e.rawPairs(e.raw.ReverseScan(e.ctx(), e.end(), e.key(""), 10)), "b=stays")
			e.same("limit of the live", e.rawPairs(e.raw.Scan(e.ctx(), e.key(""), e.end(), 1)), "b=stays")
			got, err := e.raw.BatchGet(e.ctx(), e.keys("a", "b", "c"))
			if err != nil || got[0] != nil || string(got[1]) != "stays" || got[2] != nil {
				e.Fatalf("%q %v", got, err)
			}
			sum, err := e.raw.Checksum(e.ctx(), e.key(""), e.end())
			e.must(err)
			e.same("pairs", sum.TotalKvs, 1)
		}},
		{name: "an expired value swaps as absent", run: func(e *env) {
			e.must(e.raw.PutWithTTL(e.ctx(), e.key("cas"), []byte("old"), 1000))
			e.advance(2000 * time.Second)
			swap := e.swapper()
			swap([]byte("old"), "new", "absent false")
			swap(nil, "new", "absent true")
		}},
	}
}

func rawKeyspaceCases() []kase {
	other := func(e *env) *rawkv.Client {
		return e.c.officialRaw(e.T, rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2), rawkv.WithKeyspace("other"))
	}
	return []kase{
		{name: "keyspaces are apart", run: func(e *env) {
			client := other(e)
			e.rawPut("k=tenant")
			must(e.T, client.Put(e.ctx(), e.key("k"), []byte("other")))
			e.rawWant("k=tenant")
			e.must(client.DeleteRange(e.ctx(), e.key(""), e.end()))
			e.same("tenant", e.rawScan(), "k=tenant")
			keys, _, err := client.Scan(e.ctx(), nil, nil, 10)
			if err != nil || len(keys) != 0 {
				e.Fatalf("%q %v", keys, err)
			}
		}},
		{name: "an unbounded scan ends with the keyspace", run: func(e *env) {
			client := other(e)
			e.must(client.Put(e.ctx(), []byte("\xff"), []byte("last")))
			e.must(client.Put(e.ctx(), []byte("\x00"), []byte("first")))
			keys, _, err := client.Scan(e.ctx(), nil, nil, 10)
			e.must(err)
			e.same("keys", fmt.Sprintf("%q", keys), `["\x00" "\xff"]`)
			e.must(client.BatchDelete(e.ctx(), keys))
		}},
		{name: "no such keyspace", run: func(e *env) {
			_, err := rawkv.NewClientWithOpts(e.ctx(), e.c.PD, rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2), rawkv.WithKeyspace("nobody"))
			if err == nil || !strings.Contains(err.Error(), "ENTRY_NOT_FOUND") {
				e.Fatal(err)
			}
		}},
	}
}
