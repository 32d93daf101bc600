package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// listing is a coprocessor whose answers are readable: "plan: key=value key=value".
func listing(_ context.Context, plan []byte, pairs [][2][]byte) ([]byte, error) {
	out := append(bytes.Clone(plan), ':')
	for _, p := range pairs {
		out = fmt.Appendf(out, " %s=%s", p[0], p[1])
	}
	return out, nil
}

// putTxn commits keys, each with the value v, and returns the commit timestamp.
func (c *testCluster) putTxn(keys ...string) uint64 {
	c.t.Helper()
	for _, k := range keys {
		s := c.timestamp()
		c.prewrite(s, k, "v"+k)
		if p := c.commit(s, c.timestamp(), k); p.Error != nil {
			c.t.Fatal(p)
		}
	}
	return c.timestamp()
}

// many are n keys, and puts them at once.
func (c *testCluster) many(n int) []string {
	c.t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%04d", i)
	}
	s := c.timestamp()
	if p := c.prewriteAt(&kvrpcpb.PrewriteRequest{StartVersion: s}, keys...); p.RegionError != nil || len(p.Errors) > 0 {
		c.t.Fatal(p)
	}
	ctx, kv := c.at(KeyTxn, keys[0])
	wire := make([][]byte, n)
	for i, k := range keys {
		wire[i] = []byte(k)
	}
	p, err := kv.KvCommit(c.t.Context(), &kvrpcpb.CommitRequest{Context: ctx, StartVersion: s, CommitVersion: c.timestamp(), Keys: wire})
	if err != nil || p.RegionError != nil || p.Error != nil {
		c.t.Fatal(p, err)
	}
	return keys
}

func ranges(bounds ...string) []*coprocessor.KeyRange {
	var all []*coprocessor.KeyRange
	for i := 0; i < len(bounds); i += 2 {
		all = append(all, &coprocessor.KeyRange{Start: []byte(bounds[i]), End: []byte(bounds[i+1])})
	}
	return all
}

