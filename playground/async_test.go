package playground

import (
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
)

// prewriteAt sends a prewrite of keys of one region to its leader.
func (c *testCluster) prewriteAt(req *kvrpcpb.PrewriteRequest, keys ...string) *kvrpcpb.PrewriteResponse {
	c.t.Helper()
	ctx, kv := c.at(KeyTxn, keys[0])
	req.Context, req.LockTtl, req.PrimaryLock = ctx, 3000, c.api.wireKey(KeyTxn, []byte(keys[0]))
	for _, k := range keys {
		req.Mutations = append(req.Mutations, &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: c.api.wireKey(KeyTxn, []byte(k)), Value: []byte("1")})
	}
	resp, err := kv.KvPrewrite(c.t.Context(), req)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func TestAsyncAndOnePhaseCommitAreCounted(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		count := func(commits, rollbacks int) {
			t.Helper()
			if n := c.Counts(); n.Commits != commits || n.Rollbacks != rollbacks {
				t.Errorf("%+v, want %d and %d", n, commits, rollbacks)
			}
		}
		one := &kvrpcpb.PrewriteRequest{StartVersion: c.timestamp(), TryOnePc: true}
		p := c.prewriteAt(one, "a", "b")
		if p.OnePcCommitTs <= one.StartVersion || len(p.Errors) > 0 {
			t.Fatal(p)
		}
		count(1, 0)
		again := &kvrpcpb.PrewriteRequest{StartVersion: one.StartVersion, TryOnePc: true}
		if q := c.prewriteAt(again, "a", "b"); q.OnePcCommitTs != p.OnePcCommitTs {
			t.Fatal(q)
		}
		count(1, 0)
		if g := c.get(c.timestamp(), "b"); string(g.Value) != "1" {
			t.Error(g)
		}
		async := &kvrpcpb.PrewriteRequest{StartVersion: c.timestamp(), UseAsyncCommit: true, Secondaries: [][]byte{c.api.wireKey(KeyTxn, []byte("d"))}}
		if p = c.prewriteAt(async, "c", "d"); p.MinCommitTs == 0 || len(p.Errors) > 0 {
			t.Fatal(p)
		}
		if l := c.Locks(nil, nil); len(l) != 2 || !l[0].AsyncCommit || l[0].MinCommitTS == 0 || len(l[0].Secondaries) != 1 || string(l[0].Secondaries[0]) != "d" {
			t.Error(l)
		}
		count(1, 0)
		for _, k := range []string{"d", "c", "c"} {
			if r := c.commit(async.StartVersion, p.MinCommitTs, k); r.Error != nil {
				t.Fatal(r)
			}
		}
		count(2, 0)
		// Others count as well when they end it.
		for i, decide := range []func(start, min uint64) uint64{
			func(_, min uint64) uint64 { return min },
			func(uint64, uint64) uint64 { return 0 },
		} {
			async := &kvrpcpb.PrewriteRequest{StartVersion: c.timestamp(), UseAsyncCommit: true}
			p := c.prewriteAt(async, "e")
			ctx, kv := c.at(KeyTxn, "e")
			r, err := kv.KvResolveLock(t.Context(), &kvrpcpb.ResolveLockRequest{Context: ctx, StartVersion: async.StartVersion, CommitVersion: decide(async.StartVersion, p.MinCommitTs)})
			if err != nil || r.Error != nil {
				t.Fatal(r, err)
			}
			count(3, i)
		}
	})
}

// A store that became a leader does not know what was read under the one before, until
// PD gives it a timestamp.
func TestMaxTimestampNotSynced(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, append(opts, WithMembers(3))...)
		begin := c.timestamp()
		if p := c.prewriteAt(&kvrpcpb.PrewriteRequest{StartVersion: begin, TryOnePc: true}, "a"); p.OnePcCommitTs == 0 {
			t.Fatal(p)
		}
		later := c.timestamp()
		begin = c.timestamp()
		read := c.timestamp()
		if g := c.get(read, "a"); string(g.Value) != "1" {
			t.Fatal(g)
		}
		region := c.Regions(KeyTxn)[0]
		to := region.Stores[0]
		if to == region.Leader {
			to = region.Stores[1]
		}
		if err := c.TransferLeader(region.ID, to); err != nil {
			t.Fatal(err)
		}
		// The client still reaches PD's first member; its majority is gone.
		ctx, kv := c.at(KeyTxn, "a")
		for _, m := range []int{1, 2} {
			if err := c.Stop(Member(m)); err != nil {
				t.Fatal(err)
			}
		}
		c.Advance(5 * time.Second) // its lease ends
		ask := func(set func(*kvrpcpb.PrewriteRequest)) *kvrpcpb.PrewriteResponse {
			t.Helper()
			key := c.api.wireKey(KeyTxn, []byte("b"))
			req := &kvrpcpb.PrewriteRequest{Context: ctx, StartVersion: begin, PrimaryLock: key, LockTtl: 3000,
				Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: key, Value: []byte("2")}}}
			set(req)
			resp, err := kv.KvPrewrite(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		for range 2 {
			if p := ask(func(q *kvrpcpb.PrewriteRequest) { q.UseAsyncCommit = true }); kindOf(p.RegionError) != MaxTimestampNotSynced {
				t.Fatal(p)
			}
			if p := ask(func(q *kvrpcpb.PrewriteRequest) { q.TryOnePc = true }); kindOf(p.RegionError) != MaxTimestampNotSynced {
				t.Fatal(p)
			}
		}
		if p := ask(func(q *kvrpcpb.PrewriteRequest) { q.StartVersion = later }); p.RegionError != nil || len(p.Errors) > 0 {
			t.Fatal(p) // two phases need it not
		}
		r, err := kv.KvBatchRollback(t.Context(), &kvrpcpb.BatchRollbackRequest{Context: ctx, StartVersion: later, Keys: [][]byte{c.api.wireKey(KeyTxn, []byte("b"))}})
		if err != nil || r.Error != nil {
			t.Fatal(r, err)
		}
		if err := c.Start(Member(1)); err != nil {
			t.Fatal(err)
		}
		p := ask(func(q *kvrpcpb.PrewriteRequest) { q.TryOnePc = true })
		if p.OnePcCommitTs <= read {
			t.Fatalf("%v, read at %d under the leader before", p, read)
		}
	})
}

