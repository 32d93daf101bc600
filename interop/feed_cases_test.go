package interop

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	tikverr "github.com/tikv/client-go/v2/error"
	"github.com/tikv/client-go/v2/kv"
	"github.com/tikv/client-go/v2/rawkv"
	"github.com/tikv/client-go/v2/txnkv/transaction"
	"github.com/tikv/client-go/v2/util/codec"
	"google.golang.org/grpc/metadata"
)

// feed is a change feed of one region, as a kvproto client has it; what it tells must be in
// order with the timestamps that it says are resolved.
type feed struct {
	*env
	stream   cdcpb.ChangeData_EventFeedV2Client
	api      cdcpb.ChangeDataRequest_KvAPI
	region   uint64
	resolved uint64
	rows     []*cdcpb.Event_Row // told and not taken
	failed   *cdcpb.Error

	initialized bool               // for a mirror: what was there before has been told
	early       []*cdcpb.Event_Row // told before it, of prewrites that are not told yet
}

// listen subscribes to the changes after a timestamp of the region of a wire key, at its
// leader.
func (e *env) listen(wire []byte, after uint64, api cdcpb.ChangeDataRequest_KvAPI) *feed {
	e.Helper()
	return e.listenTo(e.locate(wire).Meta, e.locate(wire).Leader.StoreId, after, api)
}

func (e *env) listenTo(r *metapb.Region, store, after uint64, api cdcpb.ChangeDataRequest_KvAPI) *feed {
	e.Helper()
	client := cdcpb.NewChangeDataClient(e.dial(e.addr(store)))
	stream, err := client.EventFeedV2(metadata.AppendToOutgoingContext(e.ctx(), "features", "stream-multiplexing"))
	e.must(err)
	f := &feed{env: e, stream: stream, api: api, region: r.Id}
	e.must(stream.Send(&cdcpb.ChangeDataRequest{
		Header:   &cdcpb.Header{ClusterId: e.c.ID, TicdcVersion: "8.5.0"},
		RegionId: r.Id, RegionEpoch: r.RegionEpoch, CheckpointTs: after, RequestId: 7, KvApi: api,
		ExtraOp: kvrpcpb.ExtraOp_ReadOldValue,
		Request: &cdcpb.ChangeDataRequest_Register_{Register: &cdcpb.ChangeDataRequest_Register{}},
	}))
	return f
}

// read takes one message.
func (f *feed) read() {
	f.Helper()
	m, err := f.stream.Recv()
	f.must(err)
	for _, ev := range m.Events {
		if ev.RegionId != f.region || ev.RequestId != 7 {
			f.Fatal(ev)
		}
		if ev.GetError() != nil {
			f.failed = ev.GetError()
		}
		for _, row := range ev.GetEntries().GetEntries() {
			if row.CommitTs != 0 && row.CommitTs <= f.resolved {
				f.Fatalf("%v after %d was resolved", row, f.resolved)
			}
			f.rows = append(f.rows, row)
		}
	}
	if m.ResolvedTs != nil && slices.Contains(m.ResolvedTs.Regions, f.region) {
		if m.ResolvedTs.Ts < f.resolved {
			f.Fatalf("resolved %d, then %d", f.resolved, m.ResolvedTs.Ts)
		}
		f.resolved = m.ResolvedTs.Ts
	}
}

// await reads until the region is resolved to a timestamp.
func (f *feed) await(ts uint64) {
	f.Helper()
	for f.resolved < ts {
		f.read()
		if f.failed != nil {
			f.Fatal(f.failed)
		}
	}
}

// tells takes as many rows as there are lines, in any order, and compares them: "PREWRITE
// PUT a=1 was 0 S", where S stands for the start timestamp and C for the commit timestamp of tx.
func (f *feed) tells(tx *transaction.KVTxn, lines ...string) {
	f.Helper()
	for len(f.rows) < len(lines) && f.failed == nil {
		f.read()
	}
	n := min(len(lines), len(f.rows))
	got := make([]string, 0, n)
	for _, row := range f.rows[:n] {
		got = append(got, f.line(row, tx))
	}
	f.rows = f.rows[n:]
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) || f.failed != nil {
		f.Fatalf("told %q %v, want %q", got, f.failed, lines)
	}
}

