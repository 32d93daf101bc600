package mvcc

import (
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// The errors of a commit that no right client meets show the key's records (TiKV src/
// storage/txn/actions/commit.rs, commit and handle_lock_not_found).
func TestExplainedErrors(t *testing.T) {
	s := newScript(t)
	s.run(`
		prewrite 5 p put:k=old
		commit 5 6 k
		prewrite 10 p put:p=1 put:k=x*300
		rollback 10 k
		prewrite 20 p put:l=1 min=30`)
	for _, c := range []struct {
		what    string
		req     *kvrpcpb.CommitRequest
		lock    uint64 // the start timestamp of the lock that is shown
		records int    // that are shown; 0: nothing is
	}{
		{"a secondary that was rolled back", &kvrpcpb.CommitRequest{StartVersion: 10, CommitVersion: 20, Keys: [][]byte{[]byte("k")}, CommitRole: kvrpcpb.CommitRole_Secondary}, 0, 2},
		{"a primary", &kvrpcpb.CommitRequest{StartVersion: 10, CommitVersion: 20, Keys: [][]byte{[]byte("k")}, CommitRole: kvrpcpb.CommitRole_Primary}, 0, 0},
		{"of an old client", &kvrpcpb.CommitRequest{StartVersion: 10, CommitVersion: 20, Keys: [][]byte{[]byte("k")}}, 0, 0},
		{"a secondary that was pushed", &kvrpcpb.CommitRequest{StartVersion: 20, CommitVersion: 25, Keys: [][]byte{[]byte("l")}}, 20, 0},
	} {
		e := s.e.Commit(t.Context(), keys.Range{}, c.req).Error
		if e.GetTxnLockNotFound() == nil && e.GetCommitTsExpired() == nil {
			t.Fatal(c.what, e)
		}
		shown := e.GetDebugInfo().GetMvccInfo()
		if (len(shown) == 1) != (c.records > 0 || c.lock > 0) {
			t.Fatal(c.what, shown)
		}
		if len(shown) == 1 {
			m := shown[0]
			if string(m.Key) != string(c.req.Keys[0]) || len(m.Mvcc.Writes) != c.records || m.Mvcc.Lock.GetStartTs() != c.lock || len(m.Mvcc.Values) > 0 {
				t.Error(c.what, m)
			}
		}
	}
}