// What follows a read of a replica commits above it, though the leader never saw it.
func TestReplicaReadsRaiseTheLeadersMaxTS(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		begin := c.timestamp()
		if p := c.prewriteAt(&kvrpcpb.PrewriteRequest{StartVersion: begin, TryOnePc: true}, "a"); p.OnePcCommitTs == 0 {
			t.Fatal(p)
		}
		begin = c.timestamp()
		read := c.timestamp()
		region := c.topo.ByKey(c.api.regionKey(KeyTxn, []byte("a")))
		for _, peer := range region.Meta.Peers {
			if peer.StoreId == region.LeaderStore() {
				continue
			}
			ctx := c.context(region.Meta, peer)
			ctx.ReplicaRead = true
			resp, err := c.tikv(peer.StoreId).KvGet(t.Context(), &kvrpcpb.GetRequest{Context: ctx, Version: read, Key: c.api.wireKey(KeyTxn, []byte("a"))})
			if err != nil || string(resp.Value) != "1" {
				t.Fatal(resp, err)
			}
			break
		}
		if p := c.prewriteAt(&kvrpcpb.PrewriteRequest{StartVersion: begin, TryOnePc: true}, "a"); p.OnePcCommitTs != read+1 {
			t.Fatalf("%v, read at %d", p, read)
		}
	})
}

// A pipelined transaction, by unary calls and in batches.
func TestPipelined(t *testing.T) {
	everywhere(t, func(t *testing.T, opts ...Option) {
		c := start(t, opts...)
		begin := c.timestamp()
		ctx, kv := c.at(KeyTxn, "a")
		key := c.api.wireKey(KeyTxn, []byte("a"))
		flush := &kvrpcpb.FlushRequest{Context: ctx, StartTs: begin, PrimaryKey: key, Generation: 1, LockTtl: 3000,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: key, Value: []byte("1")}}}
		if r, err := kv.KvFlush(t.Context(), flush); err != nil || r.RegionError != nil || len(r.Errors) > 0 {
			t.Fatal(r, err)
		}
		buffer := &kvrpcpb.BufferBatchGetRequest{Context: ctx, Version: begin, Keys: [][]byte{key}}
		if r, err := kv.KvBufferBatchGet(t.Context(), buffer); err != nil || len(r.Pairs) != 1 || string(r.Pairs[0].Value) != "1" {
			t.Fatal(r, err)
		}
		status := &kvrpcpb.BroadcastTxnStatusRequest{TxnStatus: []*kvrpcpb.TxnStatus{{StartTs: begin, MinCommitTs: begin + 1}}}
		if _, err := kv.BroadcastTxnStatus(t.Context(), status); err != nil {
			t.Fatal(err)
		}
		stream, err := kv.BatchCommands(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&tikvpb.BatchCommandsRequest{RequestIds: []uint64{1, 2, 3}, Requests: []*tikvpb.BatchCommandsRequest_Request{
			{Cmd: &tikvpb.BatchCommandsRequest_Request_Flush{Flush: flush}},
			{Cmd: &tikvpb.BatchCommandsRequest_Request_BufferBatchGet{BufferBatchGet: buffer}},
			{Cmd: &tikvpb.BatchCommandsRequest_Request_BroadcastTxnStatus{BroadcastTxnStatus: status}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for left := 3; left > 0; {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range resp.Responses {
				left--
				if r.GetFlush() == nil && r.GetBufferBatchGet() == nil && r.GetBroadcastTxnStatus() == nil {
					t.Error(r)
				}
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if r := c.commit(begin, c.timestamp(), "a"); r.Error != nil {
			t.Fatal(r)
		}
		if g := c.get(c.timestamp(), "a"); string(g.Value) != "1" || c.Counts().Commits != 1 {
			t.Error(g, c.Counts())
		}
	})
}
