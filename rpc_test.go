package tikv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/mpp"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"

	"github.com/tikv-go/tikv"
	"github.com/tikv-go/tikv/playground"
	"github.com/tikv-go/tikv/tikvtest"
)

// listing answers with the plan and the pairs, of user keys in API V1 and V2 alike.
func listing(_ context.Context, plan []byte, pairs [][2][]byte) ([]byte, error) {
	out := string(plan)
	for _, p := range pairs {
		key := p[0]
		if len(key) > 4 && (key[0] == 'x' || key[0] == 'r') && key[1] == 0 {
			key = key[4:]
		}
		out += fmt.Sprintf(" %s=%s", key, p[1])
	}
	return []byte(out), nil
}

// rpcCluster has regions of the mode up to "d", up to "m", and beyond.
func rpcCluster(t *testing.T, v playground.APIVersion, mode playground.KeyMode, opts ...playground.Option) *tikvtest.Cluster {
	t.Helper()
	opts = append([]playground.Option{playground.WithAPIVersion(v), playground.WithStores(1), playground.WithCoprocessor(103, listing),
		playground.WithCoprocessor(7, playground.EchoCoprocessor()), playground.WithCoprocessor(105, playground.ChecksumCoprocessor())}, opts...)
	c := tikvtest.NewCluster(t, opts...)
	for _, key := range []string{"d", "m"} {
		if _, err := c.Split(mode, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func commitKeys(t *testing.T, c *tikv.Client, keys ...string) *tikv.Snapshot {
	t.Helper()
	for _, k := range keys { // one by one: what is not its transaction's first key is committed later
		if err := c.RunTxn(t.Context(), func(_ context.Context, tx *tikv.Txn) error { return tx.Put([]byte(k), []byte("v"+k)) }); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func TestCallTxn(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		cluster := rpcCluster(t, v, playground.KeyTxn)
		c := cluster.Open()
		snap := commitKeys(t, c, "a", "e", "z")
		rpc := c.RPC()
		mvcc, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("e")), tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: []byte("e")})
		if err != nil || len(mvcc.GetInfo().GetWrites()) != 1 {
			t.Fatal(mvcc, err)
		}
		by, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("e")), tikvpb.TikvClient.MvccGetByStartTs,
			&kvrpcpb.MvccGetByStartTsRequest{StartTs: mvcc.Info.Writes[0].StartTs})
		if err != nil || string(by.GetKey()) != "e" {
			t.Errorf("%v %v", by, err)
		}
		req := &kvrpcpb.ScanRequest{Version: uint64(snap.Timestamp()), Limit: 10}
		scan, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("e")), tikvpb.TikvClient.KvScan, &kvrpcpb.ScanRequest{StartKey: []byte("d"), EndKey: []byte("f"), Version: uint64(snap.Timestamp()), Limit: 10})
		if err != nil || len(scan.GetPairs()) != 1 || string(scan.Pairs[0].Key) != "e" || string(scan.Pairs[0].Value) != "ve" {
			t.Errorf("%v %v", scan, err)
		}
		if req.Context != nil || req.StartKey != nil {
			t.Errorf("the request has changed: %v", req)
		}
		// Of another snapshot's moment, by its region.
		region := cluster.Regions(playground.KeyTxn)
		at := slices.IndexFunc(region, func(r playground.Region) bool { return string(r.Start) == "d" })
		get, err := tikv.Call(t.Context(), c.RPC(tikv.WithReadAt(snap)), tikv.ToRegion(tikv.KeyTxn, region[at].ID), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("e")})
		if err != nil || string(get.GetValue()) != "ve" {
			t.Errorf("%v %v", get, err)
		}
		// At a store the caller addresses the region.
		at0, err := tikv.Call(t.Context(), rpc, tikv.ToStore(1), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("e"), Version: uint64(snap.Timestamp())})
		if err != nil || at0.GetRegionError() == nil {
			t.Errorf("%v %v", at0, err)
		}
		health, err := tikv.Call(t.Context(), rpc, tikv.ToStore(1), tikvpb.TikvClient.GetHealthFeedback, &kvrpcpb.GetHealthFeedbackRequest{})
		if err != nil || health.GetHealthFeedback().GetStoreId() != 1 {
			t.Errorf("%v %v", health, err)
		}
		split, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("e")), tikvpb.TikvClient.SplitRegion, &kvrpcpb.SplitRegionRequest{SplitKeys: [][]byte{[]byte("f")}})
		if err != nil || len(split.GetRegions()) != 2 || string(split.Regions[0].EndKey) != "f" || string(split.Regions[1].StartKey) != "f" || string(split.Regions[1].EndKey) != "m" {
			t.Errorf("%v %v", split, err)
		}
		var gone *tikv.UnavailableError
		if _, err := tikv.Call(t.Context(), rpc, tikv.ToRegion(tikv.KeyTxn, 1<<40), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("e"), Version: 1}); !errors.As(err, &gone) || gone.RegionID != 1<<40 {
			t.Errorf("a region that is not there: %v", err)
		}
	}
}

