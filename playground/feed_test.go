package playground

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// feed is a stream of a store's change feed.
type feed struct {
	c    *testCluster
	send func(*cdcpb.ChangeDataRequest) error
	end  func() error

	mu       sync.Mutex
	messages []*cdcpb.ChangeDataEvent
	err      error
}

// feed opens EventFeedV2 with features, or without any EventFeed.
func (c *testCluster) feed(store uint64, features ...string) *feed {
	c.t.Helper()
	client := cdcpb.NewChangeDataClient(c.conn(c.store(store).Server().Addr()))
	f := &feed{c: c}
	var recv func() (*cdcpb.ChangeDataEvent, error)
	if len(features) == 0 {
		s, err := client.EventFeed(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		f.send, f.end, recv = s.Send, s.CloseSend, s.Recv
	} else {
		ctx := metadata.AppendToOutgoingContext(c.t.Context(), "features", strings.Join(features, ","))
		s, err := client.EventFeedV2(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		f.send, f.end, recv = s.Send, s.CloseSend, s.Recv
	}
	go func() {
		for {
			m, err := recv()
			f.mu.Lock()
			if err == nil {
				f.messages = append(f.messages, m)
			}
			f.err = err
			f.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return f
}

// register asks for the region of a key.
func (f *feed) register(region uint64, after uint64, change ...func(*cdcpb.ChangeDataRequest)) {
	f.c.t.Helper()
	q := &cdcpb.ChangeDataRequest{
		Header:   &cdcpb.Header{ClusterId: f.c.ID(), TicdcVersion: "8.5.0"},
		RegionId: region, CheckpointTs: after, Request: &cdcpb.ChangeDataRequest_Register_{Register: &cdcpb.ChangeDataRequest_Register{}},
	}
	if r := f.c.topo.ByID(region); r != nil {
		q.RegionEpoch = r.Meta.RegionEpoch
	}
	for _, change := range change {
		change(q)
	}
	if err := f.send(q); err != nil {
		f.c.t.Fatal(err)
	}
}

func request(id uint64) func(*cdcpb.ChangeDataRequest) {
	return func(q *cdcpb.ChangeDataRequest) { q.RequestId = id }
}

// take returns what has come and forgets it.
func (f *feed) take() ([]*cdcpb.ChangeDataEvent, error) {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	messages := f.messages
	f.messages = nil
	return messages, f.err
}

// want compares what has come, resolved timestamps aside, with lines such as
// "1: PREWRITE PUT a=v was w 10" (request, row, start timestamp, commit timestamp), in
// any order within an event.
func (f *feed) want(lines ...string) {
	f.c.t.Helper()
	messages, _ := f.take()
	var got []string
	for _, m := range messages {
		for _, e := range m.Events {
			part := describe(f.c, e)
			slices.Sort(part)
			got = append(got, part...)
		}
	}
	if !slices.Equal(got, lines) {
		f.c.t.Errorf("came:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
	}
}

// resolved returns the resolved timestamps that have come, the largest by region.
func (f *feed) resolved() map[uint64]uint64 {
	messages, _ := f.take()
	all := make(map[uint64]uint64)
	for _, m := range messages {
		for _, r := range m.GetResolvedTs().GetRegions() {
			all[r] = max(all[r], m.ResolvedTs.Ts)
		}
	}
	return all
}

func describe(c *testCluster, e *cdcpb.Event) []string {
	var lines []string
	for _, row := range e.GetEntries().GetEntries() {
		line := fmt.Sprintf("%d: %v", e.RequestId, row.Type)
		if row.Type != cdcpb.Event_INITIALIZED {
			line += fmt.Sprintf(" %v %s", row.OpType, c.api.userKey(row.Key))
			if row.Value != nil {
				line += "=" + short(row.Value)
			}
			if row.OldValue != nil {
				line += " was " + short(row.OldValue)
			}
			line += " " + stamp(row.StartTs)
			if row.CommitTs != 0 {
				line += " " + stamp(row.CommitTs)
			}
			if row.TxnSource != 0 {
				line += fmt.Sprintf(" from %x", row.TxnSource)
			}
			if row.ExpireTsUnixSecs != 0 {
				line += " expires"
			}
		}
		lines = append(lines, line)
	}
	if err := e.GetError(); err != nil {
		lines = append(lines, fmt.Sprintf("%d: %s", e.RequestId, describeError(err)))
	}
	return lines
}

func describeError(e *cdcpb.Error) string {
	switch {
	case e.NotLeader != nil:
		return fmt.Sprintf("NotLeader store %d", e.NotLeader.GetLeader().GetStoreId())
	case e.EpochNotMatch != nil:
		return fmt.Sprintf("EpochNotMatch %d regions", len(e.EpochNotMatch.CurrentRegions))
	case e.RegionNotFound != nil:
		return "RegionNotFound"
	case e.DuplicateRequest != nil:
		return "DuplicateRequest"
	case e.Compatibility != nil:
		return "Compatibility " + e.Compatibility.RequiredVersion
	case e.ClusterIdMismatch != nil:
		return "ClusterIDMismatch"
	case e.ServerIsBusy != nil:
		return "ServerIsBusy " + e.ServerIsBusy.Reason
	case e.Congested != nil:
		return "Congested"
	}
	return "no error"
}

// short is a value: of a long one its length.
func short(v []byte) string {
	if len(v) > 100 {
		return fmt.Sprintf("%d*%c", len(v), v[0])
	}
	return string(v)
}

// stamp is a timestamp; one of PD's is T.
func stamp(ts uint64) string {
	if ts > 1<<40 {
		return "T"
	}
	return fmt.Sprint(ts)
}

// writer sends transactional requests for keys of one region.
type writer struct{ *testCluster }

func (w writer) mutation(op kvrpcpb.Op, key, value string) *kvrpcpb.Mutation {
	return &kvrpcpb.Mutation{Op: op, Key: w.api.wireKey(KeyTxn, []byte(key)), Value: []byte(value)}
}

func (w writer) put(start uint64, key, value string, change ...func(*kvrpcpb.PrewriteRequest)) *kvrpcpb.PrewriteResponse {
	w.t.Helper()
	return w.prewrites(start, append(change, func(q *kvrpcpb.PrewriteRequest) {
		q.Mutations = append(q.Mutations, w.mutation(kvrpcpb.Op_Put, key, value))
	})...)
}

func (w writer) op(op kvrpcpb.Op, start uint64, key string) {
	w.t.Helper()
	w.prewrites(start, func(q *kvrpcpb.PrewriteRequest) { q.Mutations = append(q.Mutations, w.mutation(op, key, "")) })
}

func (w writer) prewrites(start uint64, change ...func(*kvrpcpb.PrewriteRequest)) *kvrpcpb.PrewriteResponse {
	w.t.Helper()
	q := &kvrpcpb.PrewriteRequest{StartVersion: start, LockTtl: 3000}
	for _, change := range slices.Backward(change) {
		change(q)
	}
	if q.PrimaryLock == nil {
		q.PrimaryLock = q.Mutations[0].Key
	}
	rctx, kv := w.at(KeyTxn, string(w.api.userKey(q.Mutations[0].Key)))
	rctx.TxnSource, q.Context = q.GetContext().GetTxnSource(), rctx
	p, err := kv.KvPrewrite(w.t.Context(), q)
	if err != nil || p.RegionError != nil || len(p.Errors) > 0 {
		w.t.Fatal(p, err)
	}
	return p
}

func (w writer) committed(start, commit uint64, key string) {
	w.t.Helper()
	if r := w.commit(start, commit, key); r.Error != nil || r.RegionError != nil {
		w.t.Fatal(r)
	}
}

func (w writer) rollback(start uint64, key string) {
	w.t.Helper()
	rctx, kv := w.at(KeyTxn, key)
	r, err := kv.KvBatchRollback(w.t.Context(), &kvrpcpb.BatchRollbackRequest{Context: rctx, StartVersion: start, Keys: [][]byte{w.api.wireKey(KeyTxn, []byte(key))}})
	if err != nil || r.Error != nil || r.RegionError != nil {
		w.t.Fatal(r, err)
	}
}

func source(of uint64) func(*kvrpcpb.PrewriteRequest) {
	return func(q *kvrpcpb.PrewriteRequest) { q.Context = &kvrpcpb.Context{TxnSource: of} }
}

func (c *testCluster) only(key string) (region, store uint64) {
	r := c.topo.ByKey(c.api.regionKey(KeyTxn, []byte(key)))
	return r.ID(), r.LeaderStore()
}

// feeding runs a test on the clusters that there can be, in fake time.
func feeding(t *testing.T, f func(c *testCluster, w writer)) {
	t.Helper()
	for _, api := range []APIVersion{APIV1, APIV2} {
		for _, dir := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/dir=%v", api, dir), func(t *testing.T) {
				path := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					opts := []Option{WithAPIVersion(api)}
					if dir {
						opts = append(opts, WithDir(path, false))
					}
					c := start(t, opts...)
					f(c, writer{c})
				})
			})
		}
	}
}

