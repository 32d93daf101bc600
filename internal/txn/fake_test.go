package txn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/codec"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
	"github.com/tikv-go/tikv/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// at is a timestamp of the tests: whole milliseconds.
func at(ms uint64) uint64 { return ms << 18 }

// fake is a cluster behind a real router: a PD with one store, whose answers a test
// writes. Where there are none left it does what a store without conflicts does.
type fake struct {
	mu      sync.Mutex
	splits  []string
	version uint64
	now     uint64 // milliseconds; each timestamp is 10 later
	tsoErr  error
	safe    uint64
	gcErr   error
	gcCalls int
	answers []scripted
	brief   bool // the log has no keys
	log     []string
}

// scripted is what the store does with the next request of a name, and of a region if
// that is not 0.
type scripted struct {
	name   string
	region uint64
	do     func(f *fake, req transport.Message) (transport.Response, error)
	delay  time.Duration
	then   string // a key where the region is split afterwards, without a word
}

func newEngine(t *testing.T, f *fake) (*Engine, *task.Group) {
	t.Helper()
	tasks, owed := task.New(context.WithoutCancel(t.Context())), task.New(context.WithoutCancel(t.Context()))
	log := slog.New(slog.DiscardHandler)
	r := router.New(tasks.Context(), router.Config{ClusterID: 1, Regions: region.New(f, tasks), Transport: transporttest.New(f.call), Logger: log})
	e := New(Config{PD: f, Router: r, Codec: codec.New(codec.V1, codec.Txn, 0), Tasks: tasks, Owed: owed, Logger: log})
	t.Cleanup(func() {
		owed.Close(router.ErrClosed)
		tasks.Close(router.ErrClosed)
	})
	return e, owed
}

func (f *fake) Timestamp(ctx context.Context) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now += 10
	return at(f.now), f.tsoErr
}

func (f *fake) RecentTimestamp(ctx context.Context, maxAge time.Duration) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return at(f.now), f.tsoErr
}

func (f *fake) GCState(ctx context.Context, keyspaceID uint32) (uint64, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gcCalls++
	return f.safe, f.safe, f.gcErr
}

// found is region i as PD tells it.
func (f *fake) found(i int) region.Found {
	meta := &metapb.Region{
		Id: uint64(i + 1), RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 1 + f.version},
		Peers: []*metapb.Peer{{Id: uint64(i+1) * 100, StoreId: 1}},
	}
	if i > 0 {
		meta.StartKey = keys.Encode([]byte(f.splits[i-1]))
	}
	if i < len(f.splits) {
		meta.EndKey = keys.Encode([]byte(f.splits[i]))
	}
	return region.Found{Meta: meta, Leader: meta.Peers[0]}
}

func (f *fake) SplitAndScatterRegions(_ context.Context, splitKeys [][]byte, _ string, _ int) ([]uint64, int, int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range splitKeys {
		user, _, err := keys.Decode(key)
		if err != nil {
			return nil, 0, 0, err
		}
		f.splits = append(f.splits, string(user))
	}
	slices.Sort(f.splits)
	f.version++
	f.log = append(f.log, fmt.Sprintf("split at %d keys", len(splitKeys)))
	return nil, 100, 100, nil
}

func (f *fake) find(match func(*metapb.Region) bool) (region.Found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range len(f.splits) + 1 {
		if r := f.found(i); match(r.Meta) {
			return r, nil
		}
	}
	return region.Found{}, nil
}

func (f *fake) Region(_ context.Context, key []byte, _ bool) (region.Found, error) {
	return f.find(func(m *metapb.Region) bool {
		return keys.Range{Start: m.StartKey, End: m.EndKey}.Contains(key)
	})
}

func (f *fake) PrevRegion(_ context.Context, key []byte) (region.Found, error) {
	return f.find(func(m *metapb.Region) bool {
		if len(key) == 0 {
			return len(m.EndKey) == 0
		}
		return string(m.StartKey) < string(key) && keys.CompareEnds(key, m.EndKey) <= 0
	})
}