func TestCallRaw(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV1TTL, playground.APIV2} {
		c := rpcCluster(t, v, playground.KeyRaw).Open()
		rpc, k := c.RPC(), []byte("k")
		to := tikv.ToKey(tikv.KeyRaw, k)
		if p, err := tikv.Call(t.Context(), rpc, to, tikvpb.TikvClient.RawPut, &kvrpcpb.RawPutRequest{Key: k, Value: []byte("v")}); err != nil || p.GetError() != "" {
			t.Fatal(v, p, err)
		}
		get, err := tikv.Call(t.Context(), rpc, to, tikvpb.TikvClient.RawGet, &kvrpcpb.RawGetRequest{Key: k})
		if err != nil || string(get.GetValue()) != "v" {
			t.Errorf("%v %v", get, err)
		}
		if got, err := c.Raw().Get(t.Context(), k); err != nil || string(got) != "v" {
			t.Errorf("%q %v", got, err)
		}
		scan, err := tikv.Call(t.Context(), rpc, to, tikvpb.TikvClient.RawScan, &kvrpcpb.RawScanRequest{StartKey: []byte("e"), Limit: 5})
		if err != nil || len(scan.GetKvs()) != 1 || string(scan.Kvs[0].Key) != "k" {
			t.Errorf("%v %v", scan, err)
		}
		batch, err := tikv.Call(t.Context(), rpc, to, tikvpb.TikvClient.RawBatchScan, &kvrpcpb.RawBatchScanRequest{
			Ranges: []*kvrpcpb.KeyRange{{StartKey: []byte("e")}, {StartKey: []byte("j"), EndKey: []byte("l")}}, EachLimit: 5,
		})
		if err != nil || len(batch.GetKvs()) != 1 || string(batch.Kvs[0].Key) != "k" {
			t.Errorf("%v %v", batch, err)
		}
	}
}