// cop sends a request to the region of its first range, or of "a".
func (c *testCluster) cop(q *coprocessor.Request) *coprocessor.Response {
	c.t.Helper()
	kv := c.copContext(q)
	resp, err := kv.Coprocessor(c.t.Context(), q)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func (c *testCluster) copContext(q *coprocessor.Request) tikvpb.TikvClient {
	c.t.Helper()
	first := "a"
	if len(q.Ranges) > 0 {
		first = string(q.Ranges[0].Start)
	}
	ctx, kv := c.at(KeyTxn, first)
	if q.Context != nil {
		ctx.IsolationLevel, ctx.ResolvedLocks, ctx.CommittedLocks = q.Context.IsolationLevel, q.Context.ResolvedLocks, q.Context.CommittedLocks
		ctx.MaxExecutionDurationMs, ctx.ApiVersion = q.Context.MaxExecutionDurationMs, q.Context.ApiVersion
	}
	q.Context = ctx
	return kv
}

// What is read is what transactional reads would read, range by range.
func TestCoprocessor(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(103, listing), WithCoprocessor(7, EchoCoprocessor()),
		WithCoprocessor(8, func(context.Context, []byte, [][2][]byte) ([]byte, error) { return nil, errors.New("of the plan") }))
	before := c.timestamp()
	now := c.putTxn("a", "b", "c", "d")
	locked := c.timestamp()
	c.prewrite(locked, "x", "later")
	late := c.timestamp()
	for name, v := range map[string]struct {
		q     coprocessor.Request
		data  string
		other string
	}{
		"two ranges":     {coprocessor.Request{Tp: 103, Data: []byte("p"), StartTs: now, Ranges: ranges("c", "d", "a", "b\x00")}, "p: c=vc a=va b=vb", ""},
		"earlier":        {coprocessor.Request{Tp: 103, Data: []byte("p"), StartTs: before, Ranges: ranges("a", "z")}, "p:", ""},
		"no range":       {coprocessor.Request{Tp: 103, Data: []byte("p"), StartTs: now}, "p:", ""},
		"end is nothing": {coprocessor.Request{Tp: 103, Data: []byte("p"), StartTs: now, Ranges: ranges("a", "")}, "p:", ""},
		"timestamp in the plan": {
			coprocessor.Request{Tp: 103, Data: protowire.AppendVarint([]byte{1 << 3}, now), Ranges: ranges("a", "b")},
			string(protowire.AppendVarint([]byte{1 << 3}, now)) + ": a=va", "",
		},
		"echo":       {coprocessor.Request{Tp: 7, Data: []byte("p"), StartTs: now, Ranges: ranges("a", "b")}, "\x01p\x01a\x02va", ""},
		"plan fails": {coprocessor.Request{Tp: 8, StartTs: now, Ranges: ranges("a", "b")}, "", "of the plan"},
		"other type": {coprocessor.Request{Tp: 104, StartTs: now, Ranges: ranges("a", "b")}, "", "[src/coprocessor/endpoint.rs:450]: unsupported tp 104"},
		"below the lock": {
			coprocessor.Request{Tp: 103, StartTs: now, Ranges: ranges("d", "z")}, ": d=vd", "",
		},
		"lock passed": {
			coprocessor.Request{Tp: 103, StartTs: late, Ranges: ranges("d", "z"), Context: &kvrpcpb.Context{ResolvedLocks: []uint64{locked}}}, ": d=vd", "",
		},
		"lock read": {
			coprocessor.Request{Tp: 103, StartTs: late, Ranges: ranges("d", "z"), Context: &kvrpcpb.Context{CommittedLocks: []uint64{locked}}}, ": d=vd x=later", "",
		},
		"read committed": {
			coprocessor.Request{Tp: 103, StartTs: late, Ranges: ranges("d", "z"), Context: &kvrpcpb.Context{IsolationLevel: kvrpcpb.IsolationLevel_RC}}, ": d=vd", "",
		},
		"read committed, newer": {
			coprocessor.Request{Tp: 103, StartTs: before, Ranges: ranges("a", "b"), Context: &kvrpcpb.Context{IsolationLevel: kvrpcpb.IsolationLevel_RCCheckTS}}, "", "write conflict, start_ts:",
		},
		"version 3": {
			coprocessor.Request{Tp: 103, StartTs: now, Context: &kvrpcpb.Context{ApiVersion: 3}}, "", "API V3 is not supported",
		},
	} {
		p := c.cop(&v.q)
		if string(p.Data) != v.data || p.RegionError != nil || p.Locked != nil || (p.OtherError == "") != (v.other == "") || !strings.Contains(p.OtherError, v.other) {
			t.Errorf("%s: %v", name, p)
		}
	}
	p := c.cop(&coprocessor.Request{Tp: 103, StartTs: late, Ranges: ranges("d", "z")})
	if l := p.Locked; l == nil || string(l.Key) != "x" || l.LockVersion != locked || len(p.Data) > 0 {
		t.Error("the lock:", p)
	}
	if _, err := Start(t.Context(), WithCoprocessor(1, nil)); err == nil {
		t.Error("no function was taken for one")
	}
}

// The region errors are those of any read; what is outside of the region is none.
func TestCoprocessorRegions(t *testing.T) {
	c := start(t, WithCoprocessor(103, listing), WithSplitKeys(KeyTxn, []byte("m")))
	now := c.putTxn("a", "z")
	q := &coprocessor.Request{Tp: 103, StartTs: now, Ranges: ranges("a", "z")}
	p := c.cop(q)
	if !strings.HasPrefix(p.OtherError, "Request range exceeds bound, request range:[6100000000000000F8, 7A00000000000000F8), physical bound:[(none), 6D00000000000000F8)") {
		t.Error(p)
	}
	q.Ranges = ranges("a", "b")
	kv := c.copContext(q)
	q.Context.RegionEpoch = &metapb.RegionEpoch{Version: 77}
	if p, err := kv.Coprocessor(t.Context(), q); err != nil || p.RegionError.GetEpochNotMatch() == nil || len(p.Data) > 0 {
		t.Error(p, err)
	}
	kv = c.copContext(q)
	region := q.Context.RegionId
	c.must(c.TransferLeader(region, q.Context.Peer.StoreId%3+1))
	if p, err := kv.Coprocessor(t.Context(), q); err != nil || p.RegionError.GetNotLeader() == nil {
		t.Error(p, err)
	}
	q.Context.ReplicaRead = true
	if p, err := kv.Coprocessor(t.Context(), q); err != nil || string(p.Data) != ": a=va" {
		t.Error(p, err)
	}
	// A timestamp that PD never gave out: text alone.
	q.Context.ReplicaRead = false
	q.StartTs = 1 << 62
	if p := c.cop(q); !strings.HasPrefix(p.RegionError.GetMessage(), "invalid max_ts update") {
		t.Error(p)
	}
}