func (f *feed) line(row *cdcpb.Event_Row, tx *transaction.KVTxn) string {
	line := row.Type.String()
	if row.Type == cdcpb.Event_INITIALIZED {
		return line
	}
	if len(row.Key) == 0 { // of a record that is none of the feed's
		return "nothing"
	}
	line += " " + row.OpType.String() + " " + f.bare(row.Key[len(f.space()):]) // raw keys have a keyspace as long
	if row.Value != nil {
		line += "=" + string(row.Value)
	}
	if row.OldValue != nil {
		line += " was " + string(row.OldValue)
	}
	stamp := func(ts uint64) string {
		switch {
		case tx != nil && ts == tx.StartTS():
			return " S"
		case tx != nil && ts == tx.CommitTS():
			return " C"
		}
		return fmt.Sprint(" ", ts)
	}
	if f.api != cdcpb.ChangeDataRequest_RawKV {
		line += stamp(row.StartTs)
		if row.CommitTs != 0 {
			line += stamp(row.CommitTs)
		}
	}
	return line
}

// changes is a feed of the case's own region, which is initialized.
func (e *env) changes() *feed {
	e.Helper()
	e.home()
	f := e.listen(e.wire("a"), e.now(), cdcpb.ChangeDataRequest_TiDB)
	f.tells(nil, "INITIALIZED")
	return f
}

// mirror is what a consumer knows of the case's keys from their changes alone; it follows
// their regions wherever they go.
type mirror struct {
	*env
	values map[string]string // by key
	at     map[string]uint64 // the commit timestamp of each
	locks  map[string]string // prewritten values, by key and start timestamp
	errors int
}

// follow applies the changes of the case's keys above from, up to a timestamp that is
// asked for again and again until it is not 0.
func (m *mirror) follow(from uint64, upto func() uint64) {
	m.Helper()
	type span struct {
		start, end []byte
		done       uint64
	}
	spans := []*span{{m.wire(""), append(m.space(), m.end()...), from}}
	for len(spans) > 0 {
		s := spans[0]
		spans = spans[1:]
		r := m.locate(s.start)
		f := m.listenTo(r.Meta, r.Leader.StoreId, s.done, cdcpb.ChangeDataRequest_TiDB)
		if end := r.Meta.EndKey; len(end) > 0 && string(end) < string(s.end) {
			spans = append(spans, &span{end, s.end, s.done})
			s.end = end
		}
		for f.failed == nil && (upto() == 0 || f.resolved < upto()) {
			f.read()
			m.apply(f)
			s.done = max(s.done, f.resolved)
		}
		if f.failed != nil {
			m.errors++
			spans = append(spans, s)
		}
		m.must(f.stream.CloseSend())
	}
}

func (m *mirror) apply(f *feed) {
	for _, row := range f.rows {
		m.row(f, row)
	}
	f.rows = nil
}

// row applies one change. Until a feed is initialized, a commit or a rollback can be told
// before the scan tells its prewrite or, when the scan came later, the commit itself: it
// waits (tiflow, cdc/kv: matcher.go).
func (m *mirror) row(f *feed, row *cdcpb.Event_Row) {
	key := m.bare(row.Key)
	lock := fmt.Sprint(key, " ", row.StartTs)
	switch row.Type {
	case cdcpb.Event_INITIALIZED:
		f.initialized = true
		for _, later := range f.early {
			m.row(f, later)
		}
		f.early = nil
	case cdcpb.Event_PREWRITE:
		m.locks[lock] = string(row.Value)
	case cdcpb.Event_ROLLBACK:
		if _, told := m.locks[lock]; !told && !f.initialized {
			f.early = append(f.early, row)
		}
		delete(m.locks, lock)
	case cdcpb.Event_COMMITTED:
		delete(m.locks, lock) // of a scan, whose prewrite an earlier feed told
		m.set(key, string(row.Value), row.CommitTs)
	case cdcpb.Event_COMMIT:
		value, told := m.locks[lock]
		switch {
		case told:
			delete(m.locks, lock)
			m.set(key, value, row.CommitTs)
		case !f.initialized:
			f.early = append(f.early, row)
		case m.at[key] < row.CommitTs:
			m.Errorf("%s was committed at %d and neither prewritten nor scanned", lock, row.CommitTs)
		}
	}
}

