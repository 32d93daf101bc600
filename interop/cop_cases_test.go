package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/tikv/client-go/v2/tikv"
	"github.com/tikv/client-go/v2/tikvrpc"
	"github.com/tikv/client-go/v2/txnkv/txnlock"
	"github.com/tikv/pd/client/opt"
)

// ask sends a coprocessor request to the region of the first of its ranges, "a-c" of the
// case's keys, as TiDB would by the official client; the region error is its caller's.
func (e *env) ask(cmd tikvrpc.CmdType, q *coprocessor.Request, change func(*kvrpcpb.Context), ranges ...string) *tikvrpc.Response {
	e.Helper()
	if q.StartTs == 0 {
		q.StartTs = e.now()
	}
	q.Ranges = e.ranges(ranges...)
	req := tikvrpc.NewRequest(cmd, q, kvrpcpb.Context{})
	req.StoreTp = tikvrpc.TiKV
	if change != nil {
		change(&req.Context)
	}
	bo := tikv.NewBackoffer(e.ctx(), 20_000)
	loc, err := e.txn.GetRegionCache().LocateKey(bo, q.Ranges[0].Start)
	e.must(err)
	resp, err := e.txn.SendReq(bo, req, loc.Region, time.Minute)
	e.must(err)
	return resp
}

func (e *env) ranges(names ...string) (all []*coprocessor.KeyRange) {
	for _, r := range names {
		from, to, _ := strings.Cut(r, "-")
		all = append(all, &coprocessor.KeyRange{Start: e.key(from), End: e.key(to)})
	}
	return all
}

func (e *env) cop(q *coprocessor.Request, change func(*kvrpcpb.Context), ranges ...string) *coprocessor.Response {
	e.Helper()
	return e.ask(tikvrpc.CmdCop, q, change, ranges...).Resp.(*coprocessor.Response)
}

// echo is what the echo answered: "plan: a=1 b=2".
func (e *env) echo(data []byte) string {
	e.Helper()
	var parts []string
	for len(data) > 0 {
		n, size := binary.Uvarint(data)
		if size <= 0 || uint64(len(data)-size) < n {
			e.Fatalf("no echo: %q", data)
		}
		parts = append(parts, string(data[size:size+int(n)]))
		data = data[size+int(n):]
	}
	if len(parts)%2 == 0 {
		e.Fatalf("no echo: %q", parts)
	}
	out := parts[0] + ":"
	for i := 1; i < len(parts); i += 2 {
		out += " " + strings.TrimPrefix(parts[i], string(e.wire(""))) + "=" + parts[i+1]
	}
	return out
}

// listOf is what the echo answers of pairs.
func listOf(plan string, pairs []string) string {
	return strings.TrimSuffix(plan+": "+strings.Join(pairs, " "), " ")
}

const echoType, sumType = 103, 105

func dag() *coprocessor.Request { return &coprocessor.Request{Tp: echoType, Data: []byte("p")} }

var copArgs = []string{"--coprocessor", "103=echo,105=checksum"}

