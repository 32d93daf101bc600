package rawkv

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	v1    = kvrpcpb.APIVersion_V1
	v1ttl = kvrpcpb.APIVersion_V1TTL
	v2    = kvrpcpb.APIVersion_V2
)

// fixture is an engine with a clock that the test moves. Its methods take user keys and
// send them as a client of the API version does.
type fixture struct {
	*testing.T
	*Engine
	store  storage.Engine
	now    time.Time
	bounds keys.Range
}

func newFixture(t *testing.T, v kvrpcpb.APIVersion) *fixture {
	f := &fixture{T: t, store: storage.NewMemory(), now: time.Unix(1_000_000, 0)}
	f.Engine = New(f.store, Config{APIVersion: v, Now: func() time.Time { return f.now }})
	return f
}

func versionsDo(t *testing.T, test func(f *fixture)) {
	for _, v := range []kvrpcpb.APIVersion{v1, v1ttl, v2} {
		t.Run(v.String(), func(t *testing.T) { test(newFixture(t, v)) })
	}
}

const prefix = "r\x00\x00\x07"

func (f *fixture) ctx() *kvrpcpb.Context {
	if f.cfg.APIVersion == v2 {
		return &kvrpcpb.Context{ApiVersion: v2}
	}
	return &kvrpcpb.Context{}
}

func (f *fixture) key(user string) []byte {
	if f.cfg.APIVersion == v2 {
		return []byte(prefix + user)
	}
	return []byte(user)
}

// end is the upper bound of a range: in V2 the empty one is the keyspace's end.
func (f *fixture) end(user string) []byte {
	if f.cfg.APIVersion == v2 && user == "" {
		return []byte("r\x00\x00\x08")
	}
	return f.key(user)
}

func (f *fixture) user(wire []byte) string {
	if f.cfg.APIVersion == v2 {
		return strings.TrimPrefix(string(wire), prefix)
	}
	return string(wire)
}

func (f *fixture) region(user string) []byte {
	switch {
	case user == "":
		return nil
	case f.cfg.APIVersion == v2:
		return keys.Encode(f.key(user))
	}
	return []byte(user)
}

func (f *fixture) get(key string) string {
	f.Helper()
	resp := f.Get(f.Context(), f.bounds, &kvrpcpb.RawGetRequest{Context: f.ctx(), Key: f.key(key)})
	switch {
	case resp.Error != "":
		return "error: " + resp.Error
	case resp.NotFound:
		return "absent"
	}
	return "=" + string(resp.Value)
}

func (f *fixture) put(key, value string, ttl uint64) {
	f.Helper()
	resp := f.Put(f.Context(), f.bounds, &kvrpcpb.RawPutRequest{Context: f.ctx(), Key: f.key(key), Value: []byte(value), Ttl: ttl})
	if resp.Error != "" {
		f.Fatal(resp.Error)
	}
}

func (f *fixture) del(key string) {
	f.Helper()
	if resp := f.Delete(f.Context(), f.bounds, &kvrpcpb.RawDeleteRequest{Context: f.ctx(), Key: f.key(key)}); resp.Error != "" {
		f.Fatal(resp.Error)
	}
}

func (f *fixture) ttl(key string) string {
	resp := f.GetKeyTTL(f.Context(), f.bounds, &kvrpcpb.RawGetKeyTTLRequest{Context: f.ctx(), Key: f.key(key)})
	switch {
	case resp.Error != "":
		return resp.Error
	case resp.NotFound:
		return "absent"
	}
	return fmt.Sprint(resp.Ttl)
}

func (f *fixture) pairs(kvs []*kvrpcpb.KvPair) string {
	var all []string
	for _, kv := range kvs {
		if kv.Error != nil {
			all = append(all, "error: "+kv.Error.Abort)
			continue
		}
		all = append(all, f.user(kv.Key)+"="+string(kv.Value))
	}
	return strings.Join(all, " ")
}