// A subscription begins with what is there: of each key its lock, whenever it was made,
// and its versions after the checkpoint, newest first.
func TestFeedScan(t *testing.T) {
	feeding(t, func(c *testCluster, w writer) {
		long := strings.Repeat("x", 300)
		w.put(10, "a", "old")
		w.committed(10, 20, "a")
		w.put(30, "a", "1")
		w.committed(30, 40, "a")
		w.put(50, "a", long)
		w.committed(50, 60, "a")
		w.op(kvrpcpb.Op_Del, 62, "a")
		w.committed(62, 64, "a")
		w.put(70, "a", "live")
		w.op(kvrpcpb.Op_Lock, 10, "b") // a lock that will be no value
		w.op(kvrpcpb.Op_Lock, 10, "c") // and a record that is none
		w.committed(10, 70, "c")
		w.put(10, "d", "rolled back")
		w.rollback(10, "d")
		w.put(5, "e", "under the checkpoint, but live")
		w.put(10, "f", "under the checkpoint")
		w.committed(10, 20, "f")
		w.op(kvrpcpb.Op_Del, 30, "f")
		w.put(31, "g", long)
		w.put(32, "h", "by a feed", source(3))
		w.put(33, "i", "by an import", source(1<<16))
		w.put(34, "j", "by a lossy change", source(1<<8))
		region, store := c.only("a")
		f := c.feed(store, "stream-multiplexing")
		f.register(region, 20, request(1))
		f.register(region, 20, request(2), func(q *cdcpb.ChangeDataRequest) {
			q.FilterLoop = true
			q.StartKey, q.EndKey = c.api.regionKey(KeyTxn, []byte("f")), c.api.regionKey(KeyTxn, []byte("i"))
		})
		synctest.Wait()
		messages, _ := f.take()
		got := make(map[uint64][]string)
		for _, m := range messages {
			for _, e := range m.Events {
				if e.RegionId != region {
					c.t.Error(e)
				}
				got[e.RequestId] = append(got[e.RequestId], describe(c, e)...)
			}
		}
		for id, want := range map[uint64][]string{
			1: {
				"1: PREWRITE PUT a=live 70",
				"1: COMMITTED DELETE a was 300*x 62 64",
				"1: COMMITTED PUT a=300*x was 1 50 60",
				"1: COMMITTED PUT a=1 was old 30 40",
				"1: PREWRITE PUT e=under the checkpoint, but live 5",
				"1: PREWRITE DELETE f was under the checkpoint 30",
				"1: PREWRITE PUT g=300*x 31",
				"1: PREWRITE PUT h=by a feed 32 from 3",
				"1: INITIALIZED",
			},
			2: {
				"2: PREWRITE DELETE f was under the checkpoint 30",
				"2: PREWRITE PUT g=300*x 31",
				"2: INITIALIZED",
			},
		} {
			if !slices.Equal(got[id], want) {
				c.t.Errorf("came:\n\t%s\nwant:\n\t%s", strings.Join(got[id], "\n\t"), strings.Join(want, "\n\t"))
			}
		}
	})
}

