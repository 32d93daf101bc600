package playground

import (
	"testing"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
)

func (c *testCluster) prepareFlashback(startTS, version uint64, change func(*kvrpcpb.Context)) *kvrpcpb.PrepareFlashbackToVersionResponse {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, "a")
	if change != nil {
		change(ctx)
	}
	p, err := kv.KvPrepareFlashbackToVersion(c.t.Context(), &kvrpcpb.PrepareFlashbackToVersionRequest{
		Context: ctx, StartKey: c.api.wireKey(KeyTxn, []byte("a")), EndKey: c.api.wireKey(KeyTxn, []byte("m")), StartTs: startTS, Version: version})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *testCluster) flashback(startTS, commitTS, version uint64) *kvrpcpb.FlashbackToVersionResponse {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, "a")
	p, err := kv.KvFlashbackToVersion(c.t.Context(), &kvrpcpb.FlashbackToVersionRequest{
		Context: ctx, StartKey: c.api.wireKey(KeyTxn, []byte("a")), EndKey: c.api.wireKey(KeyTxn, []byte("m")), StartTs: startTS, CommitTs: commitTS, Version: version})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// A region that is closed for a flashback keeps everything out but the flashback, and
// stays as it is, also over a restart; its neighbours and older reads do not notice
// (TiKV tests/integrations/raftstore/test_flashback.rs).
func TestFlashback(t *testing.T) {
	dir := t.TempDir()
	var version, startTS uint64
	t.Run("prepare", func(t *testing.T) {
		c := start(t, WithDir(dir, false), WithSplitKeys(KeyTxn, []byte("m")))
		for _, value := range []string{"old", "new"} {
			s := c.timestamp()
			for _, k := range []string{"a", "b", "x"} {
				c.prewrite(s, k, value)
			}
			version = c.timestamp()
			for _, k := range []string{"a", "b", "x"} {
				c.commit(s, version, k)
			}
			if value == "old" {
				startTS = version
			}
		}
		version, startTS = startTS, c.timestamp()
		c.prewrite(c.timestamp(), "c", "1")
		if p := c.flashback(startTS, c.timestamp(), version); p.RegionError.GetFlashbackNotPrepared().GetRegionId() == 0 {
			t.Fatal(p)
		}
		if p := c.prepareFlashback(startTS, version, func(ctx *kvrpcpb.Context) { ctx.RegionEpoch.ConfVer-- }); p.RegionError.GetEpochNotMatch() == nil {
			t.Fatal(p)
		}
		if p := c.prepareFlashback(startTS, version, func(ctx *kvrpcpb.Context) { ctx.Peer.Id++ }); p.RegionError.GetMismatchPeerId() == nil {
			t.Fatal(p)
		}
		if c.Regions(KeyTxn)[0].Flashback != 0 {
			t.Fatal("closed by what was refused")
		}
		for range 2 {
			if p := c.prepareFlashback(startTS, version, nil); p.RegionError != nil || p.Error != "" {
				t.Fatal(p)
			}
		}
	})
	t.Run("closed", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		now := c.timestamp()
		region := c.Regions(KeyTxn)[0]
		if other := c.Regions(KeyTxn)[1]; region.Flashback != startTS || other.Flashback != 0 {
			t.Fatal(region, other)
		}
		resp, err := c.pdc().GetRegionByID(t.Context(), &pdpb.GetRegionByIDRequest{Header: c.header(), RegionId: region.ID})
		if err != nil || !resp.Region.IsInFlashback || resp.Region.FlashbackStartTs != startTS {
			t.Fatal(resp, err)
		}
		closed := func(what string, e *errorpb.Error) {
			t.Helper()
			if f := e.GetFlashbackInProgress(); f.GetRegionId() != region.ID || f.GetFlashbackStartTs() != startTS {
				t.Errorf("%s: %v", what, e)
			}
		}
		ctx, kv := c.at(KeyTxn, "a")
		get, err := kv.KvGet(t.Context(), &kvrpcpb.GetRequest{Context: ctx, Key: []byte("a"), Version: now})
		if err != nil {
			t.Fatal(err)
		}
		closed("get", get.RegionError)
		prewrite, err := kv.KvPrewrite(t.Context(), &kvrpcpb.PrewriteRequest{Context: ctx, StartVersion: now, PrimaryLock: []byte("b"),
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: []byte("b")}}})
		if err != nil {
			t.Fatal(err)
		}
		closed("prewrite", prewrite.RegionError)
		status, err := kv.KvCheckTxnStatus(t.Context(), &kvrpcpb.CheckTxnStatusRequest{Context: ctx, LockTs: startTS - 1, PrimaryKey: []byte("b")})
		if err != nil {
			t.Fatal(err)
		}
		closed("status", status.RegionError)
		locks, err := kv.KvScanLock(t.Context(), &kvrpcpb.ScanLockRequest{Context: ctx, MaxVersion: 1})
		if err != nil {
			t.Fatal(err)
		}
		closed("scan of locks", locks.RegionError)
		raw, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: ctx, Key: c.api.regionKey(KeyTxn, []byte("a")), Value: []byte("1")})
		if err != nil {
			t.Fatal(err)
		}
		closed("raw put", raw.RegionError)
		split, err := kv.SplitRegion(t.Context(), &kvrpcpb.SplitRegionRequest{Context: ctx, SplitKeys: [][]byte{[]byte("c")}})
		if err != nil {
			t.Fatal(err)
		}
		closed("split", split.RegionError)
		if p := c.get(startTS-1, "a"); string(p.Value) != "new" {
			t.Errorf("an older read: %v", p)
		}
		if p := c.get(now, "x"); string(p.Value) != "new" {
			t.Errorf("another region: %v", p)
		}
		for what, err := range map[string]error{
			"transfer": c.TransferLeader(region.ID, region.Leader%3+1), "merge": c.Merge(region.ID, c.Regions(KeyTxn)[1].ID),
			"merge into it": c.Merge(c.Regions(KeyTxn)[1].ID, region.ID), "remove a peer": c.RemovePeer(region.ID, 1),
			"learner": c.AddPeer(region.ID, 1, Learner),
		} {
			if err == nil {
				t.Errorf("%s: no error", what)
				continue
			}
			expect(t, err, "is in the flashback progress")
		}
		if _, err := c.Split(KeyTxn, []byte("c")); err == nil {
			t.Error("split: no error")
		}
		// An election is no change of it.
		c.must(c.Stop(Store(region.Leader)))
		c.must(c.Start(Store(region.Leader)))
		if got := c.Regions(KeyTxn)[0]; got.Flashback != startTS || got.Leader == region.Leader {
			t.Error(got)
		}
	})
	t.Run("execute", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		commitTS := c.timestamp()
		if p := c.flashback(startTS+1, commitTS, version); p.RegionError.GetFlashbackNotPrepared() == nil {
			t.Fatal(p)
		}
		if p := c.flashback(startTS, startTS, version); p.RegionError != nil || p.Error == "" {
			t.Fatal(p)
		}
		for range 2 { // again, as when the answer was lost
			if p := c.flashback(startTS, commitTS, version); p.RegionError != nil || p.Error != "" {
				t.Fatal(p)
			}
		}
		if r := c.Regions(KeyTxn)[0]; r.Flashback != 0 {
			t.Fatal(r)
		}
		now := c.timestamp()
		for key, want := range map[string]string{"a": "old", "b": "old", "c": "", "x": "new"} {
			if p := c.get(now, key); string(p.Value) != want || p.Error != nil || p.RegionError != nil {
				t.Errorf("%s: %v", key, p)
			}
		}
		if p := c.get(version-1, "a"); !p.NotFound {
			t.Error(p)
		}
		if vs, err := c.Versions([]byte("b")); err != nil || len(vs) != 3 || vs[0].StartTS != startTS || vs[0].CommitTS != commitTS {
			t.Error(vs, err)
		}
	})
}

// Who waits for a lock when its region is closed hears of nothing, until his time is over.
func TestFlashbackWhileOneWaits(t *testing.T) {
	compete(t, func(c *contest) {
		c.do("t1", "lock b")
		c.do("t2", "lock b wait=50")
		c.do("t3", "lock b wait=80 force")
		if p := c.prepareFlashback(c.timestamp(), 1, nil); p.RegionError != nil || p.Error != "" {
			t.Fatal(p)
		}
		if l := c.Locks(nil, nil); len(l) != 0 {
			t.Fatal(l)
		}
		c.expect("0ms t1 ok")
		pass(80 * 1000000)
		c.expect("50ms t2 locked b by t1, 0 ms", "80ms t3 locked b by t1, 0 ms Failed")
	})
}