// A call that cannot be right is refused before anything is sent.
func TestCallRefuses(t *testing.T) {
	cluster := rpcCluster(t, playground.APIV1, playground.KeyTxn)
	c := cluster.Open()
	other := cluster.Open()
	snap := commitKeys(t, c, "a")
	elsewhere, err := other.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rpc := c.RPC()
	key, raw := tikv.ToKey(tikv.KeyTxn, []byte("a")), tikv.ToKey(tikv.KeyRaw, []byte("a"))
	get := func(v *tikv.RPC, to tikv.Target) error {
		_, err := tikv.Call(t.Context(), v, to, tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("a"), Version: 1})
		return err
	}
	over := func(v *tikv.RPC, mode tikv.KeyMode, r tikv.Range, req *kvrpcpb.ScanRequest) error {
		_, err := tikv.Collect(tikv.CallRange(t.Context(), v, mode, r, tikvpb.TikvClient.KvScan, req))
		return err
	}
	stream := func(to tikv.Target, req *coprocessor.Request) error {
		_, err := tikv.Collect(tikv.CallStream(t.Context(), rpc, to, tikvpb.TikvClient.CoprocessorStream, req))
		return err
	}
	trace := cluster.Trace()
	for name, err := range map[string]error{
		"no view":           get(nil, key),
		"bad option":        get(c.RPC(tikv.WithPriority(9)), key),
		"nil option":        get(c.RPC(nil), key),
		"nil snapshot":      get(c.RPC(tikv.WithReadAt(nil)), key),
		"other snapshot":    get(c.RPC(tikv.WithReadAt(elsewhere)), key),
		"two timestamps":    get(c.RPC(tikv.WithReadAt(snap)), key),
		"no target":         get(rpc, nil),
		"no mode":           get(rpc, tikv.ToKey(0, []byte("a"))),
		"other mode":        get(rpc, raw),
		"other region mode": get(rpc, tikv.ToRegion(tikv.KeyRaw, 3)),
		"no key":            get(rpc, tikv.ToKey(tikv.KeyTxn, nil)),
		"no region":         get(rpc, tikv.ToRegion(tikv.KeyTxn, 0)),
		"no store":          get(rpc, tikv.ToStore(0)),
		"nil request": func() error {
			_, err := tikv.Call(t.Context(), rpc, key, tikvpb.TikvClient.KvGet, nil)
			return err
		}(),
		"nil method": func() error {
			_, err := tikv.Call[kvrpcpb.GetRequest, kvrpcpb.GetResponse](t.Context(), rpc, key, nil, &kvrpcpb.GetRequest{})
			return err
		}(),
		"method of none": func() error {
			_, err := tikv.Call(t.Context(), rpc, key, func(tikvpb.TikvClient, context.Context, *kvrpcpb.GetRequest, ...grpc.CallOption) (*kvrpcpb.GetResponse, error) {
				return nil, nil
			}, &kvrpcpb.GetRequest{})
			return err
		}(),
		"other request": func() error {
			_, err := tikv.Call(t.Context(), rpc, key, func(c tikvpb.TikvClient, ctx context.Context, _ *int, _ ...grpc.CallOption) (*kvrpcpb.GetResponse, error) {
				return c.KvGet(ctx, nil)
			}, new(int))
			return err
		}(),
		"other answer": func() error {
			_, err := tikv.Call(t.Context(), rpc, key, func(c tikvpb.TikvClient, ctx context.Context, r *kvrpcpb.GetRequest, _ ...grpc.CallOption) (*int, error) {
				_, err := c.KvGet(ctx, r)
				return nil, err
			}, &kvrpcpb.GetRequest{})
			return err
		}(),
		"a store's": func() error {
			_, err := tikv.Call(t.Context(), rpc, key, tikvpb.TikvClient.GetHealthFeedback, &kvrpcpb.GetHealthFeedbackRequest{})
			return err
		}(),
		"read at none": func() error {
			_, err := tikv.Call(t.Context(), c.RPC(tikv.WithReadAt(snap)), key, tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{})
			return err
		}(),
		"bad range":        over(rpc, tikv.KeyTxn, tikv.Range{Start: []byte("b"), End: []byte("a")}, &kvrpcpb.ScanRequest{}),
		"bad range's mode": over(rpc, tikv.KeyRaw, tikv.Range{}, &kvrpcpb.ScanRequest{}),
		"backwards":        over(rpc, tikv.KeyTxn, tikv.Range{}, &kvrpcpb.ScanRequest{Reverse: true}),
		"nil, by range":    over(rpc, tikv.KeyTxn, tikv.Range{}, nil),
		"all deleted": func() error {
			_, err := tikv.Collect(tikv.CallRange(t.Context(), rpc, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.KvDeleteRange, &kvrpcpb.DeleteRangeRequest{}))
			return err
		}(),
		"all destroyed": func() error {
			_, err := tikv.Call(t.Context(), rpc, tikv.ToStore(1), tikvpb.TikvClient.UnsafeDestroyRange, &kvrpcpb.UnsafeDestroyRangeRequest{StartKey: []byte("a")})
			return err
		}(),
		"no range": func() error {
			_, err := tikv.Collect(tikv.CallRange(t.Context(), rpc, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{}))
			return err
		}(),
		"a store's range": func() error {
			_, err := tikv.Collect(tikv.CallRange(t.Context(), rpc, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.UnsafeDestroyRange, &kvrpcpb.UnsafeDestroyRangeRequest{}))
			return err
		}(),
		"stream to none": stream(nil, &coprocessor.Request{}),
		"stream of raw":  stream(raw, &coprocessor.Request{}),
		"stream of nil":  stream(key, nil),
		"stream of unary": func() error {
			_, err := tikv.Collect(tikv.CallStream(t.Context(), rpc, key, func(c tikvpb.TikvClient, ctx context.Context, r *coprocessor.Request, _ ...grpc.CallOption) (tikvpb.Tikv_CoprocessorStreamClient, error) {
				_, err := c.Coprocessor(ctx, r)
				return nil, err
			}, &coprocessor.Request{}))
			return err
		}(),
	} {
		if !errors.Is(err, tikv.ErrInvalid) || !tikv.NotSent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"gone": func() error {
			_, err := tikv.Call(t.Context(), rpc, key, tikvpb.TikvClient.KvGC, &kvrpcpb.GCRequest{})
			return err
		}(),
		"TiFlash's": func() error {
			_, err := tikv.Call(t.Context(), rpc, tikv.ToStore(1), tikvpb.TikvClient.DispatchMPPTask, &mpp.DispatchTaskRequest{})
			return err
		}(),
		"TiFlash's stream": func() error {
			_, err := tikv.Collect(tikv.CallStream(t.Context(), rpc, tikv.ToStore(1), tikvpb.TikvClient.BatchCoprocessor, &coprocessor.BatchRequest{}))
			return err
		}(),
	} {
		if !errors.Is(err, tikv.ErrUnsupported) || !tikv.NotSent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, call := range trace.Calls() {
		if strings.HasPrefix(call.Method, "Kv") || strings.Contains(call.Method, "Coprocessor") || strings.Contains(call.Method, "MPP") {
			t.Errorf("sent %s", call.Method)
		}
	}
	trace.Stop()
	if _, err := tikv.Call(t.Context(), rpc, tikv.ToStore(77), tikvpb.TikvClient.GetHealthFeedback, &kvrpcpb.GetHealthFeedbackRequest{}); !errors.Is(err, tikv.ErrRejected) {
		t.Errorf("a store that is not there: %v", err)
	}
	ttl := rpcCluster(t, playground.APIV1TTL, playground.KeyRaw).Open()
	if err := get(ttl.RPC(), key); !errors.Is(err, tikv.ErrUnsupported) {
		t.Errorf("a transactional key of API V1 TTL: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{get(rpc, key), stream(key, &coprocessor.Request{}), over(rpc, tikv.KeyTxn, tikv.Range{}, &kvrpcpb.ScanRequest{Version: 1})} {
		if !errors.Is(err, tikv.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// parts shows what a CallRange yields.
func parts(seq func(func(tikv.RangeReply[coprocessor.Response], error) bool)) (out string, err error) {
	for p, e := range seq {
		if e != nil {
			return out, e
		}
		out += fmt.Sprintf("[%s,%s)%s%s|", p.Range.Start, p.Range.End, p.Reply.Data, p.Reply.OtherError)
	}
	return out, nil
}

func TestCallRange(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		cluster := rpcCluster(t, v, playground.KeyTxn)
		c := cluster.Open()
		snap := commitKeys(t, c, "a", "c", "d", "f", "m", "z")
		rpc := c.RPC(tikv.WithReadAt(snap))
		sum := func(r tikv.Range, req *coprocessor.Request) string {
			t.Helper()
			got, err := parts(tikv.CallRange(t.Context(), rpc, tikv.KeyTxn, r, tikvpb.TikvClient.Coprocessor, req))
			if err != nil {
				t.Error(err)
			}
			return got
		}
		req := &coprocessor.Request{Tp: 103, Data: []byte("p")}
		all := sum(tikv.Range{}, req)
		if all != "[,d)p a=va c=vc|[d,m)p d=vd f=vf|[m,)p m=vm z=vz|" {
			t.Errorf("%v: %s", v, all)
		}
		if len(req.Ranges) > 0 || req.StartTs != 0 || req.Context != nil {
			t.Errorf("the request has changed: %v", req)
		}
		if got := sum(tikv.Range{Start: []byte("c"), End: []byte("e")}, req); got != "[c,d)p c=vc|[d,e)p d=vd|" {
			t.Error(got)
		}
		if got := sum(tikv.Range{Start: []byte("c"), End: []byte("c")}, req); got != "" {
			t.Error(got)
		}
		some := &coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{Start: []byte("a"), End: []byte("b")}, {Start: []byte("n"), End: []byte("zz")}}}
		if got := sum(tikv.Range{}, some); got != "[,d) a=va|[m,) z=vz|" {
			t.Errorf("ranges of its own: %s", got)
		}
		// The loop may end at any part.
		n := 0
		for _, err := range tikv.CallRange(t.Context(), rpc, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.Coprocessor, req) {
			if n++; err != nil || n == 2 {
				break
			}
		}
		if n != 2 {
			t.Error(n)
		}
		// Regions that split under the call, and merge: each part once.
		var splits atomic.Int32
		inject := cluster.Inject(playground.Fault{Method: "Coprocessor", Times: 3, Before: func() {
			key := string("bex"[splits.Add(1)-1])
			if _, err := cluster.Split(playground.KeyTxn, []byte(key)); err != nil {
				t.Error(err)
			}
		}})
		got := sum(tikv.Range{}, &coprocessor.Request{Tp: 103})
		inject.Remove()
		if joined := strings.Join(strings.Fields(strings.NewReplacer("|", " ").Replace(strip(got))), " "); joined != "a=va c=vc d=vd f=vf m=vm z=vz" {
			t.Errorf("%v: %s", v, got)
		}
		if strings.Count(got, "|") < 4 {
			t.Errorf("no region split: %s", got)
		}
	}
}

// strip removes the bounds.
func strip(s string) string {
	var out string
	for _, p := range strings.Split(s, "|") {
		_, data, _ := strings.Cut(p, ")")
		out += data + " "
	}
	return out
}

func TestCallRangeRaw(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		cluster := rpcCluster(t, v, playground.KeyRaw)
		c := cluster.Open()
		var pairs []tikv.Pair
		for _, k := range "abcdefghijklmnopqrstuvwxyz" {
			pairs = append(pairs, tikv.Pair{Key: []byte(string(k)), Value: []byte("1")})
		}
		if err := c.Raw().BatchPut(t.Context(), pairs); err != nil {
			t.Fatal(err)
		}
		var keys string
		for p, err := range tikv.CallRange(t.Context(), c.RPC(), tikv.KeyRaw, tikv.Range{Start: []byte("b"), End: []byte("y")}, tikvpb.TikvClient.RawScan, &kvrpcpb.RawScanRequest{Limit: 100}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, kv := range p.Reply.Kvs {
				keys += string(kv.Key)
			}
		}
		if keys != "bcdefghijklmnopqrstuvwx" {
			t.Error(keys)
		}
		want, err := c.Raw().Checksum(t.Context(), tikv.Range{})
		if err != nil {
			t.Fatal(err)
		}
		var sum tikv.Checksum
		for p, err := range tikv.CallRange(t.Context(), c.RPC(), tikv.KeyRaw, tikv.Range{}, tikvpb.TikvClient.RawChecksum, &kvrpcpb.RawChecksumRequest{Algorithm: kvrpcpb.ChecksumAlgorithm_Crc64_Xor}) {
			if err != nil {
				t.Fatal(err)
			}
			sum.CRC64XOR ^= p.Reply.Checksum
			sum.Pairs += p.Reply.TotalKvs
			sum.Bytes += p.Reply.TotalBytes
		}
		if sum != want {
			t.Errorf("%v, want %v", sum, want)
		}
	}
}