// In a region that a flashback has closed, checksums are made, and what is below its
// start is read.
func TestCoprocessorInFlashback(t *testing.T) {
	c := start(t, WithCoprocessor(103, listing), WithCoprocessor(105, listing))
	now := c.putTxn("a")
	began := c.timestamp()
	ctx, kv := c.at(KeyTxn, "a")
	if p, err := kv.KvPrepareFlashbackToVersion(t.Context(), &kvrpcpb.PrepareFlashbackToVersionRequest{
		Context: ctx, StartTs: began, Version: now, StartKey: []byte("a"), EndKey: []byte("z"),
	}); err != nil || p.RegionError != nil || p.Error != "" {
		t.Fatal(p, err)
	}
	late := c.timestamp()
	for _, v := range []struct {
		tp   int64
		ts   uint64
		open bool
	}{{103, now, true}, {103, late, false}, {103, 0, false}, {105, now, true}, {105, late, true}} {
		p := c.cop(&coprocessor.Request{Tp: v.tp, StartTs: v.ts, Ranges: ranges("b", "c")})
		if (p.RegionError.GetFlashbackInProgress() == nil) != v.open {
			t.Errorf("%+v: %v", v, p)
		}
	}
}

// While a plan is computed its region is free: it may even be split.
func TestCoprocessorHoldsNothing(t *testing.T) {
	var c *testCluster
	c = start(t, WithStores(1), WithCoprocessor(103, func(_ context.Context, _ []byte, pairs [][2][]byte) ([]byte, error) {
		_, err := c.Split(KeyTxn, []byte("b"))
		return fmt.Appendf(nil, "%d", len(pairs)), err
	}))
	now := c.putTxn("a", "b", "c")
	if p := c.cop(&coprocessor.Request{Tp: 103, StartTs: now, Ranges: ranges("a", "z")}); string(p.Data) != "3" {
		t.Fatal(p)
	}
	if n := len(c.Regions(KeyTxn)); n != 2 {
		t.Fatal(n)
	}
}