func (m *mirror) set(key, value string, at uint64) {
	if at > m.at[key] {
		m.values[key], m.at[key] = value, at
	}
}

func feedArea() area {
	return area{name: "change feed", cases: []kase{
		{name: "two-phase commit", run: func(e *env) {
			e.put("a=0")
			f := e.changes()
			tx := e.put("a=1", "b=1")
			f.tells(tx, "PREWRITE PUT a=1 was 0 S", "PREWRITE PUT b=1 S", "COMMIT PUT a=1 S C", "COMMIT PUT b=1 S C")
			tx = e.begin()
			e.del(tx, "a")
			e.must(tx.Commit(e.ctx()))
			f.tells(tx, "PREWRITE DELETE a was 1 S", "COMMIT DELETE a S C")
			f.await(tx.CommitTS())
		}},
		{name: "async commit", run: func(e *env) {
			f := e.changes()
			tx := e.quick(true, false)
			e.set(tx, "a=1", "b=1")
			e.same("mode", e.commit(tx), "async_commit")
			f.tells(tx, "PREWRITE PUT a=1 S", "PREWRITE PUT b=1 S", "COMMIT PUT a=1 S C", "COMMIT PUT b=1 S C")
			f.await(tx.CommitTS())
		}},
		{name: "one phase", run: func(e *env) {
			e.put("a=0")
			f := e.changes()
			tx := e.quick(false, true)
			e.set(tx, "a=1", "b=1")
			e.same("mode", e.commit(tx), "1pc")
			f.tells(tx, "COMMITTED PUT a=1 was 0 S C", "COMMITTED PUT b=1 S C")
			f.await(tx.CommitTS())
		}},
		{name: "pipelined", run: func(e *env) {
			f := e.changes()
			tx := e.pipe()
			e.set(tx, "a=1")
			e.flush(tx)
			f.tells(tx, "PREWRITE PUT a=1 S")
			e.set(tx, "a=2", "b=2")
			e.flush(tx)
			f.tells(tx, "PREWRITE PUT a=2 S", "PREWRITE PUT b=2 S")
			e.must(tx.Commit(e.ctx()))
			f.tells(tx, "COMMIT PUT a=2 S C", "COMMIT PUT b=2 S C")
			f.await(tx.CommitTS())
		}},
		{name: "pessimistic: locks are not told", run: func(e *env) {
			e.put("a=0")
			f := e.changes()
			tx := e.begin()
			tx.SetPessimistic(true)
			_, err := e.lockCtx(tx, kv.LockNoWait, func(*kv.LockCtx) {}, "a", "b")
			e.must(err)
			between := e.now()
			f.await(between) // nor do they hold anything back
			e.same("rows", len(f.rows), 0)
			e.set(tx, "a=1")
			e.must(tx.Commit(e.ctx()))
			f.tells(tx, "PREWRITE PUT a=1 was 0 S", "COMMIT PUT a=1 S C", "nothing") // b was only locked
			f.await(tx.CommitTS())
			e.same("rows", len(f.rows), 0)
		}},
		{name: "what is prewritten holds the resolved timestamp", run: func(e *env) {
			e.post("split", map[string]any{"mode": "txn", "key": e.end()})
			f := e.changes()
			tx, finish := e.prewritten("a=1")
			f.tells(tx, "PREWRITE PUT a=1 S", "PREWRITE PUT a=1 S") // again with a longer life
			at := e.now()
			other := e.listen(e.end(), at, cdcpb.ChangeDataRequest_TiDB)
			if other.region == f.region {
				e.Fatal("there is no region behind the case's")
			}
			other.await(at + 1) // time goes on elsewhere
			f.read()
			if f.resolved > tx.StartTS() {
				e.Fatalf("%d is resolved, one that began at %d is open", f.resolved, tx.StartTS())
			}
			e.must(finish())
			f.tells(tx, "COMMIT PUT a=1 S C")
			f.await(tx.CommitTS())
		}},
		{name: "what the dead left is told as rolled back", run: func(e *env) {
			f := e.changes()
			start := e.now()
			store, at := e.at(e.wire("a"))
			p, err := store.KvPrewrite(e.ctx(), &kvrpcpb.PrewriteRequest{
				Context: at, PrimaryLock: e.wire("a"), StartVersion: start, LockTtl: 1,
				Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_Put, Key: e.wire("a"), Value: []byte("1")}},
			})
			if err != nil || p.RegionError != nil || len(p.Errors) > 0 {
				e.Fatal(p, err)
			}
			f.tells(nil, fmt.Sprintf("PREWRITE PUT a=1 %d", start))
			e.eventually("the reader passes", func() bool {
				_, err := e.snapshot().Get(e.ctx(), e.key("a"))
				return tikverr.IsErrNotFound(err)
			})
			f.tells(nil, fmt.Sprintf("ROLLBACK UNKNOWN a=p %d", start))
			f.await(e.now())
		}},
		{name: "what came before is scanned, above the checkpoint", run: func(e *env) {
			e.home()
			e.put("a=1")
			after := e.put("b=1").CommitTS()
			newer := e.put("b=2", "c=2")
			open, finish := e.prewritten("d=3")
			f := e.listen(e.wire("a"), after, cdcpb.ChangeDataRequest_TiDB)
			for len(f.rows) < 4 {
				f.read()
			}
			f.rows = slices.DeleteFunc(f.rows, func(r *cdcpb.Event_Row) bool { return r.StartTs == open.StartTS() && r.Type == cdcpb.Event_PREWRITE })
			e.same("rows without the lock", len(f.rows), 3)
			f.tells(newer, "COMMITTED PUT b=2 was 1 S C", "COMMITTED PUT c=2 S C", "INITIALIZED")
			e.must(finish())
			f.tells(open, "COMMIT PUT d=3 S C")
			f.await(open.CommitTS())
		}},
		{name: "a split ends it, both parts go on", run: func(e *env) {
			f := e.changes()
			tx := e.put("a=1", "m=1")
			f.await(tx.CommitTS())
			done := f.resolved
			e.splitTxn("m")
			two := e.put("a=2", "m=2")
			e.unlocked() // the second region's key is committed behind the answer
			for f.failed == nil {
				f.read()
			}
			if len(f.failed.GetEpochNotMatch().GetCurrentRegions()) != 2 {
				e.Fatal(f.failed)
			}
			left, right := e.listen(e.wire("a"), done, cdcpb.ChangeDataRequest_TiDB), e.listen(e.wire("m"), done, cdcpb.ChangeDataRequest_TiDB)
			left.tells(two, "COMMITTED PUT a=2 was 1 S C", "INITIALIZED")
			right.tells(two, "COMMITTED PUT m=2 was 1 S C", "INITIALIZED")
			left.await(two.CommitTS())
			right.await(two.CommitTS())
		}},
		{name: "a leader that moves ends it, the next one goes on", run: func(e *env) {
			f := e.changes()
			f.await(e.put("a=1").CommitTS())
			done := f.resolved
			r := e.home()
			to := r.Leader%3 + 1
			e.post("transfer-leader", map[string]any{"region": r.ID, "store": to})
			two := e.put("a=2")
			for f.failed == nil {
				f.read()
			}
			if l := f.failed.GetNotLeader(); l.GetLeader().GetStoreId() != to || l.RegionId != f.region {
				e.Fatal(f.failed)
			}
			wrong := e.listenTo(e.locate(e.wire("a")).Meta, r.Leader, done, cdcpb.ChangeDataRequest_TiDB)
			for wrong.failed == nil {
				wrong.read()
			}
			if wrong.failed.GetNotLeader() == nil {
				e.Fatal(wrong.failed)
			}
			f = e.listen(e.wire("a"), done, cdcpb.ChangeDataRequest_TiDB)
			f.tells(two, "COMMITTED PUT a=2 was 1 S C", "INITIALIZED")
			f.await(two.CommitTS())
		}},
		{name: "who follows it through changes has what a reader sees", alone: true, run: func(e *env) {
			from, follows := e.now(), make(chan struct{})
			done := async(func() error {
				<-follows // so that a feed is there when the first region splits
				for i := range 60 {
					tx, err := e.txn.Begin()
					if err != nil {
						return err
					}
					tx.SetEnableAsyncCommit(i%3 == 1)
					tx.SetEnable1PC(i%3 == 2)
					for k := range 5 {
						if err := tx.Set(e.key(fmt.Sprint("k", (i*3+k)%7)), fmt.Append(nil, i)); err != nil {
							return err
						}
					}
					if err := tx.Commit(e.Context()); err != nil {
						return err
					}
					if i%20 == 5 {
						e.splitTxn(fmt.Sprint("k", i/10+1))
						for _, r := range e.c.regions(e.T, "txn") {
							e.post("transfer-leader", map[string]any{"region": r.ID, "store": r.Leader%3 + 1})
						}
					}
				}
				return nil
			})
			m := &mirror{env: e, values: map[string]string{}, at: map[string]uint64{}, locks: map[string]string{}}
			last, once := uint64(0), sync.OnceFunc(func() { close(follows) })
			m.follow(from, func() uint64 {
				once()
				if last == 0 {
					select {
					case err := <-done:
						e.must(err)
						last = e.now()
					default:
					}
				}
				return last
			})
			var all []string
			for _, k := range []string{"k0", "k1", "k2", "k3", "k4", "k5", "k6"} {
				all = append(all, k+"="+m.values[k])
			}
			e.same("the consumer's", strings.Join(all, " "), e.scan(e.txn.GetSnapshot(last)))
			e.same("locks that it still knows", len(m.locks), 0)
			if m.errors == 0 {
				e.Fatal("no feed ended")
			}
		}},
	}}
}