func copAreas() []area {
	basic := []kase{
		{name: "pairs of ranges, each by the key", run: func(e *env) {
			e.put("a=1", "b=2", "c=3", "d=4")
			before := e.c.calls(e.T, "Coprocessor")
			e.same("answer", e.echo(e.cop(dag(), nil, "c-e", "a-b").Data), "p: c=3 d=4 a=1")
			e.same("requests", e.c.calls(e.T, "Coprocessor"), before+1)
		}},
		{name: "each version at its time", run: func(e *env) {
			old := e.put("a=1", "b=1").CommitTS()
			e.put("a=2")
			q := dag()
			q.StartTs = old
			e.same("then", e.echo(e.cop(q, nil, "a-z").Data), "p: a=1 b=1")
			e.same("now", e.echo(e.cop(dag(), nil, "a-z").Data), "p: a=2 b=1")
		}},
		{name: "a lock is told, resolved, passed", run: func(e *env) {
			e.put("a=1")
			tx, finish := e.prewritten("b=2")
			q := dag()
			q.StartTs = e.now()
			p := e.cop(q, nil, "a-z")
			if p.Locked.GetLockVersion() != tx.StartTS() || len(p.Data) > 0 {
				e.Fatal(p)
			}
			accepted := e.cop(q, func(c *kvrpcpb.Context) { c.CommittedLocks = []uint64{tx.StartTS()} }, "a-z")
			e.same("read", e.echo(accepted.Data), "p: a=1 b=2")
			bo := tikv.NewBackoffer(e.ctx(), 20_000)
			_, ignore, _, err := e.txn.GetLockResolver().ResolveLocksForRead(bo, q.StartTs, []*txnlock.Lock{txnlock.NewLock(p.Locked)}, false)
			e.must(err)
			e.same("to ignore", ignore, []uint64{tx.StartTS()})
			passed := e.cop(q, func(c *kvrpcpb.Context) { c.ResolvedLocks = ignore }, "a-z")
			e.same("passed", e.echo(passed.Data), "p: a=1")
			e.must(finish())
			if tx.CommitTS() <= q.StartTs {
				e.Fatal(tx.CommitTS(), q.StartTs)
			}
			e.same("then", e.echo(e.cop(q, nil, "a-z").Data), "p: a=1")
		}},
	}
	return []area{
		{name: "coprocessor", args: copArgs, cases: append(basic, copCases()...)},
		{name: "coprocessor keyspace", args: append(slices.Clone(copArgs), "--keyspace", "tenant"), txn: tenant, cases: basic},
	}
}