// A page ends where a batch ends: after 32, 96, 224 pairs. Its range tells where the next
// one begins; the last has none.
func TestCoprocessorPages(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(103, listing), WithCoprocessor(105, listing))
	all := c.many(128)
	now := c.timestamp()
	read := func(q coprocessor.Request) (sizes []int) {
		t.Helper()
		q.Tp, q.StartTs, q.Ranges = 103, now, ranges("k", "k0100", "k0100", "l")
		var got []string
		for range 10 {
			p := c.cop(&q)
			pairs := strings.Fields(string(p.Data))[1:]
			got, sizes = append(got, pairs...), append(sizes, len(pairs))
			if p.Range == nil {
				if len(got) != len(all) {
					t.Errorf("%d pairs", len(got))
				}
				return sizes
			}
			if string(p.Range.Start) != string(q.Ranges[0].Start) || string(p.Range.End) != all[len(got)-1]+"\x00" {
				t.Fatalf("%q to %q after %d", p.Range.Start, p.Range.End, len(got))
			}
			q.Ranges = ranges(string(p.Range.End), "l")
			q.Context = nil
		}
		t.Fatal("no end")
		return nil
	}
	for name, v := range map[string]struct {
		q    coprocessor.Request
		want string
	}{
		"all":            {coprocessor.Request{}, "[128]"},
		"one":            {coprocessor.Request{PagingSize: 1}, "[32 32 32 32 0]"},
		"more than 32":   {coprocessor.Request{PagingSize: 33}, "[96 32]"},
		"more than have": {coprocessor.Request{PagingSize: 1000}, "[128]"},
		"keys":           {coprocessor.Request{MaxKeysRead: 40}, "[96 32]"},
		"bytes":          {coprocessor.Request{PagingSizeBytes: 32 * 10}, "[32 32 32 32 0]"},
		"more bytes":     {coprocessor.Request{PagingSizeBytes: 32*10 + 1}, "[96 32]"},
		"what is less":   {coprocessor.Request{PagingSize: 90, MaxKeysRead: 30}, "[32 32 32 32 0]"},
	} {
		if got := fmt.Sprint(read(v.q)); got != v.want {
			t.Errorf("%s: %v, want %v", name, got, v.want)
		}
	}
	if p := c.cop(&coprocessor.Request{Tp: 105, StartTs: now, PagingSize: 1, Ranges: ranges("k", "l")}); len(strings.Fields(string(p.Data))) != 129 || p.Range != nil {
		t.Error("a checksum in pages:", p)
	}
	p := c.cop(&coprocessor.Request{Tp: 103, StartTs: now, PagingSize: 1, Ranges: ranges("k", "l")})
	if d := p.ExecDetailsV2.GetScanDetailV2(); d.GetProcessedVersions() != 32 || d.GetProcessedVersionsSize() != 32*10 || d.GetTotalVersions() != 32 {
		t.Error(d)
	}
}

// The version of a region's data is another after each write, and the answer to who has
// the present one is that.
func TestCoprocessorCache(t *testing.T) {
	c := start(t, WithCoprocessor(103, listing), WithCoprocessor(105, ChecksumCoprocessor()))
	before := c.timestamp()
	now := c.putTxn("a")
	ask := func(ts uint64, have *coprocessor.Response) *coprocessor.Response {
		q := &coprocessor.Request{Tp: 103, StartTs: ts, Ranges: ranges("a", "z"), IsCacheEnabled: true}
		if have != nil {
			q.CacheIfMatchVersion = have.CacheLastVersion
		}
		return c.cop(q)
	}
	first := ask(now, nil)
	if string(first.Data) != ": a=va" || !first.CanBeCached || first.IsCacheHit || first.CacheLastVersion == 0 {
		t.Fatal(first)
	}
	if p := ask(now, first); !p.IsCacheHit || len(p.Data) > 0 || p.CacheLastVersion != first.CacheLastVersion {
		t.Error(p)
	}
	if p := ask(before, nil); p.CanBeCached || string(p.Data) != ":" {
		t.Error("what others see differently is to be cached:", p)
	}
	c.must(c.TransferLeader(c.Regions(KeyTxn)[0].ID, c.Regions(KeyTxn)[0].Leader%3+1))
	if p := ask(now, first); p.IsCacheHit {
		t.Error("after a change of the leader:", p)
	}
	again := ask(now, nil)
	s := c.timestamp()
	c.prewrite(s, "b", "2")
	if p := ask(now, again); p.IsCacheHit || p.CanBeCached {
		t.Error("after a lock was written:", p)
	}
	if p := c.commit(s, c.timestamp(), "b"); p.Error != nil {
		t.Fatal(p)
	}
	if p := ask(c.timestamp(), again); p.IsCacheHit || string(p.Data) != ": a=va b=2" {
		t.Error(p)
	}
	if p := c.cop(&coprocessor.Request{Tp: 105, StartTs: now, Ranges: ranges("a", "z"), IsCacheEnabled: true}); p.CanBeCached || p.CacheLastVersion != 0 {
		t.Error("a checksum is to be cached:", p)
	}
	if p := c.cop(&coprocessor.Request{Tp: 103, StartTs: now, Ranges: ranges("a", "z")}); p.CanBeCached {
		t.Error("nobody asked for it:", p)
	}
}