// feedKeyspaceArea is what depends on API V2: keys with their keyspace, and raw ones.
func feedKeyspaceArea() area {
	raw := []rawkv.ClientOpt{rawkv.WithAPIVersion(kvrpcpb.APIVersion_V2), rawkv.WithKeyspace("tenant")}
	return area{name: "change feed v2", args: []string{"--keyspace", "tenant"}, txn: tenant, raw: raw, cases: []kase{
		{name: "transactions", run: func(e *env) {
			f := e.listen(e.wire("a"), e.now(), cdcpb.ChangeDataRequest_TiDB)
			f.tells(nil, "INITIALIZED")
			e.rawPut("a=0") // of another mode
			tx := e.put("a=1")
			f.tells(tx, "PREWRITE PUT a=1 S", "COMMIT PUT a=1 S C")
			f.await(tx.CommitTS())
			e.same("rows", len(f.rows), 0)
		}},
		{name: "of an interface that TiKV has no feed of", run: func(e *env) {
			f := e.listen(e.wire("a"), e.now(), cdcpb.ChangeDataRequest_TxnKV)
			for f.failed == nil {
				f.read()
			}
			e.same("version", f.failed.GetCompatibility().GetRequiredVersion(), "6.2.0")
		}},
		{name: "raw", run: func(e *env) {
			e.rawPut("before=0")
			after := e.now()
			e.rawPut("a=1")
			wire := append([]byte{'r'}, append(e.space()[1:4:4], e.key("a")...)...)
			r, err := pdpb.NewPDClient(e.dial(e.c.PD[0])).GetRegion(e.ctx(), &pdpb.GetRegionRequest{
				Header: &pdpb.RequestHeader{ClusterId: e.c.ID}, RegionKey: codec.EncodeBytes(nil, wire),
			})
			e.must(err)
			f := e.listenTo(r.Region, r.Leader.StoreId, after, cdcpb.ChangeDataRequest_RawKV)
			f.tells(nil, "COMMITTED PUT a=1", "INITIALIZED")
			e.put("a=txn") // of another mode
			e.rawPut("a=2", "b=2")
			f.tells(nil, "COMMITTED PUT a=2", "COMMITTED PUT b=2")
			e.must(e.raw.Delete(e.ctx(), e.key("a")))
			f.tells(nil, "COMMITTED DELETE a")
			f.await(e.now())
			e.same("rows", len(f.rows), 0)
		}},
	}}
}