func (f *fake) ScanRegions(ctx context.Context, ranges []keys.Range, limit int) ([]region.Found, error) {
	var out []region.Found
	for i := range len(f.splits) + 1 {
		one, _ := f.find(func(m *metapb.Region) bool { return m.Id == uint64(i+1) })
		if slices.ContainsFunc(ranges, func(r keys.Range) bool {
			return !r.Intersect(keys.Range{Start: one.Meta.StartKey, End: one.Meta.EndKey}).Empty()
		}) && (limit < 1 || len(out) < limit) {
			out = append(out, one)
		}
	}
	return out, nil
}

func (f *fake) RegionByID(_ context.Context, id uint64) (region.Found, error) {
	return f.find(func(m *metapb.Region) bool { return m.Id == id })
}

func (f *fake) Stores(context.Context) ([]*metapb.Store, error) {
	return nil, errors.New("not asked here")
}

func (f *fake) Store(_ context.Context, id uint64) (*metapb.Store, error) {
	return &metapb.Store{Id: id, Address: "store"}, nil
}

// Call is the store. Requests arrive in the order of regions and keys, so that what is
// sent in parallel is logged in one order.
func (f *fake) call(ctx context.Context, addr string, req transport.Message) (transport.Response, error) {
	id, text := req.(transport.Request).GetContext().GetRegionId(), describe(req)
	way := time.Duration(id) * time.Millisecond
	if i := strings.IndexAny(text, ":["); i >= 0 {
		way += time.Duration(text[i+1]) * time.Microsecond
	}
	if q, ok := req.(*kvrpcpb.CheckTxnStatusRequest); ok {
		way += time.Duration(q.LockTs>>18) * time.Microsecond
	}
	if err := backoff.Sleep(ctx, way); err != nil {
		return nil, &transport.Error{Addr: addr, Kind: transport.Timeout, Sent: true, Err: err}
	}
	s := f.arrive(id, text)
	if err := backoff.Sleep(ctx, s.delay); err != nil {
		return nil, &transport.Error{Addr: addr, Kind: transport.Timeout, Sent: true, Err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.then != "" {
		defer func() {
			f.splits = append(f.splits, s.then)
			slices.Sort(f.splits)
			f.version++
		}()
	}
	return s.do(f, req)
}

// arrive logs a request and returns what to do with it.
func (f *fake) arrive(id uint64, text string) scripted {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, rest, _ := strings.Cut(text, " ")
	if i := strings.Index(rest, " primary="); f.brief && i >= 0 {
		n := strings.Count(rest[:i], ":")
		text = fmt.Sprintf("%s of %d keys%s", name, n, rest[i:])
		if j := strings.Index(text, " async ["); j >= 0 {
			text = text[:j+6] + " ..."
		}
	}
	if f.brief && name != "Prewrite" {
		text = name
	}
	f.log = append(f.log, fmt.Sprintf("r%d %s", id, text))
	i := slices.IndexFunc(f.answers, func(s scripted) bool { return s.name == name && (s.region == 0 || s.region == id) })
	if i < 0 {
		return scripted{do: usual}
	}
	s := f.answers[i]
	f.answers = slices.Delete(f.answers, i, i+1)
	return s
}

func usual(f *fake, req transport.Message) (transport.Response, error) {
	switch q := req.(type) {
	case *kvrpcpb.PrewriteRequest:
		resp := &kvrpcpb.PrewriteResponse{}
		switch {
		case q.TryOnePc:
			resp.OnePcCommitTs = q.MinCommitTs
		case q.UseAsyncCommit:
			resp.MinCommitTs = q.MinCommitTs
		}
		return resp, nil
	case *kvrpcpb.CommitRequest:
		return &kvrpcpb.CommitResponse{CommitVersion: q.CommitVersion}, nil
	case *kvrpcpb.BatchRollbackRequest:
		return &kvrpcpb.BatchRollbackResponse{}, nil
	case *kvrpcpb.ResolveLockRequest:
		return &kvrpcpb.ResolveLockResponse{}, nil
	case *kvrpcpb.TxnHeartBeatRequest:
		return &kvrpcpb.TxnHeartBeatResponse{LockTtl: q.AdviseLockTtl}, nil
	case *kvrpcpb.GetRequest:
		return &kvrpcpb.GetResponse{NotFound: true}, nil
	case *kvrpcpb.BatchGetRequest:
		return &kvrpcpb.BatchGetResponse{}, nil
	case *kvrpcpb.ScanRequest:
		return &kvrpcpb.ScanResponse{}, nil
	}
	return nil, &transport.Error{Kind: transport.Refused, Err: fmt.Errorf("%T was not expected", req)}
}

// respond makes an answer out of a key error, whatever the request.
func respond(req transport.Message, ke *kvrpcpb.KeyError) (transport.Response, error) {
	switch req.(type) {
	case *kvrpcpb.PrewriteRequest:
		return &kvrpcpb.PrewriteResponse{Errors: []*kvrpcpb.KeyError{ke}}, nil
	case *kvrpcpb.CommitRequest:
		return &kvrpcpb.CommitResponse{Error: ke}, nil
	case *kvrpcpb.BatchRollbackRequest:
		return &kvrpcpb.BatchRollbackResponse{Error: ke}, nil
	case *kvrpcpb.TxnHeartBeatRequest:
		return &kvrpcpb.TxnHeartBeatResponse{Error: ke}, nil
	case *kvrpcpb.GetRequest:
		return &kvrpcpb.GetResponse{Error: ke}, nil
	case *kvrpcpb.BatchGetRequest:
		return &kvrpcpb.BatchGetResponse{Error: ke}, nil
	case *kvrpcpb.ScanRequest:
		return &kvrpcpb.ScanResponse{Error: ke, Pairs: []*kvrpcpb.KvPair{{Error: ke}}}, nil
	}
	return nil, errors.New("no such answer")
}

func regionError(req transport.Message, e *errorpb.Error) (transport.Response, error) {
	switch req.(type) {
	case *kvrpcpb.PrewriteRequest:
		return &kvrpcpb.PrewriteResponse{RegionError: e}, nil
	case *kvrpcpb.CommitRequest:
		return &kvrpcpb.CommitResponse{RegionError: e}, nil
	case *kvrpcpb.BatchRollbackRequest:
		return &kvrpcpb.BatchRollbackResponse{RegionError: e}, nil
	case *kvrpcpb.BatchGetRequest:
		return &kvrpcpb.BatchGetResponse{RegionError: e}, nil
	case *kvrpcpb.ScanRequest:
		return &kvrpcpb.ScanResponse{RegionError: e}, nil
	}
	return nil, errors.New("no such answer")
}

// split adds a boundary and says that the request's region has changed.
func split(key string) func(*fake, transport.Message) (transport.Response, error) {
	return func(f *fake, req transport.Message) (transport.Response, error) {
		f.splits = append(f.splits, key)
		slices.Sort(f.splits)
		f.version++
		var current []*metapb.Region
		for i := range len(f.splits) + 1 {
			current = append(current, f.found(i).Meta)
		}
		return regionError(req, &errorpb.Error{EpochNotMatch: &errorpb.EpochNotMatch{CurrentRegions: current}})
	}
}

func lost(*fake, transport.Message) (transport.Response, error) {
	return nil, &transport.Error{Addr: "store", Kind: transport.ConnLost, Sent: true, Err: errors.New("reset")}
}

func unsent(*fake, transport.Message) (transport.Response, error) {
	return nil, &transport.Error{Addr: "store", Kind: transport.Dial, Err: errors.New("refused")}
}

func keyErr(ke *kvrpcpb.KeyError) func(*fake, transport.Message) (transport.Response, error) {
	return func(_ *fake, req transport.Message) (transport.Response, error) { return respond(req, ke) }
}

func lockInfo(key, primary string, start, ttl uint64) *kvrpcpb.LockInfo {
	return &kvrpcpb.LockInfo{Key: []byte(key), PrimaryLock: []byte(primary), LockVersion: at(start), LockTtl: ttl, TxnSize: 1}
}

// after is a timestamp beside the one of the start.
func after(ts, start uint64) string {
	if ts>>18 == start>>18 {
		return fmt.Sprintf("+%d", ts-start)
	}
	return fmt.Sprintf("%d+%d", ts>>18, ts&(1<<18-1))
}

// describe is a request in one line.
func describe(req transport.Message) string {
	var b strings.Builder
	switch q := req.(type) {
	case *kvrpcpb.PrewriteRequest:
		b.WriteString("Prewrite")
		for _, m := range q.Mutations {
			fmt.Fprintf(&b, " %s:%s", m.Op, m.Key)
			if m.Assertion != kvrpcpb.Assertion_None {
				fmt.Fprintf(&b, "(%s,%s)", m.Assertion, q.AssertionLevel)
			}
		}
		size := fmt.Sprint(q.TxnSize)
		if q.TxnSize+1 == 0 {
			size = "?"
		}
		fmt.Fprintf(&b, " primary=%s start=%d min=%s ttl=%ds size=%s", q.PrimaryLock, q.StartVersion>>18, after(q.MinCommitTs, q.StartVersion), q.LockTtl/1000, size)
		if q.TryOnePc {
			fmt.Fprintf(&b, " one-phase max=%d", q.MaxCommitTs>>18)
		}
		if q.UseAsyncCommit {
			fmt.Fprintf(&b, " async %s max=%d", q.Secondaries, q.MaxCommitTs>>18)
		}
	case *kvrpcpb.CommitRequest:
		fmt.Fprintf(&b, "Commit %s at %d %s of %s", q.Keys, q.CommitVersion>>18, q.CommitRole, q.PrimaryKey)
		if q.UseAsyncCommit {
			b.WriteString(" async")
		}
	case *kvrpcpb.BatchRollbackRequest:
		fmt.Fprintf(&b, "BatchRollback %s", q.Keys)
	case *kvrpcpb.TxnHeartBeatRequest:
		fmt.Fprintf(&b, "HeartBeat %s ttl=%ds", q.PrimaryLock, q.AdviseLockTtl/1000)
	case *kvrpcpb.CheckTxnStatusRequest:
		fmt.Fprintf(&b, "Check %s@%d caller=%d", q.PrimaryKey, q.LockTs>>18, q.CallerStartTs>>18)
	case *kvrpcpb.ResolveLockRequest:
		fmt.Fprintf(&b, "Resolve %s@%d commit=%d", q.Keys, q.StartVersion>>18, q.CommitVersion>>18)
	case *kvrpcpb.GetRequest:
		fmt.Fprintf(&b, "Get %s%s", q.Key, readAt(q.Version, q.Context))
	case *kvrpcpb.BatchGetRequest:
		fmt.Fprintf(&b, "BatchGet %s%s", q.Keys, readAt(q.Version, q.Context))
	case *kvrpcpb.ScanRequest:
		start, end := string(q.StartKey), string(q.EndKey)
		if len(q.StartKey) > 100 {
			start = "max"
		}
		fmt.Fprintf(&b, "Scan [%s,%s) limit=%d%s", start, end, q.Limit, readAt(q.Version, q.Context))
		if q.Reverse {
			b.WriteString(" reverse")
		}
	default:
		fmt.Fprintf(&b, "%T", req)
	}
	if req.(transport.Request).GetContext().GetIsRetryRequest() {
		b.WriteString(" retry")
	}
	return b.String()
}

func readAt(ts uint64, c *kvrpcpb.Context) string {
	s := fmt.Sprintf(" at %d", ts>>18)
	if ts == Latest {
		s = " latest"
	}
	for _, l := range c.ResolvedLocks {
		s += fmt.Sprintf(" ignore=%d", l>>18)
	}
	for _, l := range c.CommittedLocks {
		s += fmt.Sprintf(" through=%d", l>>18)
	}
	return s
}