func copCases() []kase {
	return []kase{
		{name: "stale regions are told, then each answers", run: func(e *env) {
			e.put("a=1", "m=2", "z=3")
			e.same("before", e.echo(e.cop(dag(), nil, "a-zz").Data), "p: a=1 m=2 z=3")
			e.splitTxn("m")
			p := e.cop(dag(), nil, "a-zz")
			if n := len(p.RegionError.GetEpochNotMatch().GetCurrentRegions()); n != 2 {
				e.Fatal(p)
			}
			e.same("left", e.echo(e.cop(dag(), nil, "a-m").Data), "p: a=1")
			e.same("right", e.echo(e.cop(dag(), nil, "m-zz").Data), "p: m=2 z=3")
		}},
		{name: "checksum", run: func(e *env) {
			e.put("a=1", "b=22")
			table, sum, size := crc64.MakeTable(crc64.ECMA), uint64(0), 0
			for _, p := range [][2]string{{"a", "1"}, {"b", "22"}} {
				pair := string(e.key(p[0])) + p[1]
				sum ^= crc64.Checksum([]byte(pair), table)
				size += len(pair)
			}
			var want []byte
			for i, n := range []uint64{sum, 2, uint64(size)} {
				want = binary.AppendUvarint(append(want, byte(i+1)<<3), n)
			}
			e.same("answer", []byte(e.cop(&coprocessor.Request{Tp: sumType}, nil, "a-z").Data), want)
		}},
		{name: "a type that nobody answers", run: func(e *env) {
			p := e.cop(&coprocessor.Request{Tp: 104}, nil, "a-z")
			if !strings.Contains(p.OtherError, "unsupported tp 104") {
				e.Fatal(p)
			}
		}},
		{name: "pages", run: func(e *env) {
			all := e.numbers(90)
			q := dag()
			q.StartTs, q.PagingSize = e.now(), 32
			var got []string
			var sizes []int
			for from := ""; ; {
				p := e.cop(q, nil, from+"-a")
				pairs := strings.Fields(strings.TrimPrefix(e.echo(p.Data), "p:"))
				got, sizes = append(got, pairs...), append(sizes, len(pairs))
				if p.Range == nil {
					break
				}
				if from == "" != (string(p.Range.Start) == string(e.key(""))) {
					e.Fatal(p.Range)
				}
				from = e.bare(p.Range.End)
			}
			e.same("pairs", got, all)
			e.same("pages", sizes, []int{32, 32, 26})
		}},
		{name: "a stream", run: func(e *env) {
			var pairs []string
			for i := range 200 {
				pairs = append(pairs, fmt.Sprintf("%03d=%d", i, i))
			}
			e.put(pairs...)
			stream := e.ask(tikvrpc.CmdCopStream, dag(), nil, "0-9").Resp.(*tikvrpc.CopStreamResponse)
			defer stream.Close()
			first := stream.Response
			second, err := stream.Recv()
			e.must(err)
			e.same("first", e.echo(first.Data), listOf("p", pairs[:128]))
			e.same("second", e.echo(second.Data), listOf("p", pairs[128:]))
			if e.bare(first.Range.End) != "127\x00" || string(second.Range.Start) != string(first.Range.End) {
				e.Fatal(first.Range, second.Range)
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				e.Fatal(err)
			}
		}},
		{name: "tasks of other regions in one request", run: func(e *env) {
			e.put("a=1", "m=2", "z=3")
			e.splitTxn("m", "z")
			e.want(nil, "a=1", "m=2", "z=3") // the client knows the regions
			store := e.locate(e.wire("a")).Leader.StoreId
			q := dag()
			for i, span := range []string{"m-n", "z-zz", "z-zz"} {
				r := e.locate(e.wire(span[:1]))
				if r.Leader.StoreId != store {
					e.post("transfer-leader", map[string]any{"region": r.Meta.Id, "store": store})
					r = e.locate(e.wire(span[:1]))
				}
				q.Tasks = append(q.Tasks, &coprocessor.StoreBatchTask{
					RegionId: r.Meta.Id, RegionEpoch: r.Meta.RegionEpoch, Peer: r.Leader, Ranges: e.ranges(span), TaskId: uint64(i + 10),
				})
			}
			q.Tasks[2].RegionEpoch.Version--
			p := e.cop(q, nil, "a-b")
			e.same("answer", e.echo(p.Data), "p: a=1")
			e.same("answers", len(p.BatchResponses), 3)
			for i, want := range []string{"p: m=2", "p: z=3"} {
				e.same("task", p.BatchResponses[i].TaskId, i+10)
				e.same("answer", e.echo(p.BatchResponses[i].Data), want)
			}
			if p.BatchResponses[2].RegionError.GetEpochNotMatch() == nil {
				e.Fatal(p.BatchResponses[2])
			}
		}},
		{name: "an answer that its caller has already", run: func(e *env) {
			e.home()
			e.put("a=1")
			q := dag()
			q.IsCacheEnabled, q.StartTs = true, e.now()
			first := e.cop(q, nil, "a-z")
			if !first.CanBeCached || first.IsCacheHit || e.echo(first.Data) != "p: a=1" {
				e.Fatal(first)
			}
			q.CacheIfMatchVersion = first.CacheLastVersion
			if p := e.cop(q, nil, "a-z"); !p.IsCacheHit || len(p.Data) > 0 {
				e.Fatal(p)
			}
			e.put("a=2")
			q.StartTs = e.now()
			if p := e.cop(q, nil, "a-z"); p.IsCacheHit || e.echo(p.Data) != "p: a=2" {
				e.Fatal(p)
			}
		}},
		{name: "at a follower", run: func(e *env) {
			r := e.home()
			e.put("a=1")
			trace := e.trace()
			p := e.cop(dag(), func(c *kvrpcpb.Context) {}, "a-z")
			e.same("leader", e.echo(p.Data), "p: a=1")
			for _, s := range r.Stores {
				if s == r.Leader {
					continue
				}
				at := e.locate(e.wire("a"))
				q := dag()
				q.StartTs, q.Ranges = e.now(), e.ranges("a-z")
				req := tikvrpc.NewReplicaReadRequest(tikvrpc.CmdCop, q, 1, nil)
				req.Context.RegionId, req.Context.RegionEpoch = at.Meta.Id, at.Meta.RegionEpoch
				for _, p := range at.Meta.Peers {
					if p.StoreId == s {
						req.Context.Peer = p
					}
				}
				resp, err := e.txn.GetTiKVClient().SendRequest(e.ctx(), e.addr(s), req, time.Minute)
				e.must(err)
				e.same("follower", e.echo(resp.Resp.(*coprocessor.Response).Data), "p: a=1")
			}
			e.same("stores", len(trace.nodes("Coprocessor")), 3)
		}},
		{name: "TiFlash: many regions at once", alone: true, run: func(e *env) {
			e.put("a=1", "m=2")
			e.splitTxn("m")
			store := e.post("add-store", map[string]any{"labels": map[string]string{"engine": "tiflash"}})["store"]
			var infos []*coprocessor.RegionInfo
			for _, span := range []string{"a-b", "m-n"} {
				e.post("add-peer", map[string]any{"region": e.locate(e.wire(span[:1])).Meta.Id, "store": store, "role": "learner"})
				r := e.locate(e.wire(span[:1]))
				infos = append(infos, &coprocessor.RegionInfo{RegionId: r.Meta.Id, RegionEpoch: r.Meta.RegionEpoch, Ranges: e.ranges(span)})
			}
			q := &coprocessor.BatchRequest{Tp: echoType, Data: []byte("p"), StartTs: e.now(), Regions: infos}
			ctx, cancel := context.WithCancel(e.ctx())
			defer cancel()
			resp, err := e.txn.GetTiKVClient().SendRequest(ctx, e.addr(uint64(store.(float64))), tikvrpc.NewRequest(tikvrpc.CmdBatchCop, q), time.Minute)
			e.must(err)
			stream := resp.Resp.(*tikvrpc.BatchCopStreamResponse)
			defer stream.Close()
			e.same("answer", e.echo(stream.BatchResponse.Data), "p: a=1 m=2")
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				e.Fatal(err)
			}
		}},
	}
}