// What a follower that is behind has is nothing to be kept: the version of the data that
// the leader tells from another is not that of the follower's.
func TestCoprocessorCacheOfALaggingFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithCoprocessor(103, listing))
		at := c.putOnePhase("a", "old")
		region, followers := c.followers("a")
		ask := func(ts uint64, have *coprocessor.Response) *coprocessor.Response {
			t.Helper()
			q := &coprocessor.Request{Tp: 103, StartTs: ts, Ranges: ranges("a", "z"), IsCacheEnabled: true, CacheIfMatchVersion: have.GetCacheLastVersion()}
			if have != nil {
				return c.cop(q)
			}
			var kv tikvpb.TikvClient
			q.Context, kv = c.onStore(region, followers[0])
			q.Context.StaleRead = true
			p, err := kv.Coprocessor(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		if p := ask(at, nil); !p.CanBeCached || p.CacheLastVersion == 0 || string(p.Data) != ": a=old" {
			t.Error("a follower that has everything:", p)
		}
		c.set(followers[0], StoreState{ApplyLag: 10 * time.Second})
		c.putOnePhase("a", "new")
		p := ask(at, nil)
		if string(p.Data) != ": a=old" || p.CanBeCached {
			t.Error(p)
		}
		if p := ask(c.timestamp(), p); p.IsCacheHit || string(p.Data) != ": a=new" {
			t.Error(p)
		}
	})
}

func TestCoprocessorDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(1), WithCoprocessor(103, func(ctx context.Context, plan []byte, _ [][2][]byte) ([]byte, error) {
			d, err := time.ParseDuration(string(plan))
			if err != nil {
				return nil, err
			}
			select {
			case <-time.After(d):
				return []byte("done"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}))
		now := c.timestamp()
		for _, v := range []struct {
			takes string
			limit uint64
			done  bool
			took  time.Duration
		}{
			{"1s", 1500, true, time.Second},
			{"2s", 1500, false, 1500 * time.Millisecond},
			{"59s", 0, true, 59 * time.Second},
			{"61s", 0, false, time.Minute},
		} {
			began := time.Now()
			p := c.cop(&coprocessor.Request{
				Tp: 103, StartTs: now, Data: []byte(v.takes), Context: &kvrpcpb.Context{MaxExecutionDurationMs: v.limit},
			})
			if (string(p.Data) == "done") != v.done || time.Since(began) != v.took {
				t.Errorf("%+v: %v after %v", v, p, time.Since(began))
			}
			if e := p.RegionError; !v.done && (e.GetServerIsBusy().GetReason() != "deadline is exceeded" || e.Message != "Coprocessor task terminated due to exceeding the deadline") {
				t.Error(p)
			}
		}
		// The end of the store is one of the request too.
		failed := make(chan error, 1)
		q := &coprocessor.Request{Tp: 103, StartTs: now, Data: []byte("50s")}
		kv := c.copContext(q)
		go func() {
			_, err := kv.Coprocessor(t.Context(), q)
			failed <- err
		}()
		synctest.Wait()
		c.must(c.Stop(Store(1)))
		if err := <-failed; status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
}