// A write by range of which one answer is lost: what is done is told from what is not.
func TestCallRangeLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV1, playground.KeyRaw)
		c := cluster.Open(tikv.WithRPCTimeout(time.Second))
		regions := cluster.Regions(playground.KeyRaw)
		at := slices.IndexFunc(regions, func(r playground.Region) bool { return string(r.Start) == "d" })
		cluster.Inject(playground.Fault{Method: "RawDeleteRange", Region: regions[at].ID, DropAnswer: true})
		done := ""
		var rng *tikv.RangeError
		for p, err := range tikv.CallRange(t.Context(), c.RPC(), tikv.KeyRaw, tikv.Range{End: []byte("z")}, tikvpb.TikvClient.RawDeleteRange, &kvrpcpb.RawDeleteRangeRequest{}) {
			if err == nil {
				done += string(p.Range.Start) + "-" + string(p.Range.End)
				continue
			}
			if !errors.As(err, &rng) || !errors.Is(err, tikv.ErrUndetermined) || tikv.NotSent(err) {
				t.Errorf("%v", err)
			}
		}
		if done != "-d" || len(rng.Rest) != 1 || string(rng.Rest[0].Start) != "d" || string(rng.Rest[0].End) != "z" {
			t.Errorf("done %q, left %q", done, rng.Rest)
		}
	})
}