// What is applied comes as it is applied: prewrites with the value before, their ends,
// one-phase commits in one row.
func TestFeedChanges(t *testing.T) {
	feeding(t, func(c *testCluster, w writer) {
		long := strings.Repeat("y", 300)
		region, store := c.only("a")
		f := c.feed(store, "stream-multiplexing")
		f.register(region, 0, request(1))
		f.register(region, 0, request(2), func(q *cdcpb.ChangeDataRequest) {
			q.FilterLoop = true
			q.StartKey, q.EndKey = c.api.regionKey(KeyTxn, []byte("m")), c.api.regionKey(KeyTxn, []byte("n"))
		})
		synctest.Wait()
		f.take()
		w.put(10, "a", "1")
		f.want("1: PREWRITE PUT a=1 10")
		w.committed(10, 20, "a")
		f.want("1: COMMIT PUT a=1 10 20")
		w.put(30, "a", long)
		w.committed(30, 40, "a")
		f.want("1: PREWRITE PUT a=300*y was 1 30", "1: COMMIT PUT a 30 40")
		w.op(kvrpcpb.Op_Del, 50, "a")
		w.rollback(50, "a")
		f.want("1: PREWRITE DELETE a was 300*y 50", "1: ROLLBACK UNKNOWN a=p 50")
		// Of a commit of the lock kind there is an empty row, for those who want the region.
		w.op(kvrpcpb.Op_Lock, 60, "a")
		f.want()
		w.committed(60, 62, "a")
		f.want("1: UNKNOWN UNKNOWN  0")
		w.put(70, "m", "2", source(0x10))
		f.want("1: PREWRITE PUT m=2 70 from 10") // 2 does not want what a feed wrote
		w.committed(70, 80, "m")
		f.want("1: COMMIT PUT m=2 70 80 from 10")
		w.op(kvrpcpb.Op_Del, 90, "m")
		f.want("1: PREWRITE DELETE m was 2 90", "2: PREWRITE DELETE m was 2 90")
		w.rollback(90, "m")
		f.want("1: ROLLBACK UNKNOWN m=p 90", "2: ROLLBACK UNKNOWN m=p 90")
		w.rollback(91, "m") // of a transaction that was not here
		f.want("1: ROLLBACK UNKNOWN m 91", "2: ROLLBACK UNKNOWN m 91")

		// One phase, and one batch of two keys, which is one event.
		w.prewrites(100, func(q *kvrpcpb.PrewriteRequest) {
			q.TryOnePc = true
			q.Mutations = []*kvrpcpb.Mutation{w.mutation(kvrpcpb.Op_Put, "m", long), w.mutation(kvrpcpb.Op_Del, "a", "")}
		})
		f.want("1: COMMITTED DELETE a was 300*y 100 T", "1: COMMITTED PUT m=300*y was 2 100 T", "2: COMMITTED PUT m=300*y was 2 100 T")

		// Async commit: a lock with a least commit timestamp.
		p := w.put(110, "b", "3", func(q *kvrpcpb.PrewriteRequest) { q.UseAsyncCommit = true })
		if p.MinCommitTs == 0 {
			c.t.Fatal(p)
		}
		// A rollback that the commit may fall upon is noted in the lock, which is sent anew.
		late := p.MinCommitTs + 5
		rctx, kv := c.at(KeyTxn, "b")
		key := c.api.wireKey(KeyTxn, []byte("b"))
		r, err := kv.KvCheckTxnStatus(c.t.Context(), &kvrpcpb.CheckTxnStatusRequest{Context: rctx, PrimaryKey: key, LockTs: late, RollbackIfNotExist: true})
		if err != nil || r.Error != nil {
			c.t.Fatal(r, err)
		}
		f.want("1: PREWRITE PUT b=3 110", "1: ROLLBACK UNKNOWN b=p T")
		w.committed(110, late, "b")
		f.want("1: COMMIT PUT b=3 110 T")
		// The rollback of one that began when another committed is told of by itself.
		w.put(late+10, "b", "4")
		w.committed(late+10, late+20, "b")
		f.want("1: PREWRITE PUT b=4 was 3 T", "1: COMMIT PUT b=4 T T")
		r, err = kv.KvCheckTxnStatus(c.t.Context(), &kvrpcpb.CheckTxnStatusRequest{Context: rctx, PrimaryKey: key, LockTs: late + 20, RollbackIfNotExist: true})
		if err != nil || r.Error != nil {
			c.t.Fatal(r, err)
		}
		f.want("1: ROLLBACK UNKNOWN b T")

		// A pessimistic lock is not told of; the prewrite's value before is that at its
		// for-update timestamp.
		l, err := kv.KvPessimisticLock(c.t.Context(), &kvrpcpb.PessimisticLockRequest{Context: rctx, StartVersion: 120, ForUpdateTs: late + 30, LockTtl: 3000,
			PrimaryLock: key, Mutations: []*kvrpcpb.Mutation{w.mutation(kvrpcpb.Op_PessimisticLock, "b", "")}})
		if err != nil || len(l.Errors) > 0 || l.RegionError != nil {
			c.t.Fatal(l, err)
		}
		f.want()
		w.put(120, "b", "5", func(q *kvrpcpb.PrewriteRequest) {
			q.ForUpdateTs, q.PessimisticActions = late+30, []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK}
		})
		f.want("1: PREWRITE PUT b=5 was 4 120")
		w.committed(120, late+40, "b")
		f.want("1: COMMIT PUT b=5 120 T")

		// A flushed key may come again, the last counts.
		for i := range uint64(2) {
			fl, err := kv.KvFlush(c.t.Context(), &kvrpcpb.FlushRequest{Context: rctx, StartTs: late + 50, PrimaryKey: c.api.wireKey(KeyTxn, []byte("c")), LockTtl: 3000, Generation: i + 1,
				Mutations: []*kvrpcpb.Mutation{w.mutation(kvrpcpb.Op_Put, "c", fmt.Sprint("flush ", i))}})
			if err != nil || len(fl.Errors) > 0 || fl.RegionError != nil {
				c.t.Fatal(fl, err)
			}
		}
		f.want("1: PREWRITE PUT c=flush 0 T", "1: PREWRITE PUT c=flush 1 T")
	})
}

