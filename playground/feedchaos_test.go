package playground

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc/metadata"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/task"
)

// follower holds what a change feed has told it. It subscribes to every region where it
// finds its leader, and again, from what was resolved, whenever a subscription ends.
type follower struct {
	*chaos
	inbox   chan delivery
	streams map[uint64]*followed // by store
	subs    map[uint64]*followedRegion
	ended   map[uint64]string // request ids that were told of their end
	next    uint64            // request id
	pending []piece
	history map[string]map[uint64]told // by key and commit timestamp

	ends, again, scanned, live int // what was met
}

// piece is a range of region keys, and the timestamp up to which all of it is known.
type piece struct {
	keys.Range
	from uint64
}

type followed struct {
	store  uint64
	stream cdcpb.ChangeData_EventFeedV2Client
}

type delivery struct {
	on  *followed
	m   *cdcpb.ChangeDataEvent
	err error
}

type followedRegion struct {
	piece
	on          *followed
	region      uint64
	initialized bool
	resolved    uint64
	prewrites   map[string]*cdcpb.Event_Row // by key and start timestamp
	held        []*cdcpb.Event_Row
}

// told is a version, as it was told of.
type told struct {
	start      uint64
	op         cdcpb.Event_Row_OpType
	value, old string
}

// follow follows until every key is known up to a timestamp that comes from done.
func (f *follower) follow(ctx context.Context, done <-chan uint64) error {
	f.pending = []piece{{}}
	var target uint64
	for {
		f.subscribe(ctx)
		if target != 0 && f.reached(target) {
			return nil
		}
		select {
		case d := <-f.inbox:
			if err := f.hear(d); err != nil {
				return err
			}
		case target = <-done:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *follower) reached(ts uint64) bool {
	for _, s := range f.subs {
		if s.resolved < ts {
			return false
		}
	}
	return len(f.pending) == 0
}

// subscribe asks for the pieces that nobody tells of, each at the region that has its
// beginning.
func (f *follower) subscribe(ctx context.Context) {
	var later []piece
	for len(f.pending) > 0 {
		p := f.pending[0]
		f.pending = f.pending[1:]
		r := f.topo.ByKey(p.Start)
		here := p
		if end := r.Meta.EndKey; len(end) > 0 && keys.CompareEnds(end, p.End) < 0 {
			here.End = end
			f.pending = append(f.pending, piece{keys.Range{Start: end, End: p.End}, p.from})
		}
		if r.Leader == nil || !f.ask(ctx, here, r.Meta, r.LeaderStore()) {
			later = append(later, here)
		}
	}
	f.pending = later
}

func (f *follower) ask(ctx context.Context, p piece, r *metapb.Region, store uint64) bool {
	on := f.streams[store]
	if on == nil {
		on = &followed{store: store}
		md := metadata.AppendToOutgoingContext(ctx, "features", "stream-multiplexing")
		var err error
		if on.stream, err = cdcpb.NewChangeDataClient(f.conn(f.store(store).Server().Addr())).EventFeedV2(md); err != nil {
			return false
		}
		f.streams[store] = on
		go func() {
			for {
				m, err := on.stream.Recv()
				select {
				case f.inbox <- delivery{on, m, err}:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	f.next++
	if err := on.stream.Send(&cdcpb.ChangeDataRequest{
		Header: &cdcpb.Header{ClusterId: f.ID(), TicdcVersion: "8.0.0"}, RegionId: r.Id, RegionEpoch: r.RegionEpoch,
		RequestId: f.next, CheckpointTs: p.from, StartKey: p.Start, EndKey: p.End,
	}); err != nil {
		return false // the end of the stream is on its way
	}
	f.subs[f.next] = &followedRegion{piece: p, on: on, region: r.Id, prewrites: make(map[string]*cdcpb.Event_Row)}
	return true
}

func (f *follower) hear(d delivery) error {
	if f.streams[d.on.store] != d.on {
		return nil
	}
	if d.err != nil {
		delete(f.streams, d.on.store)
		for id, s := range f.subs {
			if s.on == d.on {
				f.end(id, s)
			}
		}
		return nil
	}
	if ts := d.m.ResolvedTs; ts != nil {
		return f.resolve(ts)
	}
	for _, e := range d.m.Events {
		s := f.subs[e.RequestId]
		if s == nil {
			return fmt.Errorf("request %d, which ended with %q, gets %v", e.RequestId, f.ended[e.RequestId], e)
		}
		if e.RegionId != s.region {
			return fmt.Errorf("request %d is of region %d, gets %v", e.RequestId, s.region, e)
		}
		if err := e.GetError(); err != nil {
			f.ended[e.RequestId] = describeError(err)
			f.end(e.RequestId, s)
		}
		for _, row := range e.GetEntries().GetEntries() {
			if err := f.row(s, row); err != nil {
				return fmt.Errorf("request %d, of region %d from %d, resolved %d: %w", e.RequestId, s.region, s.from, s.resolved, err)
			}
		}
	}
	return nil
}

// end gives back what a subscription was for.
func (f *follower) end(id uint64, s *followedRegion) {
	delete(f.subs, id)
	f.ends++
	f.pending = append(f.pending, piece{s.Range, max(s.from, s.resolved)})
}

func (f *follower) resolve(ts *cdcpb.ResolvedTs) error {
	s := f.subs[ts.RequestId]
	switch {
	case s == nil:
		return fmt.Errorf("request %d, which ended, gets %v", ts.RequestId, ts)
	case !s.initialized || !slices.Equal(ts.Regions, []uint64{s.region}) || ts.Ts < s.resolved:
		return fmt.Errorf("request %d, of region %d, initialized %v, resolved %d, gets %v", ts.RequestId, s.region, s.initialized, s.resolved, ts)
	}
	s.resolved = ts.Ts
	return nil
}

func (f *follower) row(s *followedRegion, row *cdcpb.Event_Row) error {
	if row.Type != cdcpb.Event_INITIALIZED && row.Type != cdcpb.Event_UNKNOWN && !s.Contains(keys.Encode(row.Key)) {
		if s.whole() {
			return nil
		}
		return fmt.Errorf("%v is not of the subscription to %q", row, s.Range)
	}
	txn := fmt.Sprintf("%s@%d", row.Key, row.StartTs)
	switch row.Type {
	case cdcpb.Event_UNKNOWN:
		if len(row.Key) > 0 || row.StartTs != 0 {
			return fmt.Errorf("%v is no row", row)
		}
	case cdcpb.Event_INITIALIZED:
		if s.initialized {
			return fmt.Errorf("initialized again")
		}
		s.initialized = true
		for _, h := range s.held {
			if err := f.row(s, h); err != nil {
				return err
			}
		}
		s.held = nil
	case cdcpb.Event_PREWRITE:
		s.prewrites[txn] = row
	case cdcpb.Event_COMMITTED:
		if s.initialized {
			f.live++
		} else {
			f.scanned++
		}
		return f.version(s, row, row)
	case cdcpb.Event_COMMIT, cdcpb.Event_ROLLBACK:
		if !s.initialized { // the scan may find the prewrite yet
			s.held = append(s.held, row)
			return nil
		}
		prewrite := s.prewrites[txn]
		delete(s.prewrites, txn)
		if row.Type == cdcpb.Event_ROLLBACK {
			return nil
		}
		if prewrite == nil {
			return fmt.Errorf("%v without a prewrite", row)
		}
		f.live++
		return f.version(s, row, prewrite)
	default:
		return fmt.Errorf("%v is no row", row)
	}
	return nil
}

// whole tells whether the subscription is to a whole region: a bound that encodes no key,
// as those between raw keys in V1, bounds nothing.
func (s *followedRegion) whole() bool {
	for _, bound := range [][]byte{s.Start, s.End} {
		if _, _, err := keys.Decode(bound); err != nil && len(bound) > 0 {
			return true
		}
	}
	return false
}

// version notes a version, whose values are with what wrote it.
func (f *follower) version(s *followedRegion, row, values *cdcpb.Event_Row) error {
	if row.CommitTs <= max(s.from, s.resolved) {
		return fmt.Errorf("%v is told too late", row)
	}
	if row.OpType != values.OpType {
		return fmt.Errorf("%v commits %v", row, values)
	}
	v := told{row.StartTs, values.OpType, string(values.Value), string(values.OldValue)}
	of := f.history[string(row.Key)]
	if of == nil {
		of = make(map[uint64]told)
		f.history[string(row.Key)] = of
	}
	if before, ok := of[row.CommitTs]; ok {
		f.again++
		if before != v {
			return fmt.Errorf("%q at %d is %v, was %v", row.Key, row.CommitTs, v, before)
		}
	}
	of[row.CommitTs] = v
	return nil
}

// scribe writes transactions of every kind to a few keys.
type scribe struct {
	*chaos
	r       *rand.Rand
	id      int
	recent  *[]uint64 // commit timestamps, guarded by turn
	turn    chan struct{}
	commits int
}

func scribeKeys() []string {
	var all []string
	for i := range 24 {
		all = append(all, fmt.Sprintf("%c%02d", 'a'+rune(i), i*4))
	}
	return all
}

func (w *scribe) write(rounds int) error {
	all := scribeKeys()
	for n := range rounds {
		ks := make([]string, 1+w.r.IntN(3))
		for i, at := range w.r.Perm(len(all))[:len(ks)] {
			ks[i] = all[at]
		}
		if err := w.transact(ks, n, w.r.IntN(6)); err != nil {
			return fmt.Errorf("writer %d, transaction %d: %w", w.id, n, err)
		}
	}
	return nil
}

func (w *scribe) transact(ks []string, n, kind int) error {
	const (
		async = iota + 1
		onePhase
		pessimistic
		given // up
		protected
	)
	if kind == onePhase {
		ks = ks[:1]
	}
	if kind == protected {
		return w.protect(ks[0])
	}
	start := w.now()
	q := kvrpcpb.PrewriteRequest{StartVersion: start, PrimaryLock: []byte(ks[0]), LockTtl: 3000,
		UseAsyncCommit: kind == async, TryOnePc: kind == onePhase}
	if kind == pessimistic {
		q.ForUpdateTs = w.now()
		for _, k := range ks {
			if !w.lock(&q, k) {
				return w.rollback(ks, start)
			}
		}
	}
	var commit uint64
	fallBack := kind != async
	for i, k := range ks {
		one := q
		if kind == async && i == 0 {
			for _, o := range ks[1:] {
				one.Secondaries = append(one.Secondaries, []byte(o))
			}
		}
		one.Mutations = []*kvrpcpb.Mutation{w.mutation(k, n)}
		if kind == pessimistic {
			one.PessimisticActions = []kvrpcpb.PrewriteRequest_PessimisticAction{kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK}
		}
		p := w.prewrite(&one, k)
		if len(p.Errors) > 0 {
			return w.rollback(ks, start)
		}
		if p.OnePcCommitTs != 0 {
			w.note(p.OnePcCommitTs)
			return nil
		}
		commit = max(commit, p.MinCommitTs)
		fallBack = fallBack || p.MinCommitTs == 0
	}
	if kind == given {
		return w.rollback(ks, start)
	}
	if fallBack {
		commit = w.now()
	}
	for i, k := range ks {
		r, _ := send(w.chaos, KeyTxn, k, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.CommitResponse, error) {
			return kv.KvCommit(ctx, &kvrpcpb.CommitRequest{Context: at, StartVersion: start, CommitVersion: commit, Keys: [][]byte{[]byte(k)}})
		})
		if r.Error != nil && i == 0 && r.Error.TxnLockNotFound != nil { // rolled back by one who protects
			return w.rollback(ks, start)
		}
		if r.Error != nil && (i == 0 || r.Error.TxnLockNotFound == nil) {
			return fmt.Errorf("commit %s: %v", k, r.Error)
		}
	}
	w.note(commit)
	return nil
}

func (w *scribe) mutation(k string, n int) *kvrpcpb.Mutation {
	m := &kvrpcpb.Mutation{Op: kvrpcpb.Op_Put, Key: []byte(k), Value: fmt.Appendf(nil, "%s of %d by %d", k, n, w.id)}
	switch w.r.IntN(6) {
	case 0:
		m.Op, m.Value = kvrpcpb.Op_Del, nil
	case 1:
		m.Value = append(m.Value, strings.Repeat("+", 300)...)
	case 2:
		m.Op, m.Value = kvrpcpb.Op_Lock, nil
	}
	return m
}

func (w *scribe) prewrite(q *kvrpcpb.PrewriteRequest, k string) *kvrpcpb.PrewriteResponse {
	retry := false
	p, _ := send(w.chaos, KeyTxn, k, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.PrewriteResponse, error) {
		at.IsRetryRequest = retry
		retry = true
		one := *q
		one.Context = at
		return kv.KvPrewrite(ctx, &one)
	})
	return p
}

func (w *scribe) lock(q *kvrpcpb.PrewriteRequest, k string) bool {
	l, _ := send(w.chaos, KeyTxn, k, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.PessimisticLockResponse, error) {
		return kv.KvPessimisticLock(ctx, &kvrpcpb.PessimisticLockRequest{Context: at, StartVersion: q.StartVersion, ForUpdateTs: q.ForUpdateTs,
			PrimaryLock: q.PrimaryLock, LockTtl: q.LockTtl, WaitTimeout: -1,
			Mutations: []*kvrpcpb.Mutation{{Op: kvrpcpb.Op_PessimisticLock, Key: []byte(k)}}})
	})
	return len(l.Errors) == 0
}

func (w *scribe) rollback(ks []string, start uint64) error {
	for _, k := range ks {
		r, _ := send(w.chaos, KeyTxn, k, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.BatchRollbackResponse, error) {
			return kv.KvBatchRollback(ctx, &kvrpcpb.BatchRollbackRequest{Context: at, StartVersion: start, Keys: [][]byte{[]byte(k)}})
		})
		if r.Error != nil {
			return fmt.Errorf("rollback %s: %v", k, r.Error)
		}
	}
	return nil
}

// protect rolls back, on a key, a transaction that began when another committed, if there
// is one, else one that never was.
func (w *scribe) protect(k string) error {
	<-w.turn
	start := w.now()
	if n := len(*w.recent); n > 0 && w.r.IntN(4) > 0 {
		start = (*w.recent)[w.r.IntN(n)]
	}
	w.turn <- struct{}{}
	r, _ := send(w.chaos, KeyTxn, k, func(ctx context.Context, kv tikvpb.TikvClient, at *kvrpcpb.Context) (*kvrpcpb.CheckTxnStatusResponse, error) {
		at.RequestOrigin = kvrpcpb.RequestOrigin_RequestOriginTiDB
		return kv.KvCheckTxnStatus(ctx, &kvrpcpb.CheckTxnStatusRequest{Context: at, PrimaryKey: []byte(k), LockTs: start, RollbackIfNotExist: true})
	})
	if r.Error != nil {
		return fmt.Errorf("status of %s at %d: %v", k, start, r.Error)
	}
	return nil
}

// note notes a commit timestamp.
func (w *scribe) note(ts uint64) {
	<-w.turn
	*w.recent = append(*w.recent, ts)
	w.turn <- struct{}{}
	w.commits++
}

// A client that follows the change feed, and subscribes anew wherever it ends, knows at
// the end every committed version and nothing else, each with the value before, and was
// told of none too late: while transactions of every kind are written, regions split and
// merge, leaders move, stores stop, and answers are lost.
func TestFeedChaos(t *testing.T) {
	merges := 0
	for _, dir := range []bool{false, true} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("dir=%v/%d", dir, seed), func(t *testing.T) {
				path := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					opts := []Option{WithMembers(3), WithSeed(seed), WithFeedInterval(7 * time.Millisecond), WithSplitKeys(KeyTxn, []byte("f"), []byte("m"), []byte("t"))}
					if dir {
						opts = append(opts, WithDir(path, false))
					}
					merges += testFeedChaos(t, seed, start(t, opts...))
				})
			})
		}
	}
	if merges == 0 {
		t.Error("no regions were merged")
	}
}

