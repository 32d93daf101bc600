package playground

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
)

// Writes on full disks (TiKV raftstore/src/store/peer.rs,
// check_normal_proposal_with_disk_full_opt).
func TestDiskFull(t *testing.T) {
	const ok, almost, already = DiskOK, DiskAlmostFull, DiskAlreadyFull
	const never, onAlmost, onAlready = kvrpcpb.DiskFullOpt_NotAllowedOnFull, kvrpcpb.DiskFullOpt_AllowedOnAlmostFull, kvrpcpb.DiskFullOpt_AllowedOnAlreadyFull
	tests := []struct {
		name        string
		leader      Disk
		followers   [2]Disk
		opt         kvrpcpb.DiskFullOpt
		refusedBy   int // how many stores the error names; 0: the prewrite succeeds
		raw, commit int
		moved       bool
	}{
		{"all well", ok, [2]Disk{}, never, 0, 0, 0, false},
		{"leader almost", almost, [2]Disk{}, never, 1, 0, 0, true},
		{"leader almost, allowed", almost, [2]Disk{}, onAlmost, 0, 0, 0, false},
		{"leader already, allowed on almost", already, [2]Disk{}, onAlmost, 1, 1, 1, true},
		{"leader already, allowed on already", already, [2]Disk{}, onAlready, 1, 1, 1, true},
		{"one follower", ok, [2]Disk{already, ok}, never, 0, 0, 0, false},
		{"both followers almost", ok, [2]Disk{almost, almost}, never, 2, 0, 0, false},
		{"both followers almost, allowed", ok, [2]Disk{almost, almost}, onAlmost, 0, 0, 0, false},
		{"both followers almost, allowed on already", ok, [2]Disk{almost, almost}, onAlready, 2, 0, 0, false},
		{"one almost, one already", ok, [2]Disk{almost, already}, onAlmost, 0, 0, 0, false},
		{"both followers already", ok, [2]Disk{already, already}, onAlmost, 2, 2, 2, false},
		{"all almost", almost, [2]Disk{almost, almost}, never, 1, 0, 0, false},
		{"all almost, allowed", almost, [2]Disk{almost, almost}, onAlmost, 0, 0, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t)
				at, kv := c.at(KeyTxn, "k")
				at.DiskFullOpt = test.opt
				leader := at.Peer.StoreId
				states := map[uint64]Disk{leader: test.leader, leader%3 + 1: test.followers[0], (leader+1)%3 + 1: test.followers[1]}
				set := func(well bool) {
					for id, d := range states {
						if well {
							d = DiskOK
						}
						if err := c.SetStore(id, StoreState{Disk: d}); err != nil {
							t.Fatal(err)
						}
					}
					if err := c.TransferLeader(at.RegionId, leader); err != nil {
						t.Fatal(err)
					}
				}
				check := func(what string, e *errorpb.Error, want int) {
					t.Helper()
					if n := len(e.GetDiskFull().GetStoreId()); n != want || want == 0 && e != nil {
						t.Fatalf("%s: %v, want an error of %d stores", what, e, want)
					}
				}
				ts := c.timestamp()
				prewrite := func() *errorpb.Error {
					resp, err := kv.KvPrewrite(t.Context(), &kvrpcpb.PrewriteRequest{
						Context: at, StartVersion: ts, PrimaryLock: []byte("k"), LockTtl: 1000,
						Mutations: []*kvrpcpb.Mutation{{Key: []byte("k"), Value: []byte("v")}},
					})
					if err != nil || len(resp.Errors) > 0 {
						t.Fatal(resp, err)
					}
					return resp.RegionError
				}
				set(false)
				check("prewrite", prewrite(), test.refusedBy)
				if moved := c.topo.ByID(at.RegionId).LeaderStore() != leader; moved != test.moved {
					t.Fatal("the leader moved:", moved)
				}
				set(true)
				check("prewrite on good disks", prewrite(), 0)
				set(false)
				put, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: at, Key: []byte("r"), Value: []byte("v")})
				if err != nil {
					t.Fatal(err)
				}
				check("raw put", put.RegionError, test.raw)
				set(false)
				at.DiskFullOpt = never
				commit, err := kv.KvCommit(t.Context(), &kvrpcpb.CommitRequest{Context: at, StartVersion: ts, CommitVersion: ts + 1, Keys: [][]byte{[]byte("k")}})
				if err != nil {
					t.Fatal(err)
				}
				check("commit", commit.RegionError, test.commit)
				set(false)
				get, err := kv.KvGet(t.Context(), &kvrpcpb.GetRequest{Context: at, Key: []byte("x"), Version: ts})
				if err != nil {
					t.Fatal(err)
				}
				check("a read", get.RegionError, 0)
			})
		})
	}
}

func TestStoreState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		at, kv := c.at(KeyRaw, "k")
		id := at.Peer.StoreId
		if err := c.SetStore(id, StoreState{DiskDelay: time.Second, SlowScore: 85.9, Advertise: "there:1"}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		c.rawGet("k")
		if time.Since(began) != 0 {
			t.Fatal("a read took", time.Since(began))
		}
		put, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: at, Key: []byte("k"), Value: []byte("v")})
		if err != nil || put.RegionError != nil || time.Since(began) != time.Second {
			t.Fatal(put, err, time.Since(began))
		}
		health, err := kv.GetHealthFeedback(t.Context(), &kvrpcpb.GetHealthFeedbackRequest{Context: at})
		if err != nil || health.HealthFeedback.SlowScore != 85 {
			t.Fatal(health, err)
		}
		store := func() string {
			resp, err := c.pdc().GetStore(t.Context(), &pdpb.GetStoreRequest{Header: c.header(), StoreId: id})
			if err != nil {
				t.Fatal(err)
			}
			return resp.Store.Address
		}
		if store() != "there:1" {
			t.Fatal(store())
		}
		if err := c.SetStore(id, StoreState{}); err != nil || store() != c.store(id).Server().Addr() {
			t.Fatal(store(), err)
		}
		for _, bad := range []StoreState{{Disk: 3}, {DiskDelay: -1}, {SlowScore: 0.5}, {SlowScore: 101}} {
			if c.SetStore(id, bad) == nil {
				t.Errorf("%+v was taken", bad)
			}
		}
		expect(t, c.SetStore(9, StoreState{}), "no store 9")
	})
}