// Locks that a request of a snapshot meets are resolved; of another they are its answer.
func TestReadAtMeetsLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV2, playground.KeyTxn)
		c := cluster.Open()
		commitKeys(t, c, "a", "e")
		owner := cluster.Open(tikv.WithCloseTimeout(0))
		lost := cluster.Inject(playground.Fault{Method: "KvCommit", Hold: true})
		tx, err := owner.Begin(t.Context(), inTwoPhases)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(tx.Put([]byte("a"), []byte("new")), tx.Put([]byte("e"), []byte("new"))); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := start(ctx, func(ctx context.Context) error { return tx.Commit(ctx) })
		synctest.Wait()
		snap, err := c.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		req := &coprocessor.Request{Tp: 103, StartTs: uint64(snap.Timestamp())}
		for p, err := range tikv.CallRange(t.Context(), c.RPC(), tikv.KeyTxn, tikv.Range{End: []byte("b")}, tikvpb.TikvClient.Coprocessor, req) {
			if l := p.Reply.GetLocked(); err != nil || string(l.GetKey()) != "a" || string(l.GetPrimaryLock()) != "a" {
				t.Errorf("%v %v", p.Reply, err)
			}
		}
		rpc := c.RPC(tikv.WithReadAt(snap))
		got, err := parts(tikv.CallRange(t.Context(), rpc, tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.Coprocessor, &coprocessor.Request{Tp: 103}))
		if err != nil || got != "[,d) a=va|[d,m) e=ve|[m,)|" {
			t.Errorf("%s %v", got, err)
		}
		for m, err := range tikv.CallStream(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.CoprocessorStream,
			&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{End: []byte("b")}}}) {
			if err != nil || m.GetLocked() != nil || m.GetRegionError() != nil {
				t.Errorf("%v %v", m, err)
			}
		}
		for name, ask := range map[string]func() (int, error){
			"get": func() (int, error) {
				p, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte("a")})
				return len(p.GetValue()), err
			},
			"batch get": func() (int, error) {
				p, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.KvBatchGet, &kvrpcpb.BatchGetRequest{Keys: [][]byte{[]byte("a")}})
				return len(p.GetPairs()[0].GetValue()), err
			},
			"scan": func() (int, error) {
				p, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.KvScan, &kvrpcpb.ScanRequest{EndKey: []byte("b"), Limit: 9})
				return len(p.GetPairs()[0].GetValue()), err
			},
		} {
			if n, err := ask(); err != nil || n != 2 {
				t.Errorf("%s: %d bytes, %v", name, n, err)
			}
		}
		cancel()
		<-done
		lost.Remove()
	})
}