// A flashback prewrites one key, and tells of all others as if they were committed in one
// phase (TiKV src/storage/txn/commands/flashback_to_version.rs, process_write).
func TestFeedFlashback(t *testing.T) {
	feeding(t, func(c *testCluster, w writer) {
		var version uint64
		for i, value := range []string{"old", "new"} {
			for _, k := range []string{"a", "b"} {
				s := c.timestamp()
				w.put(s, k, value)
				w.committed(s, c.timestamp(), k)
			}
			if i == 0 {
				version = c.timestamp()
			}
		}
		s := c.timestamp()
		w.put(s, "c", "later")
		w.committed(s, c.timestamp(), "c")
		region, store := c.only("a")
		f := c.feed(store, "stream-multiplexing")
		f.register(region, c.timestamp(), request(1))
		f.want("1: INITIALIZED")
		s = c.timestamp()
		if p := c.prepareFlashback(s, version, nil); p.Error != "" || p.RegionError != nil {
			c.t.Fatal(p)
		}
		f.want("1: PREWRITE PUT a=old was new T")
		if p := c.flashback(s, c.timestamp(), version); p.Error != "" || p.RegionError != nil {
			c.t.Fatal(p)
		}
		f.want("1: COMMITTED DELETE c was later T T", "1: COMMITTED PUT b=old was new T T", "1: COMMIT PUT a=old T T")
	})
}