func (f *fixture) scan(start, end string, limit uint32, opts ...string) string {
	req := &kvrpcpb.RawScanRequest{Context: f.ctx(), StartKey: f.key(start), EndKey: f.end(end), Limit: limit,
		KeyOnly: slices.Contains(opts, "keys"), Reverse: slices.Contains(opts, "reverse")}
	if req.Reverse {
		req.StartKey, req.EndKey = f.end(start), f.key(end)
	}
	return f.pairs(f.Scan(f.Context(), f.bounds, req).Kvs)
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestGetPutDelete(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		want(f, "absent", f.get("a"), "absent")
		f.put("a", "1", 0)
		f.put("b", "", 0)
		want(f, "a", f.get("a"), "=1")
		want(f, "the empty value", f.get("b"), "=")
		f.put("a", "2", 0)
		want(f, "a again", f.get("a"), "=2")
		want(f, "a prefix of a key", f.get(""), "absent")
		f.put("", "empty key", 0)
		want(f, "the empty key", f.get(""), "=empty key")
		f.del("a")
		f.del("never there")
		want(f, "deleted", f.get("a"), "absent")
		resp := f.BatchGet(f.Context(), f.bounds, &kvrpcpb.RawBatchGetRequest{Context: f.ctx(),
			Keys: [][]byte{f.key("b"), f.key("a"), f.key(""), f.key("x")}})
		want(f, "batch get", f.pairs(resp.Pairs), "b= =empty key")
	})
}

func TestTTL(t *testing.T) {
	for _, v := range []kvrpcpb.APIVersion{v1ttl, v2} {
		t.Run(v.String(), func(t *testing.T) {
			f := newFixture(t, v)
			f.put("short", "v", 10)
			f.put("long", "v", 100)
			f.put("huge", "v", ^uint64(0))
			f.put("never", "v", 0)
			for _, c := range []struct{ key, ttl string }{
				{"short", "10"}, {"long", "100"}, {"never", "0"}, {"gone", "absent"},
				{"huge", fmt.Sprint(^uint64(0) - 1_000_000)},
			} {
				want(t, c.key, f.ttl(c.key), c.ttl)
			}
			f.now = f.now.Add(9 * time.Second)
			want(t, "one second left", f.ttl("short")+f.get("short"), "1=v")
			f.now = f.now.Add(time.Second)
			want(t, "expired", f.ttl("short")+f.get("short"), "absentabsent")
			want(t, "scan", f.scan("", "", 10, "keys"), "huge= long= never=")
			want(t, "reverse scan", f.scan("zz", "", 10, "keys", "reverse"), "never= long= huge=")
			f.put("long", "w", 0)
			want(t, "TTL taken away", f.ttl("long"), "0")
			f.del("long")
			want(t, "of a deleted key", f.ttl("long"), "absent")
			// An expired value is none to compare-and-swap.
			resp := f.CompareAndSwap(t.Context(), f.bounds, &kvrpcpb.RawCASRequest{
				Context: f.ctx(), Key: f.key("short"), Value: []byte("n"), PreviousNotExist: true, Ttl: 5})
			if !resp.Succeed || !resp.PreviousNotExist || f.ttl("short") != "5" {
				t.Errorf("%v, ttl %s", resp, f.ttl("short"))
			}
		})
	}
}

func TestTTLNotEnabled(t *testing.T) {
	const text = "ttl is not enabled, but get put request with ttl"
	f := newFixture(t, v1)
	key := []byte("k")
	for what, got := range map[string]string{
		"put":       f.Put(t.Context(), f.bounds, &kvrpcpb.RawPutRequest{Key: key, Ttl: 1}).Error,
		"put cas":   f.Put(t.Context(), f.bounds, &kvrpcpb.RawPutRequest{Key: key, Ttl: 1, ForCas: true}).Error,
		"batch put": f.BatchPut(t.Context(), f.bounds, &kvrpcpb.RawBatchPutRequest{Pairs: []*kvrpcpb.KvPair{{Key: key}}, Ttls: []uint64{1}}).Error,
		"cas":       f.CompareAndSwap(t.Context(), f.bounds, &kvrpcpb.RawCASRequest{Key: key, PreviousNotExist: true, Ttl: 1}).Error,
		"get ttl":   f.ttl("k"),
	} {
		want(t, what, got, text)
	}
	want(t, "k", f.get("k"), "absent")
}

