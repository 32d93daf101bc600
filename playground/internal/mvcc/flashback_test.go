package mvcc

import (
	"fmt"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// More keys and locks than are written at a time (TiKV src/storage/mod.rs,
// test_flashback_to_version_in_multi_batch).
func TestFlashbackInBatches(t *testing.T) {
	s := newScript(t)
	const n = 2*flashbackBatch + 3
	prewrite := func(startTS uint64) (ks [][]byte) {
		req := &kvrpcpb.PrewriteRequest{StartVersion: startTS, PrimaryLock: []byte("k0000"), LockTtl: 99000}
		for i := range n {
			k := fmt.Appendf(nil, "k%04d", i)
			ks = append(ks, k)
			req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: k, Value: fmt.Append(nil, startTS)})
		}
		if p := s.e.Prewrite(t.Context(), keys.Range{}, req); len(p.Errors) > 0 {
			t.Fatal(p)
		}
		return ks
	}
	for _, ts := range []uint64{10, 20, 30} {
		ks := prewrite(ts)
		if ts == 30 {
			break
		}
		if p := s.e.Commit(t.Context(), keys.Range{}, &kvrpcpb.CommitRequest{StartVersion: ts, CommitVersion: ts + 1, Keys: ks}); p.Error != nil {
			t.Fatal(p)
		}
	}
	s.run(`
		prepareflashback 40 15
		records k0000 => lock:Put@40 30:Rollback@30=p 21:Put@20=20 11:Put@10=10
		flashback 40 41 15
		scanlock 99 => []
		flashback 40 41 15`)
	resp := s.e.Scan(t.Context(), keys.Range{}, &kvrpcpb.ScanRequest{Version: 41, Limit: 2 * n})
	if len(resp.Pairs) != n {
		t.Fatal(len(resp.Pairs), resp.Error)
	}
	for i, p := range resp.Pairs {
		if string(p.Value) != "10" {
			t.Errorf("%s: %s", p.Key, p.Value)
		}
		if i%100 == 50 {
			s.run(fmt.Sprintf("records %s => 41:Put@40=10 30:Rollback@30 21:Put@20=20 11:Put@10=10", p.Key))
		}
	}
}

// The lock of a flashback is like no other: it never lives, and its primary is a stored key.
func TestFlashbackLock(t *testing.T) {
	s := newScript(t)
	s.run(`
		prewrite 1 k put:k=v
		commit 1 2 k
		prepareflashback 5 1`)
	locks := s.e.Locks(keys.Range{})
	if len(locks) != 1 || locks[0].LockTtl != 0 || locks[0].TxnSize != 1 || string(locks[0].PrimaryLock) != string(keys.Encode([]byte("k"))) {
		t.Error(locks)
	}
}