// A key that a rolled-back transaction's flag falls upon was tested above; here are the
// checks of a registration, in TiKV's order.
func TestFeedRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		region, store := c.only("a")
		f := c.feed(store, "stream-multiplexing")
		bad := func(change ...func(*cdcpb.ChangeDataRequest)) []func(*cdcpb.ChangeDataRequest) { return change }
		cluster := func(id uint64) func(*cdcpb.ChangeDataRequest) {
			return func(q *cdcpb.ChangeDataRequest) { q.Header.ClusterId = id }
		}
		api := func(kv cdcpb.ChangeDataRequest_KvAPI) func(*cdcpb.ChangeDataRequest) {
			return func(q *cdcpb.ChangeDataRequest) { q.KvApi = kv }
		}
		epoch := func(version, conf uint64) func(*cdcpb.ChangeDataRequest) {
			return func(q *cdcpb.ChangeDataRequest) {
				q.RegionEpoch = &metapb.RegionEpoch{Version: q.RegionEpoch.GetVersion() + version, ConfVer: conf}
			}
		}
		for i, test := range []struct {
			region uint64
			change []func(*cdcpb.ChangeDataRequest)
			want   []string
		}{
			{region, bad(cluster(0), api(cdcpb.ChangeDataRequest_TxnKV)), []string{"ClusterIDMismatch"}},
			{region, bad(cluster(7)), []string{"ClusterIDMismatch"}},
			{region + 100, bad(api(cdcpb.ChangeDataRequest_TxnKV)), []string{"Compatibility 6.2.0"}},
			{region, bad(api(cdcpb.ChangeDataRequest_RawKV)), []string{"Compatibility 6.2.0"}},
			{region + 100, nil, []string{"RegionNotFound"}},
			{region, bad(epoch(1, 0)), []string{"EpochNotMatch 1 regions"}},
			{region, bad(func(q *cdcpb.ChangeDataRequest) { q.RegionEpoch = nil }), []string{"EpochNotMatch 1 regions"}},
			{region, bad(epoch(0, 99)), []string{"INITIALIZED"}}, // the conf version does not count
			{region, bad(request(7)), []string{"DuplicateRequest"}},
			{region, bad(request(7), epoch(1, 0)), []string{"DuplicateRequest"}},
			{region, bad(epoch(1, 0)), []string{"EpochNotMatch 1 regions"}}, // does not end the other
		} {
			id := uint64(i)
			change := append([]func(*cdcpb.ChangeDataRequest){request(id)}, test.change...)
			f.register(test.region, 0, change...)
			want := slices.Clone(test.want)
			for j := range want {
				if slices.Contains(test.want, "DuplicateRequest") {
					id = 7
				}
				want[j] = fmt.Sprintf("%d: %s", id, want[j])
			}
			f.want(want...)
		}
		w := writer{c}
		w.put(10, "k", "v")
		f.want("7: PREWRITE PUT k=v 10")
		// A request id of zero is one as well; without a oneof member it is a registration.
		f.register(region, 0, func(q *cdcpb.ChangeDataRequest) { q.Request = nil })
		f.want("0: INITIALIZED", "0: PREWRITE PUT k=v 10")
		// Not the leader's store.
		other := store%3 + 1
		g := c.feed(other, "stream-multiplexing")
		g.register(region, 0, request(1))
		g.want(fmt.Sprintf("1: NotLeader store %d", store))
	})
}

// A subscription is ended by its ids, several by the request id alone. What is ended may
// begin anew.
func TestFeedDeregister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyTxn, []byte("m")))
		one, store := c.only("a")
		two, _ := c.only("m")
		c.must(c.TransferLeader(two, store))
		f := c.feed(store, "stream-multiplexing")
		for _, region := range []uint64{one, two} {
			for id := range uint64(2) {
				f.register(region, 0, request(id))
			}
		}
		synctest.Wait()
		f.take()
		deregister := func(region, request uint64) {
			t.Helper()
			if err := f.send(&cdcpb.ChangeDataRequest{RegionId: region, RequestId: request, Request: &cdcpb.ChangeDataRequest_Deregister_{Deregister: &cdcpb.ChangeDataRequest_Deregister{}}}); err != nil {
				t.Fatal(err)
			}
		}
		deregister(one, 5)
		deregister(0, 5)
		deregister(one+100, 0)
		f.want()
		deregister(one, 1)
		f.want("1: RegionNotFound")
		w := writer{c}
		w.put(10, "a", "v")
		f.want("0: PREWRITE PUT a=v 10")
		deregister(0, 0)
		f.want("0: RegionNotFound", "0: RegionNotFound")
		w.put(10, "m", "v")
		f.want("1: PREWRITE PUT m=v 10")
		f.register(one, 0, request(1))
		f.want("1: INITIALIZED", "1: PREWRITE PUT a=v 10")
		// The client's end is the end of all.
		if err := f.end(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := f.take(); err == nil || err.Error() != "EOF" {
			t.Error(err)
		}
	})
}

func TestFeedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		region, store := c.only("a")
		// What the server does not know it refuses by name.
		f := c.feed(store, "stream-multiplexing, stream-compression", "more")
		if _, err := f.take(); status.Code(err) != codes.Unimplemented || status.Convert(err).Message() != "stream-compression,more" {
			t.Error(err)
		}
		// Before 4.0.8 each region has its event, and the cluster's id is not checked before 5.3.0.
		for version, want := range map[string]string{"4.0.7": "event", "4.0.8": "message", "5.2.0": "message", "5.3.0-alpha": "message", "": "event", "nonsense": "event", "5.3.0": "ClusterIDMismatch"} {
			f := c.feed(store)
			f.register(region, 0, request(3), func(q *cdcpb.ChangeDataRequest) { q.Header = &cdcpb.Header{TicdcVersion: version} })
			f.take()
			<-time.After(1100 * time.Millisecond)
			messages, err := f.take()
			if want == "ClusterIDMismatch" {
				if len(messages) > 0 {
					t.Error(version, messages)
				}
				continue
			}
			if len(messages) != 1 || err != nil {
				t.Fatal(version, messages, err)
			}
			m := messages[0]
			//lint:ignore SA1019 the form for old clients
			event := len(m.Events) == 1 && m.Events[0].GetResolvedTs() > 1<<40 && m.Events[0].RequestId == 3 && m.Events[0].RegionId == region
			message := m.ResolvedTs != nil && slices.Equal(m.ResolvedTs.Regions, []uint64{region}) && m.ResolvedTs.Ts > 1<<40 && m.ResolvedTs.RequestId == 0
			if want == "event" && !event || want == "message" && !message {
				t.Errorf("%q: %v, want an %s", version, m, want)
			}
		}
		// The first message's version is that of the stream.
		f = c.feed(store, "stream-multiplexing")
		f.register(region, 0, request(1), func(q *cdcpb.ChangeDataRequest) { q.Header = &cdcpb.Header{TicdcVersion: "4.0.0"} })
		f.want("1: INITIALIZED")
		f.register(region, 0, request(2)) // scans of two run beside each other
		f.want("2: INITIALIZED")
		<-time.After(3 * time.Second)
		if messages, _ := f.take(); len(messages) > 0 { // multiplexed, but too old for batches
			t.Error(messages)
		}
		// TiKV has no answer to this.
		if err := f.send(&cdcpb.ChangeDataRequest{Request: &cdcpb.ChangeDataRequest_NotifyTxnStatus_{NotifyTxnStatus: &cdcpb.ChangeDataRequest_NotifyTxnStatus{}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.take(); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
}

// Resolved timestamps follow the cluster's clock each second, wait for locks, and never
// go back.
func TestFeedResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithSplitKeys(KeyTxn, []byte("m")))
		one, store := c.only("a")
		two, _ := c.only("m")
		c.must(c.TransferLeader(two, store))
		f := c.feed(store, "stream-multiplexing")
		f.register(one, 0, request(1))
		f.register(two, 0, request(1))
		f.take()
		tick := func() map[uint64]uint64 {
			t.Helper()
			<-time.After(time.Second)
			return f.resolved()
		}
		ms := func(ts uint64) time.Time { return time.UnixMilli(int64(ts >> 18)) }
		first := tick()
		if first[one] != first[two] || c.Now().Sub(ms(first[one])) > time.Second {
			t.Fatal(first, c.Now())
		}
		w := writer{c}
		begin := c.timestamp()
		w.put(begin, "a", "v")
		locked := tick()
		if locked[one] != begin || locked[two] != begin {
			// Both are in one group: its timestamp is the least.
			t.Errorf("%v, the lock is of %d", locked, begin)
		}
		if again := tick(); again[one] != begin {
			t.Error(again, begin)
		}
		commit := c.timestamp()
		w.committed(begin, commit, "a")
		if after := tick(); after[one] <= commit || after[two] != after[one] {
			t.Error(after, commit)
		}
		// A pessimistic transaction may prewrite under an old start: what is resolved stays.
		old := c.timestamp()
		now := tick()[one]
		w.put(old, "b", "v", func(q *kvrpcpb.PrewriteRequest) {
			q.ForUpdateTs, q.PessimisticActions = c.timestamp(), []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_SKIP_PESSIMISTIC_CHECK}
		})
		if after := tick(); after[one] != now {
			t.Error(after, now)
		}
		w.rollback(old, "b")
		// Locks that will be no values hold nothing back, nor does one out of range.
		w.op(kvrpcpb.Op_Lock, c.timestamp(), "c")
		if after := tick(); after[one] <= now {
			t.Error(after, now)
		}
		f.register(one, 0, request(2), func(q *cdcpb.ChangeDataRequest) { q.StartKey = c.api.regionKey(KeyTxn, []byte("k")) })
		begin = c.timestamp()
		w.put(begin, "j", "v")
		<-time.After(time.Second)
		messages, _ := f.take()
		by := make(map[uint64]uint64)
		for _, m := range messages {
			if m.ResolvedTs != nil && slices.Contains(m.ResolvedTs.Regions, one) {
				by[m.ResolvedTs.RequestId] = m.ResolvedTs.Ts
			}
		}
		if by[1] != begin || by[2] <= begin {
			t.Error(by, begin)
		}
		w.rollback(begin, "j")
		// The clock that counts is the cluster's; while PD gives no timestamps nothing is resolved.
		c.Advance(time.Hour)
		if after := tick(); ms(after[one]).Sub(c.Now()).Abs() > time.Second {
			t.Error(ms(after[one]), c.Now())
		}
		c.StallTSO(true)
		if after := tick(); len(after) > 0 {
			t.Error(after)
		}
		c.StallTSO(false)
		if after := tick(); after[one] == 0 {
			t.Error(after)
		}
		// Reads of resolved data are consistent: what commits at the server's choice is later.
		last := tick()[one]
		if p := w.put(c.timestamp(), "a", "v", func(q *kvrpcpb.PrewriteRequest) { q.TryOnePc = true }); p.OnePcCommitTs <= last {
			t.Error(p, last)
		}
	})
}

// Regions are told in groups, the slowest first, so that few wait for one that lags.
func TestFeedResolvedGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at [][]byte
		for i := range 49 {
			at = append(at, fmt.Appendf(nil, "k%02d", i))
		}
		c := start(t, WithStores(1), WithSplitKeys(KeyTxn, at...))
		f := c.feed(1, "stream-multiplexing")
		for _, r := range c.Regions(KeyTxn) {
			f.register(r.ID, 0, request(1))
		}
		begin := c.timestamp()
		writer{c}.put(begin, "k10", "v")
		f.take()
		<-time.After(time.Second)
		messages, _ := f.take()
		if len(messages) != 3 {
			t.Fatal(messages)
		}
		locked, _ := c.only("k10")
		seen := make(map[uint64]bool)
		for i, n := range []int{8, 32, 10} {
			m := messages[i].ResolvedTs
			if len(m.Regions) != n || slices.Contains(m.Regions, locked) != (i == 0) || (m.Ts == begin) != (i == 0) || m.Ts < begin {
				t.Error(i, m)
			}
			for _, r := range m.Regions {
				seen[r] = true
			}
		}
		if len(seen) != 50 {
			t.Error(len(seen))
		}
	})
}