// bucketArea is what PD and stores tell of buckets.
func bucketArea() area {
	set := func(e *env, r region, keys ...string) {
		e.Helper()
		e.post("set-buckets", map[string]any{"region": r.ID, "mode": "txn", "keys": e.keys(keys...)})
	}
	// fresh has buckets in the case's region, and a client that did not see it without.
	fresh := func(e *env, keys ...string) region {
		e.Helper()
		r := e.home()
		set(e, r, keys...)
		e.txn = e.c.officialTxn(e.T)
		return r
	}
	bo := func(e *env) *tikv.Backoffer { return tikv.NewBackoffer(e.ctx(), 20_000) }
	return area{name: "buckets", args: copArgs, cases: []kase{
		{name: "PD tells those who ask", run: func(e *env) {
			fresh(e, "d", "m")
			r, err := e.pd().GetRegion(e.ctx(), e.key("a"), opt.WithBuckets())
			e.must(err)
			if n := len(r.Buckets.GetKeys()); n != 4 || r.Buckets.RegionId != r.Meta.Id || r.Buckets.Version == 0 {
				e.Fatal(r.Buckets)
			}
			e.same("first", e.bare(r.Buckets.Keys[1]), "d")
			byID, err := e.pd().GetRegionByID(e.ctx(), r.Meta.Id, opt.WithBuckets())
			e.must(err)
			e.same("by id", byID.Buckets, r.Buckets)
			if none, err := e.pd().GetRegion(e.ctx(), e.key("a")); err != nil || none.Buckets != nil {
				e.Fatal(none, err)
			}
		}},
		{name: "the client finds a key's bucket", run: func(e *env) {
			fresh(e, "d", "m")
			loc, err := e.txn.GetRegionCache().LocateKey(bo(e), e.key("e"))
			e.must(err)
			b := loc.LocateBucket(e.key("e"))
			e.same("bucket", e.bare(b.StartKey)+" "+e.bare(b.EndKey), "d m")
		}},
		{name: "a request with older ones is told the present ones", run: func(e *env) {
			r := fresh(e, "d")
			cache := e.txn.GetRegionCache()
			loc, err := cache.LocateKey(bo(e), e.key("a"))
			e.must(err)
			old := loc.GetBucketVersion()
			set(e, r, "d", "m")
			p := e.cop(dag(), func(c *kvrpcpb.Context) { c.BucketsVersion = old }, "a-z")
			if b := p.RegionError.GetBucketVersionNotMatch(); b.GetVersion() <= old || len(b.Keys) != 4 {
				e.Fatal(p)
			}
			loc, err = cache.LocateKey(bo(e), e.key("e"))
			e.must(err)
			e.same("keys", len(loc.Buckets.Keys), 4)
			e.same("version", loc.GetBucketVersion() > old, true) // its keys are left as regions have them
		}},
		{name: "an answer tells of newer ones, which the client fetches", run: func(e *env) {
			r := fresh(e, "d")
			cache := e.txn.GetRegionCache()
			loc, err := cache.LocateKey(bo(e), e.key("a"))
			e.must(err)
			set(e, r, "d", "m", "p")
			p := e.cop(dag(), nil, "a-z")
			if p.RegionError != nil || p.LatestBucketsVersion <= loc.GetBucketVersion() {
				e.Fatal(p)
			}
			cache.UpdateBucketsIfNeeded(loc.Region, p.LatestBucketsVersion)
			e.eventually("the client has the new ones", func() bool {
				loc, err := cache.LocateKey(bo(e), e.key("a"))
				return err == nil && loc.GetBucketVersion() == p.LatestBucketsVersion && len(loc.Buckets.Keys) == 5
			})
		}},
	}}
}

