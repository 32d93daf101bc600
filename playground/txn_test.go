package playground

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/pdpb"
)

// timestamp asks PD for one, on a stream of its own.
func (c *testCluster) timestamp() uint64 {
	c.t.Helper()
	stream, err := c.pdc().Tso(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if err := stream.Send(&pdpb.TsoRequest{Header: c.header(), Count: 1}); err != nil {
		c.t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		c.t.Fatal(err)
	}
	return uint64(resp.Timestamp.Physical)<<18 | uint64(resp.Timestamp.Logical)
}

// prewrite puts key for a transaction whose primary it is.
func (c *testCluster) prewrite(startTS uint64, key, value string) *kvrpcpb.PrewriteResponse {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, key)
	wire := c.api.wireKey(KeyTxn, []byte(key))
	resp, err := kv.KvPrewrite(c.t.Context(), &kvrpcpb.PrewriteRequest{
		Context: ctx, StartVersion: startTS, PrimaryLock: wire, LockTtl: 3000,
		Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: wire, Value: []byte(value)}},
	})
	if err != nil || resp.RegionError != nil {
		c.t.Fatal(resp, err)
	}
	return resp
}

func (c *testCluster) commit(startTS, commitTS uint64, key string) *kvrpcpb.CommitResponse {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, key)
	resp, err := kv.KvCommit(c.t.Context(), &kvrpcpb.CommitRequest{
		Context: ctx, StartVersion: startTS, CommitVersion: commitTS, Keys: [][]byte{c.api.wireKey(KeyTxn, []byte(key))},
	})
	if err != nil || resp.RegionError != nil {
		c.t.Fatal(resp, err)
	}
	return resp
}

func (c *testCluster) get(ts uint64, key string) *kvrpcpb.GetResponse {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, key)
	resp, err := kv.KvGet(c.t.Context(), &kvrpcpb.GetRequest{Context: ctx, Version: ts, Key: c.api.wireKey(KeyTxn, []byte(key))})
	if err != nil || resp.RegionError != nil {
		c.t.Fatal(resp, err)
	}
	return resp
}

func TestTransactions(t *testing.T) {
	for _, api := range []APIVersion{APIV1, APIV2} {
		t.Run(api.String(), func(t *testing.T) {
			everywhere(t, func(t *testing.T, opts ...Option) {
				c := start(t, append(opts, WithAPIVersion(api), WithSplitKeys(KeyTxn, []byte("m")))...)
				s1, s2 := c.timestamp(), c.timestamp()
				if p := c.prewrite(s1, "a", "1"); len(p.Errors) > 0 {
					t.Fatal(p)
				}
				locks := c.Locks(nil, nil)
				if len(locks) != 1 || string(locks[0].Key) != "a" || string(locks[0].Primary) != "a" || locks[0].StartTS != s1 || locks[0].TTL != 3*time.Second {
					t.Fatal(locks)
				}
				if g := c.get(s2, "a"); g.GetError().GetLocked().GetLockVersion() != s1 {
					t.Fatal(g)
				}
				commitTS := c.timestamp()
				for range 2 { // a commit may be sent again
					if p := c.commit(s1, commitTS, "a"); p.Error != nil {
						t.Fatal(p)
					}
				}
				if g := c.get(commitTS, "a"); string(g.Value) != "1" {
					t.Fatal(g)
				}
				if p := c.prewrite(s2, "a", "2"); len(p.Errors) != 1 || p.Errors[0].Conflict == nil {
					t.Fatal(p)
				}
				versions, err := c.Versions([]byte("a"))
				if err != nil || len(versions) != 1 || versions[0].CommitTS != commitTS || string(versions[0].Value) != "1" || versions[0].Kind != WritePut {
					t.Fatal(versions, err)
				}
				n := c.Counts()
				if n.Commits != 1 || n.Conflicts != 1 || n.Rollbacks != 0 || n.Calls["KvPrewrite"] != 2 || n.Calls["KvCommit"] != 2 {
					t.Fatalf("%+v", n)
				}
			})
		})
	}
}

func TestRollbackIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		s1 := c.timestamp()
		c.prewrite(s1, "a", "1")
		ctx, kv := c.at(KeyTxn, "a")
		resp, err := kv.KvBatchRollback(t.Context(), &kvrpcpb.BatchRollbackRequest{Context: ctx, StartVersion: s1, Keys: [][]byte{[]byte("a")}})
		if err != nil || resp.Error != nil || resp.RegionError != nil {
			t.Fatal(resp, err)
		}
		if n := c.Counts(); n.Rollbacks != 1 || n.Commits != 0 || len(c.Locks(nil, nil)) != 0 {
			t.Fatalf("%+v", n)
		}
	})
}
