package playground

import (
	"testing"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// A merge in two steps: what the source refuses between them and what it answers, over a
// restart as well, and the epochs (TiKV components/raftstore/src/store/fsm/apply.rs,
// exec_prepare_merge, exec_rollback_merge, exec_commit_merge).
func TestMergeInTwoSteps(t *testing.T) {
	dir := t.TempDir()
	var source, target, version, conf uint64
	t.Run("begin", func(t *testing.T) {
		c := start(t, WithDir(dir, false), WithSplitKeys(KeyRaw, []byte("g"), []byte("t")))
		c.rawPut("h", "1")
		regions := c.Regions(KeyRaw)
		source, target = regions[1].ID, regions[2].ID
		version, conf = c.epoch(source)
		expect(t, c.PrepareMerge(regions[0].ID, target), "no neighbours")
		expect(t, c.PrepareMerge(99999, target), "no region")
		expect(t, c.RollbackMerge(source), "is not being merged")
		c.must(c.PrepareMerge(source, target))
		for _, err := range []error{
			c.PrepareMerge(source, target), c.PrepareMerge(source, regions[0].ID), c.PrepareMerge(regions[0].ID, source),
			c.PrepareMerge(target, source), c.Merge(target, source), c.Merge(regions[0].ID, source),
			c.AddPeer(source, 1, Learner), c.RemovePeer(source, 1),
		} {
			expect(t, err, "is being merged into region")
		}
		if _, err := c.Split(KeyRaw, []byte("i")); err == nil {
			t.Error("split")
		}
		expect(t, c.Merge(source, regions[0].ID), "roll back") // another one than it began with
	})
	t.Run("merging", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		if r := c.Regions(KeyRaw)[1]; r.MergingInto != target || r.Version != version+1 || r.ConfVersion != conf+1 {
			t.Fatal(r)
		}
		ctx, kv := c.at(KeyRaw, "h")
		refused := func(what string, e *errorpb.Error, err error) {
			t.Helper()
			if err != nil || e.GetProposalInMergingMode().GetRegionId() != source {
				t.Errorf("%s: %v %v", what, e, err)
			}
		}
		put, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: ctx, Key: []byte("h"), Value: []byte("2")})
		refused("put", put.GetRegionError(), err)
		lock, err := kv.KvPessimisticLock(t.Context(), &kvrpcpb.PessimisticLockRequest{Context: ctx, PrimaryLock: []byte("h"), StartVersion: 1, ForUpdateTs: 1,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: []byte("h")}}})
		refused("lock", lock.GetRegionError(), err)
		split, err := kv.SplitRegion(t.Context(), &kvrpcpb.SplitRegionRequest{Context: ctx, IsRawKv: true, SplitKeys: [][]byte{[]byte("i")}})
		refused("split", split.GetRegionError(), err)
		flash, err := kv.KvPrepareFlashbackToVersion(t.Context(), &kvrpcpb.PrepareFlashbackToVersionRequest{Context: ctx, StartKey: []byte("h"), StartTs: 5, Version: 1})
		refused("flashback", flash.GetRegionError(), err)
		if v, ok := c.rawGet("h"); !ok || v != "1" {
			t.Error("the leader reads on:", v, ok)
		}
		r := c.topo.ByID(source)
		for _, p := range r.Meta.Peers {
			if p.StoreId == r.LeaderStore() {
				continue
			}
			at := c.context(r.Meta, p)
			at.ReplicaRead = true
			got, err := c.tikv(p.StoreId).KvGet(t.Context(), &kvrpcpb.GetRequest{Context: at, Key: []byte("h"), Version: 1})
			if err != nil || got.RegionError.GetReadIndexNotReady().GetRegionId() != source {
				t.Error(got, err)
			}
		}
		c.rawPut("x", "2") // the target works on
	})
	t.Run("roll back", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		c.must(c.RollbackMerge(source))
		if v, cv := c.epoch(source); v != version+2 || cv != conf+1 {
			t.Error(v, cv)
		}
		c.rawPut("h", "3")
	})
	t.Run("commit", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		if c.Regions(KeyRaw)[1].MergingInto != 0 {
			t.Fatal("rolled back for now only")
		}
		c.must(c.PrepareMerge(source, target))
		// A target that has changed is not the one that was meant.
		c.must(c.AddPeer(target, 1, Learner))
		expect(t, c.Merge(source, target), "roll back")
		c.must(c.RollbackMerge(source))
		c.must(c.PrepareMerge(source, target))
		sv, _ := c.epoch(source)
		tv, tconf := c.epoch(target)
		c.must(c.Merge(source, target))
		if v, cv := c.epoch(target); v != max(sv, tv)+1 || cv != tconf {
			t.Error(v, cv, sv, tv)
		}
		if v, ok := c.rawGet("h"); !ok || v != "3" {
			t.Error(v, ok)
		}
		c.rawPut("h", "4")
	})
	t.Run("after", func(t *testing.T) {
		c := start(t, WithDir(dir, false))
		if n := len(c.Regions(KeyRaw)); n != 2 {
			t.Error(n)
		}
	})
}

// What was done in two steps is done again in two.
func TestReplayMergeInTwoSteps(t *testing.T) {
	first := start(t, WithSplitKeys(KeyRaw, []byte("g")))
	r := first.Regions(KeyRaw)
	first.must(first.PrepareMerge(r[0].ID, r[1].ID))
	first.must(first.RollbackMerge(r[0].ID))
	first.must(first.PrepareMerge(r[0].ID, r[1].ID))
	again := start(t, WithSplitKeys(KeyRaw, []byte("g")))
	again.must(again.Replay(first.Journal()))
	got := again.Regions(KeyRaw)
	if got[0].MergingInto != r[1].ID || got[0].Version != first.Regions(KeyRaw)[0].Version {
		t.Error(got)
	}
}