func TestBatchPutAndDelete(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		put := func(ttls ...uint64) string {
			return f.BatchPut(f.Context(), f.bounds, &kvrpcpb.RawBatchPutRequest{Context: f.ctx(), Ttls: ttls, Pairs: []*kvrpcpb.KvPair{
				{Key: f.key("a"), Value: []byte("1")}, {Key: f.key("b"), Value: []byte("2")},
				{Key: f.key("a"), Value: []byte("3")}}}).Error
		}
		want(f, "put", put(), "")
		want(f, "the last of equal keys wins", f.scan("", "", 9), "a=3 b=2")
		if f.cfg.APIVersion != v1 {
			want(f, "one ttl", put(7), "")
			want(f, "ttls", f.ttl("a")+" "+f.ttl("b"), "7 7")
			want(f, "three ttls", put(1, 0, 3), "")
			want(f, "ttls", f.ttl("a")+" "+f.ttl("b"), "3 0")
		}
		if f.cfg.APIVersion != v1 {
			want(f, "two ttls", put(0, 0), "The length of ttls does not equal to the length of pairs")
		} else {
			want(f, "two ttls", put(0, 0), "")
			want(f, "the third pair is left out", f.scan("", "", 9), "a=1 b=2")
			want(f, "four ttls", put(0, 0, 0, 0), "")
			want(f, "all pairs", f.scan("", "", 9), "a=3 b=2")
		}
		del := f.BatchDelete(f.Context(), f.bounds, &kvrpcpb.RawBatchDeleteRequest{Context: f.ctx(), Keys: [][]byte{f.key("a"), f.key("x")}, ForCas: true})
		want(f, "delete", del.Error, "")
		want(f, "after it", f.scan("", "", 9), "b=2")
	})
}

func TestScan(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		for _, k := range []string{"a", "ab", "b", "c", "d"} {
			f.put(k, "old", 0)
			f.put(k, k, 0)
		}
		f.put("bb", "x", 0)
		f.del("bb")
		for _, c := range []struct {
			bounds, start, end string // bounds: of the region, "from,to"
			limit              uint32
			opt, want          string
		}{
			{",", "", "", 9, "", "a=a ab=ab b=b c=c d=d"},
			{",", "ab", "d", 9, "", "ab=ab b=b c=c"},
			{",", "", "", 2, "", "a=a ab=ab"},
			{",", "", "", 0, "", ""},
			{",", "c", "a", 9, "", ""},
			{",", "b", "b", 9, "", ""},
			{",", "", "", 9, "keys", "a= ab= b= c= d="},
			{"ab,c", "", "", 9, "", "ab=ab b=b"},
			{"ab,c", "b", "d", 9, "", "b=b"},
			{"x,", "b", "d", 9, "", ""},
			{",", "d", "", 9, "reverse", "c=c b=b ab=ab a=a"},
			{",", "d", "ab", 9, "reverse", "c=c b=b ab=ab"},
			{",", "d", "ab", 2, "reverse", "c=c b=b"},
			{",", "zz", "", 2, "reverse", "d=d c=c"},
			{",", "a", "b", 2, "reverse", ""},
			{"ab,c", "zz", "", 9, "reverse", "b=b ab=ab"},
			{"ab,c", "zz", "", 1, "reverse", "b=b"},
		} {
			from, to, _ := strings.Cut(c.bounds, ",")
			f.bounds = keys.Range{Start: f.region(from), End: f.region(to)}
			want(f, fmt.Sprintf("%+v", c), f.scan(c.start, c.end, c.limit, c.opt), c.want)
		}
	})
}

// V1 has scans without ends, and no key is below the empty one.
func TestScanUnboundedV1(t *testing.T) {
	f := newFixture(t, v1)
	f.put("", "0", 0)
	f.put("a", "1", 0)
	want(t, "reverse from the empty key", f.scan("", "", 9, "reverse"), "")
	want(t, "forward", f.scan("", "", 9), "=0 a=1")
}