// forwardArea is what goes by another store: single requests, requests on the stream of
// commands, and streams.
func forwardArea() area {
	by := func(cmd tikvrpc.CmdType, message func(*env) any, got func(*env, *tikvrpc.Response) string) func(*env) {
		return func(e *env) {
			r := e.home()
			e.put("a=1")
			at := e.locate(e.wire("a"))
			req := tikvrpc.NewRequest(cmd, message(e))
			req.Context.RegionId, req.Context.RegionEpoch, req.Context.Peer = at.Meta.Id, at.Meta.RegionEpoch, at.Leader
			req.ForwardedHost = e.addr(r.Leader)
			resp, err := e.txn.GetTiKVClient().SendRequest(e.ctx(), e.addr(r.Leader%3+1), req, time.Minute)
			e.must(err)
			e.same("answer", got(e, resp), "p: a=1")
		}
	}
	plan := func(e *env) any {
		q := dag()
		q.StartTs, q.Ranges = e.now(), e.ranges("a-z")
		return q
	}
	return area{name: "forwarding", args: copArgs, cases: []kase{
		{name: "a read on the stream of commands", run: by(tikvrpc.CmdGet, func(e *env) any {
			return &kvrpcpb.GetRequest{Key: e.key("a"), Version: e.now()}
		}, func(e *env, p *tikvrpc.Response) string { return "p: a=" + string(p.Resp.(*kvrpcpb.GetResponse).Value) })},
		{name: "the coprocessor", run: by(tikvrpc.CmdCop, plan, func(e *env, p *tikvrpc.Response) string {
			return e.echo(p.Resp.(*coprocessor.Response).Data)
		})},
		// Of the streams TiKV passes on that of commands alone: src/server/service/kv.rs has
		// no forward for coprocessor_stream.
		{name: "a coprocessor's stream is not passed on", run: by(tikvrpc.CmdCopStream, plan, func(e *env, p *tikvrpc.Response) string {
			stream := p.Resp.(*tikvrpc.CopStreamResponse)
			defer stream.Close()
			leader := e.locate(e.wire("a")).Leader.StoreId
			if m := stream.Response.GetRegionError().GetStoreNotMatch(); m.GetRequestStoreId() != leader || m.ActualStoreId != leader%3+1 {
				e.Fatal(stream.Response)
			}
			return "p: a=1"
		})},
	}}
}