// A stream has 128 pairs a message, each with the range that it was read from, and ends
// with the error that was met.
func TestCoprocessorStream(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(103, listing))
	c.many(300)
	now := c.timestamp()
	read := func(q *coprocessor.Request) (all []*coprocessor.Response, err error) {
		kv := c.copContext(q)
		s, err := kv.CoprocessorStream(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for {
			p, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return all, nil
			} else if err != nil {
				return all, err
			}
			all = append(all, p)
		}
	}
	show := func(all []*coprocessor.Response) (out string) {
		for _, p := range all {
			switch {
			case p.Locked != nil:
				out += fmt.Sprintf("locked %s\n", p.Locked.Key)
			case p.RegionError != nil:
				out += "region error\n"
			case p.OtherError != "":
				out += p.OtherError + "\n"
			default:
				out += fmt.Sprintf("%d [%s, %s)\n", len(strings.Fields(string(p.Data)))-1, p.Range.Start, p.Range.End)
			}
		}
		return strings.ReplaceAll(out, "\x00", "+")
	}
	for name, v := range map[string]struct {
		q    coprocessor.Request
		want string
	}{
		"all":        {coprocessor.Request{Tp: 103, Ranges: ranges("k", "l")}, "128 [k, k0127+)\n128 [k0127+, k0255+)\n44 [k0255+, l)\n"},
		"two":        {coprocessor.Request{Tp: 103, Ranges: ranges("k", "k0010", "k0290", "z")}, "20 [k, z)\n"},
		"a whole":    {coprocessor.Request{Tp: 103, Ranges: ranges("k", "k0128")}, "128 [k, k0127+)\n"},
		"none":       {coprocessor.Request{Tp: 103, Ranges: ranges("x", "z")}, ""},
		"other type": {coprocessor.Request{Tp: 1}, "[src/coprocessor/endpoint.rs:450]: unsupported tp 1\n"},
	} {
		v.q.StartTs = now
		if all, err := read(&v.q); err != nil || show(all) != v.want {
			t.Errorf("%s: %s%v", name, show(all), err)
		}
	}
	s := c.timestamp()
	c.prewrite(s, "k0200", "2")
	q := &coprocessor.Request{Tp: 103, Ranges: ranges("k", "l"), StartTs: c.timestamp()}
	if all, err := read(q); err != nil || show(all) != "128 [k, k0127+)\nlocked k0200\n" {
		t.Error(show(all), err)
	}
	q.Context = nil
	c.Inject(Fault{Method: "CoprocessorStream", RegionError: ServerIsBusy, Times: 1})
	if all, err := read(q); err != nil || show(all) != "region error\n" {
		t.Error(show(all), err)
	}
	c.Inject(Fault{Method: "CoprocessorStream", Key: []byte("k"), Disconnect: true, Times: 1})
	if all, err := read(q); status.Code(err) != codes.Unavailable || len(all) > 0 {
		t.Error(show(all), err)
	}
	c.Inject(Fault{Method: "CoprocessorStream", Mangle: func([]byte) []byte { return []byte{0x22, 1, 'x'} }, Times: 1})
	if all, err := read(q); err != nil || show(all) != "x\nx\n" {
		t.Error(show(all), err)
	}
}

// Faults answer for the coprocessor as for other reads, and a trace has its calls.
func TestCoprocessorFaults(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(103, listing))
	now := c.putTxn("a")
	q := func() *coprocessor.Request {
		return &coprocessor.Request{Tp: 103, StartTs: now, Ranges: ranges("a", "b")}
	}
	trace := c.Trace()
	defer trace.Stop()
	c.Inject(Fault{Method: "Coprocessor", Key: []byte("a"), StartTS: now, KeyError: KeyLocked, Times: 1})
	if p := c.cop(q()); string(p.Locked.GetKey()) != "a" || p.Locked.LockVersion == 0 {
		t.Error(p)
	}
	c.Inject(Fault{Method: "Coprocessor", RegionError: EpochNotMatch, Times: 1})
	if p := c.cop(q()); p.RegionError.GetEpochNotMatch() == nil {
		t.Error(p)
	}
	if p := c.cop(q()); string(p.Data) != ": a=va" {
		t.Error(p)
	}
	calls := trace.Calls()
	if n := len(calls); n < 3 || calls[n-1].Method != "Coprocessor" || calls[n-1].StartTS != now || calls[n-1].Keys != 1 {
		t.Error(calls)
	}
}