func TestBatchScan(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		for _, k := range []string{"a", "b", "c", "d", "e"} {
			f.put(k, k, 0)
		}
		scan := func(limit uint32, reverse bool, bounds ...[]byte) string {
			req := &kvrpcpb.RawBatchScanRequest{Context: f.ctx(), EachLimit: limit, Reverse: reverse}
			for i := 0; i < len(bounds); i += 2 {
				req.Ranges = append(req.Ranges, &kvrpcpb.KeyRange{StartKey: bounds[i], EndKey: bounds[i+1]})
			}
			return f.pairs(f.BatchScan(f.Context(), f.bounds, req).Kvs)
		}
		k := f.key
		want(f, "two", scan(9, false, k("a"), k("c"), k("d"), f.end("")), "a=a b=b d=d e=e")
		want(f, "limit", scan(1, false, k("a"), k("c"), k("d"), f.end("")), "a=a d=d")
		want(f, "reverse", scan(9, true, k("c"), k("a"), k("e"), k("d")), "b=b a=a d=d")
		want(f, "wrong way", scan(9, false, k("c"), k("a")), `error: Error(Other("Invalid KeyRanges"))`)
		if f.cfg.APIVersion != v2 {
			want(f, "an end left out", scan(9, false, k("a"), nil, k("c"), nil), "a=a b=b c=c d=d e=e")
			want(f, "the same", scan(1, false, k("a"), nil, k("c"), nil), "a=a c=c")
			want(f, "no room", scan(9, false, k("c"), nil, k("b"), k("d")), `error: Error(Other("Invalid KeyRanges"))`)
		}
	})
}

func TestDeleteRange(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		fill := func() {
			for _, k := range []string{"a", "b", "c", "d"} {
				f.put(k, k, 0)
			}
		}
		del := func(start, end []byte) string {
			resp := f.DeleteRange(f.Context(), f.bounds, &kvrpcpb.RawDeleteRangeRequest{Context: f.ctx(), StartKey: start, EndKey: end})
			return resp.Error + resp.RegionError.GetMessage()
		}
		fill()
		want(f, "b to d", del(f.key("b"), f.key("d")), "")
		want(f, "left", f.scan("", "", 9, "keys"), "a= d=")
		fill()
		f.bounds = keys.Range{Start: f.region("c")}
		want(f, "in the region", del(f.key(""), f.end("")), "")
		f.bounds = keys.Range{}
		want(f, "left", f.scan("", "", 9, "keys"), "a= b=")
		if got := del(f.key("b"), f.key("a")); !strings.HasPrefix(got, "invalid delete range command, start_key: [") {
			f.Error(got)
		}
		if got := del(f.key("b"), f.key("b")); !strings.HasPrefix(got, "invalid delete range command") {
			f.Error(got)
		}
	})
}

func TestCompareAndSwap(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		for i, c := range []struct {
			previous string // what is expected; "absent"
			next     string // "delete": remove
			want     string // previous value of the answer, and "swapped"
			after    string
		}{
			{"", "1", "absent", "absent"},
			{"absent", "delete", "absent swapped", "absent"},
			{"absent", "1", "absent swapped", "=1"},
			{"absent", "2", "=1", "=1"},
			{"0", "2", "=1", "=1"},
			{"1", "", "=1 swapped", "="},
			{"absent", "3", "=", "="},
			{"", "3", "= swapped", "=3"},
			{"2", "delete", "=3", "=3"},
			{"3", "delete", "=3 swapped", "absent"},
		} {
			req := &kvrpcpb.RawCASRequest{Context: f.ctx(), Key: f.key("k"), Delete: c.next == "delete", Value: []byte(c.next)}
			if req.PreviousNotExist = c.previous == "absent"; !req.PreviousNotExist {
				req.PreviousValue = []byte(c.previous)
			}
			resp := f.CompareAndSwap(f.Context(), f.bounds, req)
			got := "=" + string(resp.PreviousValue)
			if resp.PreviousNotExist {
				got = "absent"
			}
			if resp.Succeed {
				got += " swapped"
			}
			want(f, fmt.Sprintf("step %d (%s)", i, resp.Error), got, c.want)
			want(f, fmt.Sprintf("after step %d", i), f.get("k"), c.after)
		}
	})
}

// A value is made longer by compare-and-swap from several goroutines: none is lost.
func TestCompareAndSwapConcurrently(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		const workers, each = 4, 50
		var wg sync.WaitGroup
		for range workers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for done := 0; done < each; {
					read := f.Get(f.Context(), f.bounds, &kvrpcpb.RawGetRequest{Context: f.ctx(), Key: f.key("n")})
					resp := f.CompareAndSwap(f.Context(), f.bounds, &kvrpcpb.RawCASRequest{Context: f.ctx(), Key: f.key("n"),
						PreviousNotExist: read.NotFound, PreviousValue: read.Value, Value: append(slices.Clone(read.Value), 'x')})
					if resp.Error != "" {
						f.Error(resp.Error)
						return
					}
					if resp.Succeed {
						done++
					}
				}
			}()
		}
		wg.Wait()
		want(f, "n", f.get("n"), "="+strings.Repeat("x", workers*each))
	})
}