// What becomes of a region ends its subscriptions, behind all that was applied before.
func TestFeedRegionErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithSplitKeys(KeyTxn, []byte("g"), []byte("p")))
		w := writer{c}
		begin := uint64(10)
		var f *feed
		store := uint64(0)
		subscribe := func(keys ...string) {
			t.Helper()
			var region uint64
			region, store = c.only(keys[0])
			f = c.feed(store, "stream-multiplexing")
			f.register(region, 0, request(1))
			f.register(region, 0, request(2))
			f.take()
			begin++
			w.put(begin, keys[0], "v")
			w.rollback(begin, keys[0])
		}
		ends := func(want string) {
			t.Helper()
			f.want(
				fmt.Sprintf("1: PREWRITE PUT a=v %d", begin), fmt.Sprintf("2: PREWRITE PUT a=v %d", begin),
				fmt.Sprintf("1: ROLLBACK UNKNOWN a=p %d", begin), fmt.Sprintf("2: ROLLBACK UNKNOWN a=p %d", begin),
				"1: "+want, "2: "+want)
			begin++
			w.put(begin, "a", "v") // nothing comes any more
			w.rollback(begin, "a")
			<-time.After(3 * time.Second)
			if messages, err := f.take(); len(messages) > 0 || err != nil {
				t.Error(messages, err)
			}
		}
		subscribe("a")
		if _, err := c.Split(KeyTxn, []byte("b")); err != nil {
			t.Fatal(err)
		}
		ends("EpochNotMatch 2 regions")

		subscribe("a")
		region, _ := c.only("a")
		next, _ := c.only("c")
		c.must(c.Merge(next, region)) // the other stays
		ends("EpochNotMatch 0 regions")
		subscribe("a")
		next, _ = c.only("g")
		c.must(c.Merge(region, next)) // this one ends
		ends("EpochNotMatch 0 regions")

		subscribe("a")
		region, leader := c.only("a")
		to := uint64(0)
		for _, p := range c.topo.ByID(region).Meta.Peers {
			if p.StoreId != leader {
				to = p.StoreId
			}
		}
		c.must(c.TransferLeader(region, to))
		ends(fmt.Sprintf("NotLeader store %d", to))

		// More peers are nothing to it; the loss of its own is.
		subscribe("a")
		for s := range uint64(4) {
			c.must(c.AddPeer(region, s+1, Voter))
		}
		c.must(c.RemovePeer(region, store))
		_, leader = c.only("a")
		ends(fmt.Sprintf("NotLeader store %d", leader))

		// A store that pauses has lost its regions when it goes on.
		subscribe("a")
		f.take()
		c.must(c.Pause(Store(store)))
		<-time.After(time.Second)
		if messages, err := f.take(); len(messages) > 0 || err != nil {
			t.Error(messages, err)
		}
		c.must(c.Start(Store(store)))
		messages, err := f.take()
		if err != nil || len(messages) == 0 || messages[0].Events[0].GetError().GetNotLeader() == nil {
			t.Error(messages, err)
		}
		// One that stops ends the stream.
		subscribe("a")
		f.take()
		c.must(c.Stop(Store(store)))
		if _, err := f.take(); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
		// It is back, and serves as before.
		c.must(c.Start(Store(store)))
		<-time.After(5 * time.Second)
		c.must(c.TransferLeader(region, store))
		subscribe("a")
	})
}

// Faults match registrations: each message is a request.
func TestFeedFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		region, store := c.only("a")
		f := c.feed(store, "stream-multiplexing")
		trace := c.Trace()
		defer trace.Stop()
		inject := func(x Fault) *Injection {
			x.Method, x.Node, x.Region, x.Times = "EventFeedV2", Store(store), region, 1
			return c.Inject(x)
		}
		hold := inject(Fault{Hold: true})
		f.register(region, 0, request(1))
		synctest.Wait()
		f.register(region, 0, request(2))
		f.want("2: INITIALIZED") // it does not hold up the other
		if hold.Waiting() != 1 {
			t.Error(hold.Waiting())
		}
		hold.Release()
		f.want("1: INITIALIZED")

		inject(Fault{RegionError: ServerIsBusy})
		f.register(region, 0, request(3))
		f.want("3: ServerIsBusy scheduler is busy")
		inject(Fault{RegionError: EpochNotMatch})
		f.register(region, 0, request(3))
		f.want("3: EpochNotMatch 0 regions")
		inject(Fault{RegionError: DataIsNotReady})
		f.register(region, 0, request(3))
		f.want("3: RegionNotFound")
		inject(Fault{DropRequest: true})
		f.register(region, 0, request(3))
		f.want()
		inject(Fault{Duplicate: true})
		f.register(region, 0, request(3))
		messages, _ := f.take()
		var came []string
		for _, m := range messages {
			for _, e := range m.Events {
				came = append(came, describe(c, e)...)
			}
		}
		slices.Sort(came)
		if !slices.Equal(came, []string{"3: DuplicateRequest", "3: INITIALIZED"}) {
			t.Error(came)
		}
		// A subscription whose answer is lost is silent.
		inject(Fault{DropAnswer: true})
		f.register(region, 0, request(4))
		f.want()
		writer{c}.put(10, "a", "v")
		f.want("2: PREWRITE PUT a=v 10", "1: PREWRITE PUT a=v 10", "3: PREWRITE PUT a=v 10")
		<-time.After(time.Second)
		messages, _ = f.take()
		for _, m := range messages {
			if m.ResolvedTs.GetRequestId() == 4 {
				t.Error(m)
			}
		}
		f.register(region, 0, request(4))
		f.want("4: DuplicateRequest")
		inject(Fault{Disconnect: true})
		f.register(region, 0, request(5))
		if _, err := f.take(); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
		if n := c.Counts().Calls["EventFeedV2"]; n != 10 {
			t.Error(n)
		}
		var traced []RegionFault
		for _, r := range trace.Calls() {
			if r.Method == "EventFeedV2" && r.Region == region && r.Node == Store(store) {
				traced = append(traced, r.RegionError)
			}
		}
		if len(traced) != 10 || !slices.Contains(traced, ServerIsBusy) || !slices.Contains(traced, EpochNotMatch) {
			t.Error(traced)
		}
	})
}