// testFeedChaos returns how many regions were merged.
func testFeedChaos(t *testing.T, seed uint64, c *testCluster) (merges int) {
	x := newChaos(t, c)
	for _, method := range []string{"KvPrewrite", "KvCommit", "KvPessimisticLock", "KvBatchRollback", "EventFeedV2"} {
		defer c.Inject(Fault{Method: method, Delay: 3 * time.Millisecond, Chance: 0.5}).Remove()
		if strings.HasPrefix(method, "Kv") {
			defer c.Inject(Fault{Method: method, DropAnswer: true, Chance: 0.02}).Remove()
		}
	}
	tasks := task.New(t.Context())
	life, calm := context.WithCancel(t.Context())
	following, leave := context.WithCancel(t.Context())
	f := &follower{chaos: x, inbox: make(chan delivery), streams: make(map[uint64]*followed), subs: make(map[uint64]*followedRegion),
		ended: make(map[uint64]string), history: make(map[string]map[uint64]told)}
	reach, followed, storm, merged := make(chan uint64, 1), make(chan error, 1), make(chan error, 1), make(chan int, 1)
	tasks.Go("follow", func(context.Context) { followed <- f.follow(following, reach) })
	tasks.Go("disturb", func(context.Context) { storm <- x.disturb(life, rand.New(rand.NewPCG(seed, 5))) })
	tasks.Go("merge", func(context.Context) { merged <- x.merge(life, rand.New(rand.NewPCG(seed, 6))) })
	turn, recent := make(chan struct{}, 1), []uint64(nil)
	turn <- struct{}{}
	scribes := make([]*scribe, 6)
	err := task.Each(t.Context(), 0, len(scribes), func(_ context.Context, i int) error {
		scribes[i] = &scribe{chaos: x, id: i, r: rand.New(rand.NewPCG(seed, uint64(i)+10)), recent: &recent, turn: turn}
		return scribes[i].write(60)
	})
	calm()
	if err := <-storm; err != nil {
		t.Error(err)
	}
	merges = <-merged
	if err != nil {
		t.Error(err)
	}
	<-time.After(time.Second)
	for _, l := range c.Locks(nil, nil) { // of late copies
		if err := (&scribe{chaos: x}).rollback([]string{string(l.Key)}, l.StartTS); err != nil {
			t.Error(err)
		}
	}
	reach <- x.now()
	select {
	case err := <-followed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Errorf("not reached: %d pieces wait, %v", len(f.pending), c.Locks(nil, nil))
	}
	leave()
	tasks.Close(nil)
	f.compare(scribeKeys())
	commits := 0
	for _, s := range scribes {
		commits += s.commits
	}

	if f.ends < 10 || f.again == 0 || f.scanned == 0 || f.live < 50 || commits < 60 {
		t.Errorf("too calm: %d ends, %d repeated, %d scanned, %d live, %d commits", f.ends, f.again, f.scanned, f.live, commits)
	}
	return merges
}