// An atomic write waits for whoever holds the key's latch; an ordinary one does not. A
// wait ends with its context, and nothing is written.
func TestAtomicWritesTakeLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, v1)
		release, err := f.latches.Acquire(t.Context(), []byte("k"))
		if err != nil {
			t.Fatal(err)
		}
		put := func(ctx context.Context, value string) string {
			return f.Put(ctx, f.bounds, &kvrpcpb.RawPutRequest{Key: []byte("k"), Value: []byte(value), ForCas: true}).Error
		}
		done := make(chan string, 1)
		go func() { done <- put(t.Context(), "atomic") }()
		synctest.Wait()
		f.put("k", "ordinary", 0)
		want(t, "k", f.get("k"), "=ordinary")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		want(t, "a wait that ends", put(ctx, "late"), "context deadline exceeded")
		want(t, "k", f.get("k"), "=ordinary")
		release()
		want(t, "the one that waited", <-done, "")
		want(t, "k", f.get("k"), "=atomic")
	})
}

// The first sum is the CRC-64/XZ check value; the others follow from the definition.
func TestChecksum(t *testing.T) {
	versionsDo(t, func(f *fixture) {
		sum := func(algorithm kvrpcpb.ChecksumAlgorithm, ranges ...*kvrpcpb.KeyRange) *kvrpcpb.RawChecksumResponse {
			return f.Checksum(f.Context(), f.bounds, &kvrpcpb.RawChecksumRequest{Context: f.ctx(), Algorithm: algorithm, Ranges: ranges})
		}
		all := &kvrpcpb.KeyRange{StartKey: f.key(""), EndKey: f.end("")}
		if got := sum(0, all); got.Checksum != 0 || got.TotalKvs != 0 || got.TotalBytes != 0 || got.Error != "" {
			f.Error(got)
		}
		f.put("1234", "56789", 0)
		got := sum(0, all)
		if n := uint64(len(f.key("1234")) + 5); got.TotalKvs != 1 || got.TotalBytes != n {
			f.Error(got)
		}
		if f.cfg.APIVersion != v2 && got.Checksum != 0x995dc9bbdf1939fa { // CRC-64/XZ of "123456789"
			f.Errorf("%x", got.Checksum)
		}
		one := got.Checksum
		f.put("k", "v", 0)
		f.put("k", "w", 0)
		f.put("gone", "v", 0)
		f.del("gone")
		both := sum(0, all)
		k := sum(0, &kvrpcpb.KeyRange{StartKey: f.key("k"), EndKey: f.end("")})
		if both.Checksum != one^k.Checksum || both.TotalKvs != 2 || k.TotalKvs != 1 {
			f.Error(both, k)
		}
		f.bounds.End = f.region("k")
		if got := sum(0, all); got.Checksum != one {
			f.Error("beyond the region:", got)
		}
		want(f, "algorithm", sum(1, all).Error, "unknown checksum algorithm 1")
	})
}