// flash adds a store of TiFlash's.
func flash(t *testing.T, cluster *tikvtest.Cluster) uint64 {
	t.Helper()
	id, err := cluster.AddStore(map[string]string{"engine": "tiflash"})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCallStream(t *testing.T) {
	for _, v := range []playground.APIVersion{playground.APIV1, playground.APIV2} {
		cluster := rpcCluster(t, v, playground.KeyTxn)
		c := cluster.Open()
		snap := commitKeys(t, c, "a", "b", "e")
		rpc := c.RPC(tikv.WithReadAt(snap))
		var data []string
		for m, err := range tikv.CallStream(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.CoprocessorStream,
			&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{Start: []byte("a"), End: []byte("c")}}}) {
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, string(m.Data))
		}
		if len(data) == 0 {
			t.Error("no message")
		}
		// The region errors of a stream's first message are met as others are.
		cluster.Inject(playground.Fault{Method: "CoprocessorStream", RegionError: playground.NotLeader, Times: 2})
		again, err := tikv.Collect(tikv.CallStream(t.Context(), rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.CoprocessorStream,
			&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{Start: []byte("a"), End: []byte("c")}}}))
		if err != nil || len(again) != len(data) {
			t.Errorf("%v %v", again, err)
		}

		id := flash(t, cluster)
		regions := cluster.Regions(playground.KeyTxn)
		at := slices.IndexFunc(regions, func(r playground.Region) bool { return string(r.End) == "d" })
		info := []*coprocessor.RegionInfo{{RegionId: regions[at].ID, Ranges: []*coprocessor.KeyRange{{Start: []byte("a"), End: []byte("b\x00")}}}}
		var batch string
		for m, err := range tikv.CallStream(t.Context(), rpc, tikv.ToStore(id), tikvpb.TikvClient.BatchCoprocessor, &coprocessor.BatchRequest{Tp: 103, Data: []byte("p"), Regions: info}) {
			if err != nil {
				t.Fatal(err)
			}
			batch += string(m.Data)
		}
		if batch != "p a=va b=vb" {
			t.Errorf("%v: %q", v, batch)
		}

		meta := func(task int64) *mpp.TaskMeta {
			return &mpp.TaskMeta{StartTs: uint64(snap.Timestamp()), QueryTs: 5, LocalQueryId: 1, ServerId: 1, GatherId: 1, TaskId: task, MppVersion: 3}
		}
		answer, err := tikv.Call(t.Context(), rpc, tikv.ToStore(id), tikvpb.TikvClient.DispatchMPPTask, &mpp.DispatchTaskRequest{Meta: meta(1), EncodedPlan: []byte("p"), Regions: info})
		if err != nil || answer.GetError() != nil {
			t.Fatal(answer, err)
		}
		var packets string
		for m, err := range tikv.CallStream(t.Context(), c.RPC(), tikv.ToStore(id), tikvpb.TikvClient.EstablishMPPConnection,
			&mpp.EstablishMPPConnectionRequest{SenderMeta: meta(1), ReceiverMeta: meta(-1)}) {
			if err != nil {
				t.Fatal(err)
			}
			packets += string(m.Data)
		}
		if !strings.Contains(packets, "a=va b=vb") {
			t.Errorf("%v: %q", v, packets)
		}
		alive, err := tikv.Call(t.Context(), c.RPC(), tikv.ToStore(id), tikvpb.TikvClient.IsAlive, &mpp.IsAliveRequest{})
		if err != nil || !alive.GetAvailable() {
			t.Errorf("%v %v", alive, err)
		}
	}
}