// A request may carry tasks for other regions of the store: each has an answer of its
// own, whatever becomes of the others.
func TestCoprocessorTasks(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(103, listing), WithSplitKeys(KeyTxn, []byte("h"), []byte("p")))
	c.putTxn("a", "i", "q")
	locked := c.timestamp()
	c.prewrite(locked, "r", "2")
	task := func(id uint64, from, to string) *coprocessor.StoreBatchTask {
		ctx, _ := c.at(KeyTxn, from)
		return &coprocessor.StoreBatchTask{TaskId: id, RegionId: ctx.RegionId, RegionEpoch: ctx.RegionEpoch, Peer: ctx.Peer, Ranges: ranges(from, to)}
	}
	stale := task(13, "i", "j")
	stale.RegionEpoch = &metapb.RegionEpoch{Version: 99}
	q := &coprocessor.Request{
		Tp: 103, Data: []byte("p"), StartTs: c.timestamp(), Ranges: ranges("a", "b"),
		Tasks: []*coprocessor.StoreBatchTask{task(11, "i", "j"), task(12, "q", "z"), stale, task(14, "q", "r")},
	}
	show := func(p *coprocessor.Response) string {
		out := fmt.Sprintf("%q %v\n", p.Data, p.RegionError != nil)
		for _, b := range p.BatchResponses {
			out += fmt.Sprintf("%d %q %v %s\n", b.TaskId, b.Data, b.RegionError != nil, b.Locked.GetKey())
		}
		return out
	}
	tasks := "11 \"p: i=vi\" false \n12 \"\" false r\n13 \"\" true \n14 \"p: q=vq\" false \n"
	if p := c.cop(q); show(p) != "\"p: a=va\" false\n"+tasks {
		t.Error(show(p))
	}
	kv := c.copContext(q)
	q.Context.RegionEpoch = &metapb.RegionEpoch{Version: 99}
	if p, err := kv.Coprocessor(t.Context(), q); err != nil || show(p) != "\"\" true\n"+tasks {
		t.Error(show(p), err)
	}
	// A store that is too busy looks at none of them.
	if err := c.SetStore(1, StoreState{ReadWait: time.Second}); err != nil {
		t.Fatal(err)
	}
	kv = c.copContext(q)
	q.Context.BusyThresholdMs = 10
	if p, err := kv.Coprocessor(t.Context(), q); err != nil || p.RegionError.GetServerIsBusy().GetEstimatedWaitMs() != 1000 || len(p.BatchResponses) > 0 {
		t.Error(p, err)
	}
	if err := c.SetStore(1, StoreState{}); err != nil {
		t.Fatal(err)
	}
	// The same on the stream of commands.
	kv = c.copContext(q)
	b, err := kv.BatchCommands(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = b.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{5}, Requests: []*tikvpb.BatchCommandsRequest_Request{
		{Cmd: &tikvpb.BatchCommandsRequest_Request_Coprocessor{Coprocessor: q}}}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := b.Recv(); err != nil || show(p.Responses[0].GetCoprocessor()) != "\"p: a=va\" false\n"+tasks {
		t.Error(p, err)
	}
	if err := b.CloseSend(); err != nil {
		t.Error(err)
	}
}

func TestChecksumCoprocessor(t *testing.T) {
	c := start(t, WithStores(1), WithCoprocessor(105, ChecksumCoprocessor()))
	now := c.putTxn("t1a", "t1b")
	table := crc64.MakeTable(crc64.ECMA)
	sum := func(pairs ...string) (x uint64) {
		for _, p := range pairs {
			x ^= crc64.Checksum([]byte(p), table)
		}
		return x
	}
	response := func(numbers ...uint64) (out []byte) {
		for i, n := range numbers {
			out = protowire.AppendVarint(append(out, byte(i+1)<<3), n)
		}
		return out
	}
	rule := protowire.AppendBytes([]byte{4<<3 | 2}, append(protowire.AppendBytes([]byte{1<<3 | 2}, []byte("old9")), protowire.AppendBytes([]byte{2<<3 | 2}, []byte("t1"))...))
	wrong := protowire.AppendBytes([]byte{4<<3 | 2}, protowire.AppendBytes([]byte{2<<3 | 2}, []byte("t2")))
	for name, v := range map[string]struct {
		plan  []byte
		from  string
		data  []byte
		other string
	}{
		"plain":     {nil, "t", response(sum("t1avt1a", "t1bvt1b"), 2, 14), ""},
		"one":       {nil, "t1b", response(sum("t1bvt1b"), 1, 7), ""},
		"rewritten": {rule, "t", response(sum("old9avt1a", "old9bvt1b"), 2, 18), ""},
		"prefix":    {wrong, "t", nil, "[src/coprocessor/checksum.rs:81]: Wrong prefix expect: [116, 50]"},
		"nothing":   {nil, "x", response(0, 0, 0), ""},
		"algorithm": {[]byte{3 << 3, 1}, "t", nil, "unknown checksum algorithm"},
		"damaged":   {[]byte{0xff}, "t", nil, "no message"},
	} {
		p := c.cop(&coprocessor.Request{Tp: 105, StartTs: now, Data: v.plan, Ranges: ranges(v.from, "z")})
		if !bytes.Equal(p.Data, v.data) || !strings.Contains(p.OtherError, v.other) || (p.OtherError == "") != (v.other == "") {
			t.Errorf("%s: %v", name, p)
		}
	}
}