func TestColumnFamilies(t *testing.T) {
	for _, v := range []kvrpcpb.APIVersion{v1, v1ttl} {
		f := newFixture(t, v)
		for _, cf := range []string{"default", "lock", "write"} {
			if resp := f.Put(t.Context(), f.bounds, &kvrpcpb.RawPutRequest{Key: []byte("k"), Value: []byte(cf), Cf: cf}); resp.Error != "" {
				t.Fatal(resp.Error)
			}
		}
		for _, cf := range []string{"default", "lock", "write"} {
			resp := f.Get(t.Context(), f.bounds, &kvrpcpb.RawGetRequest{Key: []byte("k"), Cf: cf})
			want(t, cf, string(resp.Value), cf)
		}
		want(t, "no name", f.get("k"), "=default")
	}
	for v, text := range map[kvrpcpb.APIVersion][2]string{
		v1:    {"invalid cf name: meta", `Error(InvalidCf("meta"))`},
		v1ttl: {"invalid cf name: meta", `Error(InvalidCf("meta"))`},
		v2:    {"cf is deprecated in API V2, cf name: meta", `Error(CfDeprecated("meta"))`},
	} {
		f := newFixture(t, v)
		ctx, b, k, cf := t.Context(), f.bounds, f.key("k"), "meta"
		for what, got := range map[string]string{
			"get":          f.Get(ctx, b, &kvrpcpb.RawGetRequest{Context: f.ctx(), Key: k, Cf: cf}).Error,
			"put":          f.Put(ctx, b, &kvrpcpb.RawPutRequest{Context: f.ctx(), Key: k, Cf: cf}).Error,
			"batch put":    f.BatchPut(ctx, b, &kvrpcpb.RawBatchPutRequest{Context: f.ctx(), Cf: cf}).Error,
			"delete":       f.Delete(ctx, b, &kvrpcpb.RawDeleteRequest{Context: f.ctx(), Key: k, Cf: cf}).Error,
			"batch delete": f.BatchDelete(ctx, b, &kvrpcpb.RawBatchDeleteRequest{Context: f.ctx(), Cf: cf}).Error,
			"delete range": f.DeleteRange(ctx, b, &kvrpcpb.RawDeleteRangeRequest{Context: f.ctx(), StartKey: k, EndKey: f.end(""), Cf: cf}).Error,
			"cas":          f.CompareAndSwap(ctx, b, &kvrpcpb.RawCASRequest{Context: f.ctx(), Key: k, Cf: cf}).Error,
		} {
			want(t, v.String()+" "+what, got, text[0])
		}
		for what, got := range map[string][]*kvrpcpb.KvPair{
			"batch get":  f.BatchGet(ctx, b, &kvrpcpb.RawBatchGetRequest{Context: f.ctx(), Cf: cf}).Pairs,
			"scan":       f.Scan(ctx, b, &kvrpcpb.RawScanRequest{Context: f.ctx(), StartKey: k, EndKey: f.end(""), Cf: cf}).Kvs,
			"batch scan": f.BatchScan(ctx, b, &kvrpcpb.RawBatchScanRequest{Context: f.ctx(), Cf: cf}).Kvs,
		} {
			want(t, v.String()+" "+what, f.pairs(got), "error: "+text[1])
		}
	}
}

func TestRefusals(t *testing.T) {
	f, ctx := newFixture(t, v2), t.Context()
	b := f.bounds
	bad, v := []byte("xk"), f.ctx()
	const mode = "Key mode mismatched with the request mode, cmd: "
	for what, got := range map[string]string{
		mode + "raw_get":              f.Get(ctx, b, &kvrpcpb.RawGetRequest{Context: v, Key: bad}).Error,
		mode + "raw_put":              f.Put(ctx, b, &kvrpcpb.RawPutRequest{Context: v, Key: bad}).Error,
		mode + "raw_batch_put":        f.BatchPut(ctx, b, &kvrpcpb.RawBatchPutRequest{Context: v, Pairs: []*kvrpcpb.KvPair{{Key: bad}}}).Error,
		mode + "raw_delete":           f.Delete(ctx, b, &kvrpcpb.RawDeleteRequest{Context: v, Key: bad}).Error,
		mode + "raw_batch_delete":     f.BatchDelete(ctx, b, &kvrpcpb.RawBatchDeleteRequest{Context: v, Keys: [][]byte{bad}}).Error,
		mode + "raw_atomic_store":     f.Put(ctx, b, &kvrpcpb.RawPutRequest{Context: v, Key: bad, ForCas: true}).Error,
		mode + "raw_get_key_ttl":      f.GetKeyTTL(ctx, b, &kvrpcpb.RawGetKeyTTLRequest{Context: v, Key: bad}).Error,
		mode + "raw_compare_and_swap": f.CompareAndSwap(ctx, b, &kvrpcpb.RawCASRequest{Context: v, Key: bad}).Error,
		mode + "raw_delete_range":     f.DeleteRange(ctx, b, &kvrpcpb.RawDeleteRangeRequest{Context: v, StartKey: bad, EndKey: []byte("y")}).Error,
		mode + "raw_checksum":         f.Checksum(ctx, b, &kvrpcpb.RawChecksumRequest{Context: v, Ranges: []*kvrpcpb.KeyRange{{StartKey: bad}}}).Error,
		"Api version in request":      f.Get(ctx, b, &kvrpcpb.RawGetRequest{Key: f.key("k")}).Error,
	} {
		if !strings.HasPrefix(got, what) {
			t.Errorf("%q, want %q", got, what)
		}
	}
	for _, got := range [][]*kvrpcpb.KvPair{
		f.BatchGet(ctx, b, &kvrpcpb.RawBatchGetRequest{Context: v, Keys: [][]byte{bad}}).Pairs,
		f.Scan(ctx, b, &kvrpcpb.RawScanRequest{Context: v, StartKey: bad}).Kvs,
		f.BatchScan(ctx, b, &kvrpcpb.RawBatchScanRequest{Context: v, Ranges: []*kvrpcpb.KeyRange{{StartKey: bad}}}).Kvs,
	} {
		if !strings.HasPrefix(f.pairs(got), "error: Error(InvalidKey") {
			t.Error(f.pairs(got))
		}
	}
}