// A stream that goes quiet is given up, and Close ends one at once.
func TestStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV1, playground.KeyTxn)
		c := cluster.Open(tikv.WithRPCTimeout(5*time.Second), tikv.WithRetryFor(8*time.Second))
		snap := commitKeys(t, c, "a")
		rpc := c.RPC(tikv.WithReadAt(snap))
		open := func(ctx context.Context) error {
			_, err := tikv.Collect(tikv.CallStream(ctx, rpc, tikv.ToKey(tikv.KeyTxn, []byte("a")), tikvpb.TikvClient.CoprocessorStream,
				&coprocessor.Request{Tp: 103, Ranges: []*coprocessor.KeyRange{{End: []byte("c")}}}))
			return err
		}
		held := cluster.Inject(playground.Fault{Method: "CoprocessorStream", Hold: true})
		began := time.Now()
		err := open(t.Context())
		var un *tikv.UnavailableError
		if !errors.As(err, &un) || un.Total < 2 || un.Attempts[0].Reason != tikv.ReasonTimeout {
			t.Errorf("%v", err)
		}
		if d := time.Since(began); d < 8*time.Second || d > 20*time.Second {
			t.Errorf("given up after %v", d)
		}
		ended := start(t.Context(), open)
		synctest.Wait()
		began = time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, tikv.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		held.Remove()
	})
}

// What was sent and not answered is resent if it reads, and not if it writes.
func TestCallLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV1, playground.KeyRaw)
		c := cluster.Open()
		rpc, k := c.RPC(), []byte("k")
		if err := c.Raw().Put(t.Context(), k, k); err != nil {
			t.Fatal(err)
		}
		cluster.Inject(playground.Fault{Method: "RawGet", Disconnect: true, Times: 2})
		get, err := tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyRaw, k), tikvpb.TikvClient.RawGet, &kvrpcpb.RawGetRequest{Key: k})
		if err != nil || string(get.GetValue()) != "k" {
			t.Errorf("%v %v", get, err)
		}
		cluster.Inject(playground.Fault{Method: "RawPut", Disconnect: true, Times: 2})
		_, err = tikv.Call(t.Context(), rpc, tikv.ToKey(tikv.KeyRaw, k), tikvpb.TikvClient.RawPut, &kvrpcpb.RawPutRequest{Key: k})
		var un *tikv.UndeterminedError
		if !errors.As(err, &un) || un.Op != "Call" || string(un.Key) != "k" {
			t.Errorf("%v", err)
		}
	})
}