func TestRawCoprocessor(t *testing.T) {
	c := start(t, WithRawCoprocessor("list", "1.2.3", listing), WithSplitKeys(KeyRaw, []byte("m")))
	c.rawPut("a", "1")
	c.rawPut("b", "2")
	ask := func(change func(*kvrpcpb.RawCoprocessorRequest)) *kvrpcpb.RawCoprocessorResponse {
		t.Helper()
		ctx, kv := c.at(KeyRaw, "a")
		q := &kvrpcpb.RawCoprocessorRequest{
			Context: ctx, CoprName: "list", CoprVersionReq: "^1.2", Data: []byte("p"),
			Ranges: []*kvrpcpb.KeyRange{{StartKey: []byte("b"), EndKey: []byte("c")}, {StartKey: []byte("a"), EndKey: []byte("b")}},
		}
		change(q)
		p, err := kv.RawCoprocessor(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, v := range map[string]struct {
		change      func(*kvrpcpb.RawCoprocessorRequest)
		data, fails string
	}{
		"found":   {func(*kvrpcpb.RawCoprocessorRequest) {}, "p: b=2 a=1", ""},
		"any":     {func(q *kvrpcpb.RawCoprocessorRequest) { q.CoprVersionReq = "*" }, "p: b=2 a=1", ""},
		"name":    {func(q *kvrpcpb.RawCoprocessorRequest) { q.CoprName = "x" }, "", "No registered coprocessor with name 'x'"},
		"version": {func(q *kvrpcpb.RawCoprocessorRequest) { q.CoprVersionReq = "~1.1" }, "", "The plugin 'list' with version '1.2.3' does not satisfy the version constraint '~1.1'"},
		"no such": {func(q *kvrpcpb.RawCoprocessorRequest) { q.CoprVersionReq = "new" }, "", "bad version requirement"},
	} {
		if p := ask(v.change); string(p.Data) != v.data || p.RegionError != nil || (p.Error == "") != (v.fails == "") || !strings.Contains(p.Error, v.fails) {
			t.Errorf("%s: %v", name, p)
		}
	}
	if p := ask(func(q *kvrpcpb.RawCoprocessorRequest) { q.Context.RegionEpoch.Version = 99 }); p.RegionError.GetEpochNotMatch() == nil {
		t.Error(p)
	}
	if p := ask(func(q *kvrpcpb.RawCoprocessorRequest) { q.Ranges[0].StartKey = []byte("x") }); p.RegionError.GetKeyNotInRegion() == nil {
		t.Error(p)
	}
	plain := start(t, WithStores(1))
	ctx, kv := plain.at(KeyRaw, "a")
	if p, err := kv.RawCoprocessor(t.Context(), &kvrpcpb.RawCoprocessorRequest{Context: ctx, CoprName: "list"}); err != nil || p.Error != "Coprocessor plugin is disabled!" {
		t.Error(p, err)
	}
	for _, o := range []Option{WithRawCoprocessor("a", "1", listing), WithRawCoprocessor("a", "1.0.0", nil)} {
		if _, err := Start(t.Context(), o); err == nil {
			t.Error("a bad option was taken")
		}
	}
}