// merge merges neighbours until ctx ends, where both have leaders.
func (x *chaos) merge(ctx context.Context, r *rand.Rand) (merged int) {
	for {
		select {
		case <-ctx.Done():
			return merged
		case <-time.After(time.Duration(50+r.IntN(100)) * time.Millisecond):
		}
		all := x.Regions(KeyTxn)
		if len(all) < 4 {
			continue
		}
		i := r.IntN(len(all) - 1)
		if x.Merge(all[i].ID, all[i+1].ID) == nil {
			merged++
		}
	}
}

// compare compares what was told with what there is.
func (f *follower) compare(ks []string) {
	f.t.Helper()
	for _, k := range ks {
		all, err := f.Versions([]byte(k))
		if err != nil {
			f.t.Fatal(err)
		}
		all = slices.DeleteFunc(all, func(v Version) bool { return v.Kind != WritePut && v.Kind != WriteDelete })
		got := f.history[k]
		for i, v := range all {
			want := told{start: v.StartTS, op: cdcpb.Event_Row_DELETE}
			if v.Kind == WritePut {
				want.op, want.value = cdcpb.Event_Row_PUT, string(v.Value)
			}
			if i+1 < len(all) && all[i+1].Kind == WritePut {
				want.old = string(all[i+1].Value)
			}
			if g, ok := got[v.CommitTS]; !ok || g != want {
				f.t.Errorf("%s at %d was told as %v (%v), is %v", k, v.CommitTS, g, ok, want)
			}
		}
		if len(got) != len(all) {
			f.t.Errorf("%s has %d versions, %d were told", k, len(all), len(got))
		}
		delete(f.history, k)
	}
	if len(f.history) > 0 {
		f.t.Error("told of other keys:", len(f.history))
	}
}