// A bounded number of regions is asked at a time, answers come in the order of the
// regions, and leaving the loop leaves nothing behind.
func TestCallRangeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV2, playground.KeyTxn)
		for i := range 40 {
			if _, err := cluster.Split(playground.KeyTxn, fmt.Appendf(nil, "e%02d", i)); err != nil {
				t.Fatal(err)
			}
		}
		c := cluster.Open()
		snap := commitKeys(t, c, "a")
		seq := tikv.CallRange(t.Context(), c.RPC(tikv.WithReadAt(snap)), tikv.KeyTxn, tikv.Range{}, tikvpb.TikvClient.Coprocessor, &coprocessor.Request{Tp: 103})
		held := cluster.Inject(playground.Fault{Method: "Coprocessor", Hold: true})
		var at []byte
		n := 0
		done := start(t.Context(), func(context.Context) error {
			for p, err := range seq {
				if err != nil {
					return err
				}
				if n++; string(p.Range.Start) != string(at) {
					t.Errorf("after %q comes %q", at, p.Range.Start)
				}
				at = p.Range.End
			}
			return nil
		})
		synctest.Wait()
		if w := held.Waiting(); w != 16 {
			t.Errorf("%d regions are asked at a time", w)
		}
		held.Remove()
		if err := <-done; err != nil || n != 43 || len(at) > 0 {
			t.Errorf("%d parts up to %q, %v", n, at, err)
		}
		slow := cluster.Inject(playground.Fault{Method: "Coprocessor", Hold: true, Skip: 1})
		for range seq {
			break
		}
		if queued, pending, tasks := c.Idle(); queued+pending > 0 || slices.Contains(tasks, "range part") {
			t.Errorf("left behind: %d %d %q", queued, pending, tasks)
		}
		slow.Remove()
	})
}

// PD is asked for a region by its id once, and again when the region has changed.
func TestCallsToARegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := rpcCluster(t, playground.APIV2, playground.KeyTxn)
		c := cluster.Open()
		commitKeys(t, c, "a", "e")
		asked := cluster.Inject(playground.Fault{Method: "GetRegionByID"})
		regions := cluster.Regions(playground.KeyTxn)
		at := slices.IndexFunc(regions, func(r playground.Region) bool { return string(r.End) == "m" })
		id := regions[at].ID
		ts, err := c.Timestamp(t.Context())
		must(t, err)
		get := func(key string) (string, error) {
			p, err := tikv.Call(t.Context(), c.RPC(), tikv.ToRegion(tikv.KeyTxn, id), tikvpb.TikvClient.KvGet, &kvrpcpb.GetRequest{Key: []byte(key), Version: uint64(ts)})
			return string(p.GetValue()), err
		}
		for range 10 {
			if got, err := get("e"); err != nil || got != "ve" {
				t.Errorf("%q, %v", got, err)
			}
		}
		if n := asked.Hits(); n != 1 {
			t.Errorf("PD was asked %d times", n)
		}
		_, err = cluster.Split(playground.KeyTxn, []byte("g"))
		must(t, err)
		key := map[bool]string{true: "e", false: "h"}
		left := slices.ContainsFunc(cluster.Regions(playground.KeyTxn), func(r playground.Region) bool { return r.ID == id && string(r.Start) == "d" })
		for range 10 {
			if _, err := get(key[left]); err != nil {
				t.Error(err)
			}
		}
		if n := asked.Hits(); n != 2 {
			t.Errorf("PD was asked %d times", n)
		}
		// A region that was merged away is gone.
		for _, r := range cluster.Regions(playground.KeyTxn) {
			if string(r.Start) == "d" || string(r.Start) == "g" {
				if r.ID != id {
					must(t, cluster.Merge(id, r.ID))
				}
			}
		}
		if _, err := get(key[left]); !errors.Is(err, tikv.ErrUnavailable) {
			t.Error(err)
		}
	})
}