func TestKeySize(t *testing.T) {
	f, ctx := newFixture(t, v1), t.Context()
	b, big := f.bounds, bytes.Repeat([]byte("k"), 8193)
	const text = "max key size exceeded, size: 8193, limit: 8192"
	for what, got := range map[string]string{
		"put":          f.Put(ctx, b, &kvrpcpb.RawPutRequest{Key: big}).Error,
		"batch put":    f.BatchPut(ctx, b, &kvrpcpb.RawBatchPutRequest{Pairs: []*kvrpcpb.KvPair{{Key: []byte("a")}, {Key: big}}}).Error,
		"delete":       f.Delete(ctx, b, &kvrpcpb.RawDeleteRequest{Key: big}).Error,
		"batch delete": f.BatchDelete(ctx, b, &kvrpcpb.RawBatchDeleteRequest{Keys: [][]byte{big}}).Error,
		"delete range": f.DeleteRange(ctx, b, &kvrpcpb.RawDeleteRangeRequest{EndKey: big}).Error,
	} {
		want(t, what, got, text)
	}
	want(t, "nothing of a refused batch is written", f.get("a"), "absent")
	want(t, "the largest key", f.Put(ctx, b, &kvrpcpb.RawPutRequest{Key: big[1:]}).Error, "")
	want(t, "an atomic put", f.Put(ctx, b, &kvrpcpb.RawPutRequest{Key: big, ForCas: true}).Error, "")
}

// version is the timestamp of a key's newest version in V2, and how many it has.
func (f *fixture) version(key string) (newest uint64, n int) {
	s := f.store.Snapshot()
	defer s.Close()
	for k := range s.Scan(storage.Default, versions(f.key(key)), true) {
		_, newest, _ = splitVersion(k)
		n++
	}
	return newest, n
}

// A V2 store keeps one version of a key, and a clock that goes back hides no write.
func TestVersionsOfV2(t *testing.T) {
	f := newFixture(t, v2)
	f.put("k", "1", 0)
	f.put("k", "2", 0)
	before, _ := f.version("k")
	f.now = f.now.Add(-time.Hour)
	g := &fixture{T: t, store: f.store, now: f.now}
	g.Engine = New(f.store, Config{APIVersion: v2, Now: func() time.Time { return g.now }})
	g.put("k", "3", 0)
	want(t, "after the restart", g.get("k"), "=3")
	if ts, n := g.version("k"); n != 1 || ts <= before {
		t.Errorf("%d versions, the newest at %d after one at %d", n, ts, before)
	}
	g.del("k")
	want(t, "deleted", g.get("k"), "absent")
	s := f.store.Snapshot()
	defer s.Close()
	n := 0
	for key, stored := range s.Scan(storage.Default, keys.Range{}, false) {
		n++
		if !bytes.Equal(key[:len(key)-tsLen], keys.Encode(f.key("k"))) || !bytes.Equal(stored, []byte{flagDeleted}) {
			t.Errorf("%x %x", key, stored)
		}
	}
	if n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestClosedStore(t *testing.T) {
	f := newFixture(t, v1)
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "put", f.Put(t.Context(), f.bounds, &kvrpcpb.RawPutRequest{Key: []byte("k")}).Error, storage.ErrClosed.Error())
}

func BenchmarkGetV1(b *testing.B) { benchmarkGet(b, v1) }

func BenchmarkGetV2(b *testing.B) { benchmarkGet(b, v2) }