// Raw keys have a feed in API V2.
func TestFeedRaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2))
		put := func(key, value string, ttl uint64) {
			t.Helper()
			ctx, kv := c.at(KeyRaw, key)
			r, err := kv.RawPut(t.Context(), &kvrpcpb.RawPutRequest{Context: ctx, Key: c.api.wireKey(KeyRaw, []byte(key)), Value: []byte(value), Ttl: ttl})
			if err != nil || r.Error != "" || r.RegionError != nil {
				t.Fatal(r, err)
			}
		}
		del := func(key string) {
			t.Helper()
			ctx, kv := c.at(KeyRaw, key)
			r, err := kv.RawDelete(t.Context(), &kvrpcpb.RawDeleteRequest{Context: ctx, Key: c.api.wireKey(KeyRaw, []byte(key))})
			if err != nil || r.Error != "" || r.RegionError != nil {
				t.Fatal(r, err)
			}
		}
		raw := func(q *cdcpb.ChangeDataRequest) { q.KvApi = cdcpb.ChangeDataRequest_RawKV }
		put("a", "before", 0)
		after := c.timestamp()
		put("b", "1", 0)
		put("b", "2", 60)
		put("c", "3", 0)
		del("c")
		r := c.topo.ByKey(c.api.regionKey(KeyRaw, []byte("a")))
		f := c.feed(r.LeaderStore(), "stream-multiplexing")
		f.register(r.ID(), after, request(1), raw)
		f.register(r.ID(), after, request(2), raw, func(q *cdcpb.ChangeDataRequest) { q.StartKey = c.api.regionKey(KeyRaw, []byte("c")) })
		f.register(r.ID(), after, request(3)) // of transactions
		messages, _ := f.take()
		got := make(map[uint64][]string)
		for _, m := range messages {
			for _, e := range m.Events {
				got[e.RequestId] = append(got[e.RequestId], describe(c, e)...)
			}
		}
		// A scan tells the newest version, and all of the region's.
		for id := range uint64(2) {
			id++
			want := []string{fmt.Sprintf("%d: COMMITTED PUT b=2 T T expires", id), fmt.Sprintf("%d: COMMITTED DELETE c= T T", id), fmt.Sprintf("%d: INITIALIZED", id)}
			for i := range got[id] {
				got[id][i] = strings.Replace(got[id][i], "DELETE c T", "DELETE c= T", 1)
			}
			if !slices.Equal(got[id], want) {
				t.Errorf("%q, want %q", got[id], want)
			}
		}
		if !slices.Equal(got[3], []string{"3: INITIALIZED"}) {
			t.Error(got[3])
		}
		put("a", "4", 0)
		f.want("1: COMMITTED PUT a=4 T T")
		put("d", "5", 60)
		f.want("1: COMMITTED PUT d=5 T T expires", "2: COMMITTED PUT d=5 T T expires")
		del("d")
		messages, _ = f.take()
		for _, m := range messages {
			for _, e := range m.Events {
				row := e.GetEntries().GetEntries()[0]
				if row.OpType != cdcpb.Event_Row_DELETE || row.StartTs != row.CommitTs || row.StartTs == 0 || e.Index == 0 {
					t.Error(e)
				}
			}
		}
		if len(messages) == 0 {
			t.Error("no deletion")
		}
		<-time.After(time.Second)
		if now := f.resolved(); now[r.ID()] == 0 {
			t.Error(now)
		}
	})
}

// How much a store keeps for clients that do not read, and how often it tells resolved
// timestamps, are the options'.
func TestFeedOptions(t *testing.T) {
	for _, bad := range []Option{WithFeedInterval(0), WithFeedInterval(-1), WithFeedQuota(0)} {
		if _, err := Start(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "WithFeed") {
			t.Error(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithFeedInterval(10*time.Millisecond), WithFeedQuota(1000))
		region, store := c.only("a")
		f := c.feed(store, "stream-multiplexing")
		f.register(region, 0, request(1))
		f.want("1: INITIALIZED")
		<-time.After(100 * time.Millisecond)
		if messages, _ := f.take(); len(messages) < 9 {
			t.Error(len(messages))
		}
		writer{c}.put(10, "a", strings.Repeat("v", 2000))
		f.want("1: Congested")
	})
}