func benchmarkGet(b *testing.B, v kvrpcpb.APIVersion) {
	e := New(storage.NewMemory(), Config{APIVersion: v, Now: time.Now})
	ctx := &kvrpcpb.Context{ApiVersion: v}
	var reqs []*kvrpcpb.RawGetRequest
	for i := range 10_000 {
		key := fmt.Appendf(nil, "r\x00\x00\x00user%08d", i)
		e.Put(b.Context(), keys.Range{}, &kvrpcpb.RawPutRequest{Context: ctx, Key: key, Value: make([]byte, 100)})
		reqs = append(reqs, &kvrpcpb.RawGetRequest{Context: ctx, Key: key})
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % len(reqs)
		if resp := e.Get(b.Context(), keys.Range{}, reqs[i]); resp.NotFound || resp.Error != "" {
			b.Fatal(resp)
		}
	}
}

// A request with more than one mistake is refused for the one that TiKV looks at first
// (TiKV src/storage/mod.rs, raw_put and those that follow).
func TestOrderOfChecks(t *testing.T) {
	f := newFixture(t, v1)
	long, bad, v2ctx := make([]byte, 8<<10+1), "nope", &kvrpcpb.Context{ApiVersion: v2}
	const (
		version = "Api version"
		size    = "max key size"
		ttl     = "ttl is not enabled"
		cf      = "invalid cf name"
	)
	put := func(ctx *kvrpcpb.Context, cas bool, key []byte, ttl uint64) string {
		return f.Put(t.Context(), f.bounds, &kvrpcpb.RawPutRequest{Context: ctx, Key: key, Cf: bad, Ttl: ttl, ForCas: cas}).Error
	}
	batch := func(ctx *kvrpcpb.Context, cas bool, cf string, key []byte, ttl uint64) string {
		return f.BatchPut(t.Context(), f.bounds, &kvrpcpb.RawBatchPutRequest{Context: ctx, Pairs: []*kvrpcpb.KvPair{{Key: key}}, Cf: cf, Ttls: []uint64{ttl}, ForCas: cas}).Error
	}
	batchDelete := func(cas bool, cf string) string {
		return f.BatchDelete(t.Context(), f.bounds, &kvrpcpb.RawBatchDeleteRequest{Keys: [][]byte{long}, Cf: cf, ForCas: cas}).Error
	}
	deleteRange := func(ctx *kvrpcpb.Context, end []byte) string {
		resp := f.DeleteRange(t.Context(), f.bounds, &kvrpcpb.RawDeleteRangeRequest{Context: ctx, StartKey: []byte("b"), EndKey: end, Cf: bad})
		return resp.Error + resp.RegionError.GetMessage()
	}
	for _, c := range []struct{ name, got, want string }{
		{"put, all", put(v2ctx, false, long, 1), version},
		{"put, size", put(nil, false, long, 1), size},
		{"put, ttl", put(nil, false, []byte("k"), 1), ttl},
		{"put, cf", put(nil, false, []byte("k"), 0), cf},
		{"atomic put, cf", put(nil, true, long, 1), cf},
		{"batch, all", batch(v2ctx, false, bad, long, 1), version},
		{"batch, cf", batch(nil, false, bad, long, 1), cf},
		{"batch, size", batch(nil, false, "", long, 1), size},
		{"batch, ttl", batch(nil, false, "", []byte("k"), 1), ttl},
		{"atomic batch, cf", batch(nil, true, bad, long, 1), cf},
		{"atomic batch, ttl", batch(nil, true, "", long, 1), ttl},
		{"atomic batch, long", batch(nil, true, "", long, 0), ""},
		{"delete", f.Delete(t.Context(), f.bounds, &kvrpcpb.RawDeleteRequest{Key: long, Cf: bad}).Error, size},
		{"batch delete, cf", batchDelete(false, bad), cf},
		{"batch delete, size", batchDelete(false, ""), size},
		{"atomic batch delete", batchDelete(true, ""), ""},
		{"range, size", deleteRange(v2ctx, long), size},
		{"range, version", deleteRange(v2ctx, []byte("a")), version},
		{"range, cf", deleteRange(nil, []byte("a")), cf},
	} {
		if !strings.HasPrefix(c.got, c.want) || (c.got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
}
