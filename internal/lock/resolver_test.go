package lock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"go.uber.org/goleak"

	"github.com/tikv-go/tikv/internal/backoff"
	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/region"
	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
	"github.com/tikv-go/tikv/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a router and a clock that a test scripts: answers are taken in order for
// each kind of request, and requests are logged. Two regions meet at "m".
type cluster struct {
	mu      sync.Mutex
	answers map[string][]any // responses, or errors
	log     []string
	now     uint64 // milliseconds
	regions []*region.Region
}

func newCluster() *cluster {
	c := &cluster{answers: map[string][]any{}, now: 1000}
	c.split("m")
	return c
}

func (c *cluster) split(at ...string) {
	c.regions = nil
	start := ""
	for i, end := range append(at, "") {
		c.regions = append(c.regions, &region.Region{
			ID: uint64(i + 1), Range: keys.Range{Start: []byte(start), End: []byte(end)},
		})
		start = end
	}
}

func (c *cluster) Locate(_ context.Context, _ *router.Call, key []byte) (*region.Region, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.regions {
		if r.Contains(key) {
			return r, nil
		}
	}
	return nil, errors.New("no region")
}

func (c *cluster) Group(ctx context.Context, call *router.Call, ks [][]byte) ([]router.Group, error) {
	var out []router.Group
	for i, key := range ks {
		r, err := c.Locate(ctx, call, key)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(out, func(g router.Group) bool { return g.Region == r })
		if at < 0 {
			at = len(out)
			out = append(out, router.Group{Region: r})
		}
		out[at].Index = append(out[at].Index, i)
	}
	return out, nil
}

func (c *cluster) Wait(ctx context.Context, _ *router.Call, kind backoff.Kind) error {
	return backoff.Sleep(ctx, kind.Base)
}

func (c *cluster) Send(ctx context.Context, _ *router.Call, to *region.Region, req transport.Request) (transport.Response, error) {
	if err := backoff.Sleep(ctx, time.Duration(2*to.ID-1)*time.Millisecond); err != nil { // a fixed order
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	name, text := describe(req)
	c.log = append(c.log, fmt.Sprintf("r%d %s %s", to.ID, name, text))
	queue := c.answers[name]
	if len(queue) == 0 {
		switch name {
		case "Resolve":
			return &kvrpcpb.ResolveLockResponse{}, nil
		case "PessimisticRollback":
			return &kvrpcpb.PessimisticRollbackResponse{}, nil
		}
		return nil, fmt.Errorf("%s was not expected", name)
	}
	c.answers[name] = queue[1:]
	switch a := queue[0].(type) {
	case error:
		if errors.Is(a, router.ErrRegionChanged) {
			c.split("b", "m")
		}
		return nil, a
	case transport.Response:
		return a, nil
	}
	return nil, errors.New("not an answer")
}

func (c *cluster) RecentTimestamp(context.Context, time.Duration) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now << 18, nil
}

func describe(req transport.Request) (name, text string) {
	switch q := req.(type) {
	case *kvrpcpb.CheckTxnStatusRequest:
		text = fmt.Sprintf("%s@%d caller=%d", q.PrimaryKey, q.LockTs>>18, q.CallerStartTs>>18)
		if q.CurrentTs == math.MaxUint64 {
			text += " now=max"
		}
		if q.RollbackIfNotExist {
			text += " rollback"
		}
		if q.ForceSyncCommit {
			text += " force"
		}
		if q.ResolvingPessimisticLock {
			text += " pessimistic"
		}
		if !q.VerifyIsPrimary {
			text += " unverified"
		}
		return "Check", text
	case *kvrpcpb.CheckSecondaryLocksRequest:
		return "Secondaries", fmt.Sprintf("%s@%d", q.Keys, q.StartVersion>>18)
	case *kvrpcpb.ResolveLockRequest:
		return "Resolve", fmt.Sprintf("%s@%d commit=%d", q.Keys, q.StartVersion>>18, q.CommitVersion>>18)
	case *kvrpcpb.PessimisticRollbackRequest:
		if q.ForUpdateTs == math.MaxUint64 {
			return "PessimisticRollback", fmt.Sprintf("%s@%d upto=max", q.Keys, q.StartVersion>>18)
		}
		return "PessimisticRollback", fmt.Sprintf("%s@%d upto=%d", q.Keys, q.StartVersion>>18, q.ForUpdateTs>>18)
	}
	return fmt.Sprintf("%T", req), ""
}

func ts(ms uint64) uint64 { return ms << 18 }

type (
	checked     = kvrpcpb.CheckTxnStatusResponse
	secondary   = kvrpcpb.CheckSecondaryLocksResponse
	resolved    = kvrpcpb.ResolveLockResponse
	keyErr      = kvrpcpb.KeyError
	lockInfo    = kvrpcpb.LockInfo
	txnNotFound = kvrpcpb.TxnNotFound
)

// sharedPrimary is the answer about a primary key that others share.
var sharedPrimary = &checked{Error: &keyErr{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{LockInfo: &lockInfo{LockType: kvrpcpb.Op_SharedLock}}}}

func lockOf(key, primary string, start, ttl uint64) Lock {
	return Lock{Key: []byte(key), Primary: []byte(primary), StartTS: ts(start), TTL: ttl, TxnSize: 2}
}

func pessimistic(l Lock) Lock {
	l.Pessimistic, l.ForUpdateTS = true, l.StartTS+ts(1)
	return l
}

func sized(l Lock, n uint64) Lock {
	l.TxnSize = n
	return l
}

func async(min uint64, secondaries ...string) *lockInfo {
	info := &lockInfo{PrimaryLock: []byte("p"), Key: []byte("p"), LockVersion: ts(100), UseAsyncCommit: true, MinCommitTs: ts(min)}
	for _, s := range secondaries {
		info.Secondaries = append(info.Secondaries, []byte(s))
	}
	return info
}

func held(min uint64, ks ...string) *secondary {
	resp := &secondary{}
	for _, k := range ks {
		resp.Locks = append(resp.Locks, &lockInfo{Key: []byte(k), LockVersion: ts(100), UseAsyncCommit: true, MinCommitTs: ts(min)})
	}
	return resp
}

// The clock stands at 1000 ms; transactions began at 100 unless they say otherwise.
func TestResolve(t *testing.T) {
	notFound := &checked{Error: &keyErr{TxnNotFound: &txnNotFound{}}}
	for _, tt := range []struct {
		name    string
		reader  *Reader // nil: a writer
		locks   []Lock
		answers map[string][]any
		log     string // requests, one a line
		ignore  []uint64
		through []uint64
		live    string
		wait    time.Duration
		err     error
	}{{
		name:    "a writer removes the lock of a dead transaction",
		locks:   []Lock{lockOf("a", "p", 100, 3000)},
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpireRollback}}},
		log: `r2 Check p@100 caller=0
r1 Resolve [a]@100 commit=0`,
	}, {
		name:    "a writer commits the lock of a committed one",
		locks:   []Lock{lockOf("a", "p", 100, 3000)},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(150)}}},
		log: `r2 Check p@100 caller=0
r1 Resolve [a]@100 commit=150`,
	}, {
		name:    "nobody waits longer than the shortest life",
		locks:   []Lock{lockOf("a", "p", 900, 300), lockOf("b", "c", 800, 900)},
		answers: map[string][]any{"Check": {&checked{LockTtl: 900}, &checked{LockTtl: 300}}},
		log: `r1 Check c@800 caller=0
r2 Check p@900 caller=0`,
		live: "a", wait: 201 * time.Millisecond,
	}, {
		name:    "one question for all locks of a transaction, one request for a region",
		locks:   []Lock{lockOf("a", "p", 100, 3000), lockOf("b", "p", 100, 3000), lockOf("x", "p", 100, 3000)},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(150)}}},
		log: `r2 Check p@100 caller=0
r1 Resolve [a b]@100 commit=150
r2 Resolve [x]@100 commit=150`,
	}, {
		name:    "large transactions are removed from the whole region",
		locks:   []Lock{sized(lockOf("a", "p", 100, 3000), 512)},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(150)}}},
		log: `r2 Check p@100 caller=0
r1 Resolve []@100 commit=150`,
	}, {
		name:    "the question itself has removed the primary lock",
		locks:   []Lock{lockOf("p", "p", 100, 3000)},
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpireRollback}}},
		log:     `r2 Check p@100 caller=0`,
	}, {
		name:    "a reader ignores what was rolled back",
		reader:  &Reader{TS: ts(500)},
		locks:   []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpireRollback}}},
		log: `r2 Check p@100 caller=500
r1 Resolve [a]@100 commit=0`,
		ignore: []uint64{ts(100)},
	}, {
		name:    "a reader reads through what committed before it",
		reader:  &Reader{TS: ts(500)},
		locks:   []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(500)}}},
		log: `r2 Check p@100 caller=500
r1 Resolve [a]@100 commit=500`,
		through: []uint64{ts(100)},
	}, {
		name:    "a reader ignores what committed after it",
		reader:  &Reader{TS: ts(500)},
		locks:   []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(501)}}},
		log: `r2 Check p@100 caller=500
r1 Resolve [a]@100 commit=501`,
		ignore: []uint64{ts(100)},
	}, {
		name:    "a reader pushes a live transaction and goes on",
		reader:  &Reader{TS: ts(500)},
		locks:   []Lock{lockOf("a", "p", 100, 30000)},
		answers: map[string][]any{"Check": {&checked{LockTtl: 30000, Action: kvrpcpb.Action_MinCommitTSPushed}}},
		log:     `r2 Check p@100 caller=500`,
		ignore:  []uint64{ts(100)},
	}, {
		name:    "a reader of the newest neither pushes nor ignores",
		reader:  &Reader{TS: math.MaxUint64},
		locks:   []Lock{lockOf("a", "p", 100, 1000)},
		answers: map[string][]any{"Check": {&checked{LockTtl: 1000}}},
		log:     `r2 Check p@100 caller=0`,
		live:    "a", wait: 101 * time.Millisecond,
	}, {
		name:   "a transaction that began with the read or later commits after it",
		reader: &Reader{TS: ts(500)},
		locks:  []Lock{lockOf("a", "p", 500, 300), lockOf("b", "q", 501, 300)},
		ignore: []uint64{ts(500), ts(501)},
	}, {
		name:  "a writer's own locks are left alone",
		locks: []Lock{lockOf("a", "p", 500, 300)},
		live:  "a",
	}, {
		name:  "a shared lock that names nobody is waited for",
		locks: []Lock{{Key: []byte("a"), Shared: true}},
		live:  "a",
	}, {
		name: "the holders of a shared lock, one dead, one alive",
		locks: FromProto(&lockInfo{Key: []byte("a"), LockType: kvrpcpb.Op_SharedLock, SharedLockInfos: []*lockInfo{
			{LockType: kvrpcpb.Op_PessimisticLock, PrimaryLock: []byte("c"), LockVersion: ts(200), LockTtl: 300, LockForUpdateTs: ts(201)},
			{LockType: kvrpcpb.Op_PessimisticLock, PrimaryLock: []byte("r"), LockVersion: ts(900), LockTtl: 300, LockForUpdateTs: ts(901)},
		}}),
		answers: map[string][]any{"Check": {
			&checked{Action: kvrpcpb.Action_TTLExpirePessimisticRollback}, &checked{LockTtl: 300},
		}},
		log: `r1 Check c@200 caller=0 pessimistic
r1 PessimisticRollback []@200 upto=201
r2 Check r@900 caller=0 pessimistic`,
		live: "a", wait: 201 * time.Millisecond,
	}, {
		name:    "an asynchronous commit that must go lives until its life is over",
		locks:   []Lock{lockOf("a", "p", 100, 0)},
		answers: map[string][]any{"Check": {&checked{LockTtl: 950, LockInfo: async(120, "a", "x")}}},
		log:     `r2 Check p@100 caller=0 now=max`,
		live:    "a", wait: 51 * time.Millisecond,
	}, {
		name:  "an asynchronous commit of its primary key alone",
		locks: []Lock{lockOf("p", "p", 100, 300)},
		answers: map[string][]any{
			"Check": {&checked{LockTtl: 300, LockInfo: async(120)}},
		},
		log: `r2 Check p@100 caller=0
r2 Resolve [p]@100 commit=120`,
	}, {
		name:    "a lock without a TTL goes alive or not",
		locks:   []Lock{lockOf("a", "p", 100, 0)},
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpireRollback}}},
		log: `r2 Check p@100 caller=0 now=max
r1 Resolve [a]@100 commit=0`,
	}, {
		name:    "an unknown transaction whose lock has expired is rolled back",
		locks:   []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{"Check": {notFound, &checked{Action: kvrpcpb.Action_LockNotExistRollback}}},
		log: `r2 Check p@100 caller=0
r2 Check p@100 caller=0 rollback
r1 Resolve [a]@100 commit=0`,
	}, {
		name:    "an unknown transaction whose lock lives is asked for again",
		locks:   []Lock{lockOf("a", "p", 900, 300)},
		answers: map[string][]any{"Check": {notFound, notFound, &checked{CommitVersion: ts(950)}}},
		log: `r2 Check p@900 caller=0
r2 Check p@900 caller=0
r2 Check p@900 caller=0
r1 Resolve [a]@900 commit=950`,
	}, {
		name:    "an unknown transaction's pessimistic lock is waited for",
		locks:   []Lock{pessimistic(lockOf("a", "p", 900, 300))},
		answers: map[string][]any{"Check": {notFound}},
		log:     `r2 Check p@900 caller=0 pessimistic`,
		live:    "a", wait: 201 * time.Millisecond,
	}, {
		name:    "an expired pessimistic lock",
		locks:   []Lock{pessimistic(lockOf("a", "p", 100, 300)), pessimistic(lockOf("p", "p", 100, 300))},
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpirePessimisticRollback}}},
		log: `r2 Check p@100 caller=0 pessimistic
r1 PessimisticRollback []@100 upto=101`,
	}, {
		name:    "a pessimistic lock with another primary is an orphan",
		locks:   []Lock{pessimistic(lockOf("a", "p", 900, 300))},
		answers: map[string][]any{"Check": {&checked{Error: &keyErr{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{}}}}},
		log: `r2 Check p@900 caller=0 pessimistic
r1 PessimisticRollback [a]@900 upto=901`,
	}, {
		name:    "a lock with another primary is an error",
		locks:   []Lock{lockOf("a", "p", 900, 300)},
		answers: map[string][]any{"Check": {&checked{Error: &keyErr{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{}}}}},
		log:     `r2 Check p@900 caller=0`,
		err:     errMismatch,
	}, {
		name:    "a pessimistic lock whose primary key others share is an orphan",
		locks:   []Lock{pessimistic(lockOf("a", "p", 900, 300))},
		answers: map[string][]any{"Check": {sharedPrimary}},
		log: `r2 Check p@900 caller=0 pessimistic
r1 PessimisticRollback [a]@900 upto=901`,
	}, {
		name:    "a lock whose primary key others share is asked for again",
		locks:   []Lock{lockOf("a", "p", 900, 300)},
		answers: map[string][]any{"Check": {sharedPrimary, &checked{CommitVersion: ts(950)}}},
		log: `r2 Check p@900 caller=0
r2 Check p@900 caller=0
r1 Resolve [a]@900 commit=950`,
	}, {
		name:    "an expired lock whose primary key others share, of one that committed",
		locks:   []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{"Check": {sharedPrimary}, "Secondaries": {&secondary{CommitTs: ts(150)}}},
		log: `r2 Check p@100 caller=0
r2 Secondaries [p]@100
r1 Resolve [a]@100 commit=150`,
	}, {
		name:  "an expired lock whose primary key others share no more when that is asked",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {sharedPrimary, &checked{Action: kvrpcpb.Action_TTLExpireRollback}},
			"Secondaries": {&secondary{Locks: []*lockInfo{{Key: []byte("p"), LockVersion: ts(100)}}}},
		},
		log: `r2 Check p@100 caller=0
r2 Secondaries [p]@100
r2 Check p@100 caller=0
r1 Resolve [a]@100 commit=0`,
	}, {
		name:    "locks of both kinds are one transaction, not to be taken for a pessimistic one",
		locks:   []Lock{pessimistic(lockOf("a", "p", 100, 300)), lockOf("b", "p", 100, 300)},
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpireRollback}}},
		log: `r2 Check p@100 caller=0
r1 Resolve [b]@100 commit=0
r1 PessimisticRollback []@100 upto=101`,
	}, {
		name:    "an asynchronous commit that lives",
		reader:  &Reader{TS: ts(500)},
		locks:   []Lock{lockOf("a", "p", 100, 950)},
		answers: map[string][]any{"Check": {&checked{LockTtl: 950, LockInfo: async(120, "a", "x")}}},
		log:     `r2 Check p@100 caller=500`,
		live:    "a", wait: 51 * time.Millisecond,
	}, {
		name:  "an asynchronous commit with all its locks is committed",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a", "x")}},
			"Secondaries": {held(140, "a"), held(130, "x")},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100
r2 Secondaries [x]@100
r1 Resolve [a]@100 commit=140
r2 Resolve [x p]@100 commit=140`,
	}, {
		name:  "an asynchronous commit of which a lock is missing is rolled back",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a", "x")}},
			"Secondaries": {held(140, "a"), &secondary{}},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100
r2 Secondaries [x]@100
r1 Resolve [a]@100 commit=0
r2 Resolve [x p]@100 commit=0`,
	}, {
		name:  "an asynchronous commit of which a key has committed",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a", "x")}},
			"Secondaries": {&secondary{CommitTs: ts(160)}, held(140, "x")},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100
r2 Secondaries [x]@100
r1 Resolve [a]@100 commit=160
r2 Resolve [x p]@100 commit=160`,
	}, {
		name:  "keys that disagree",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a", "x")}},
			"Secondaries": {&secondary{CommitTs: ts(160)}, &secondary{}},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100
r2 Secondaries [x]@100`,
		err: errTorn,
	}, {
		name:  "a commit below what a lock promises",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a", "x")}},
			"Secondaries": {&secondary{CommitTs: ts(130)}, held(140, "x")},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100
r2 Secondaries [x]@100`,
		err: errTorn,
	}, {
		name:  "an error in place of secondary locks says nothing about the transaction",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a")}},
			"Secondaries": {&secondary{Error: &keyErr{Abort: "no"}}},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100`,
		err: &router.Refused{},
	}, {
		name:  "an asynchronous commit that fell back",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a")}, &checked{Action: kvrpcpb.Action_TTLExpireRollback}},
			"Secondaries": {&secondary{Locks: []*lockInfo{{Key: []byte("a"), LockVersion: ts(100)}}}},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a]@100
r2 Check p@100 caller=0 force
r1 Resolve [a]@100 commit=0`,
	}, {
		name:  "regions that split under the questions",
		locks: []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 300, LockInfo: async(120, "a", "c")}},
			"Secondaries": {router.ErrRegionChanged, held(140, "a"), held(130, "c")},
			"Resolve":     {router.ErrRegionChanged},
		},
		log: `r2 Check p@100 caller=0
r1 Secondaries [a c]@100
r1 Secondaries [a]@100
r2 Secondaries [c]@100
r1 Resolve [a]@100 commit=140
r1 Resolve [a]@100 commit=140
r2 Resolve [c]@100 commit=140
r3 Resolve [p]@100 commit=140`,
	}, {
		name:    "a refusal of the removal",
		locks:   []Lock{lockOf("a", "p", 100, 300)},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(150)}}, "Resolve": {&resolved{Error: &keyErr{Abort: "no"}}}},
		log: `r2 Check p@100 caller=0
r1 Resolve [a]@100 commit=150`,
		err: &router.Refused{},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				c.answers = tt.answers
				tasks := task.New(t.Context())
				r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
				call := &router.Call{Op: "test"}
				var v Verdict
				var err error
				if tt.reader != nil {
					v, err = r.ForRead(t.Context(), call, *tt.reader, tt.locks)
				} else {
					v, err = r.ForWrite(t.Context(), call, ts(500), tt.locks)
				}
				tasks.Refuse()
				if err := tasks.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				var refused *router.Refused
				switch tt.err.(type) {
				case *router.Refused:
					if !errors.As(err, &refused) {
						t.Fatalf("error %v", err)
					}
				default:
					if !isRuled(err, tt.err) {
						t.Fatalf("error %v, want %v", err, tt.err)
					}
				}
				if got := strings.Join(c.log, "\n"); got != tt.log {
					t.Errorf("sent\n%s\nwant\n%s", got, tt.log)
				}
				live := ""
				if v.Live != nil {
					live = string(v.Live.Key)
				}
				if !slices.Equal(v.Ignore, tt.ignore) || !slices.Equal(v.Through, tt.through) || live != tt.live || v.Wait != tt.wait {
					t.Errorf("verdict %+v (live %q)", v, live)
				}
			})
		})
	}
}

// A final state is remembered; one that may change is not.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.answers = map[string][]any{"Check": {
			&checked{LockTtl: 3000}, &checked{CommitVersion: ts(150)},
		}}
		tasks := task.New(t.Context())
		defer tasks.Close(nil)
		r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
		for i, want := range []State{Alive, Committed, Committed} {
			v, err := r.ForWrite(t.Context(), &router.Call{}, 0, []Lock{lockOf("a", "p", 100, 3000)})
			if err != nil || (v.Live != nil) != (want == Alive) {
				t.Fatalf("%d: %+v, %v", i, v, err)
			}
		}
		want := []string{"r2 Check p@100 caller=0", "r2 Check p@100 caller=0", "r1 Resolve [a]@100 commit=150", "r1 Resolve [a]@100 commit=150"}
		if !slices.Equal(c.log, want) {
			t.Fatal(c.log)
		}
	})
}

// What the client has committed itself is not asked for, alive or not.
func TestOwnCommitsAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		tasks := task.New(t.Context())
		r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
		r.Committed(ts(900), ts(950))
		for at, want := range map[uint64]string{949: "ignore", 950: "through"} {
			v, err := r.ForRead(t.Context(), &router.Call{}, Reader{TS: ts(at)}, []Lock{lockOf("a", "p", 900, 3000)})
			got := map[bool]string{len(v.Ignore) == 1: "ignore", len(v.Through) == 1: "through"}[true]
			if err != nil || got != want || v.Live != nil {
				t.Errorf("%d: %+v, %v", at, v, err)
			}
		}
		tasks.Refuse()
		if err := tasks.Wait(t.Context()); err != nil || !slices.Equal(c.log, []string{"r1 Resolve [a]@900 commit=950"}) {
			t.Fatal(err, c.log)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	var s statuses
	for i := range uint64(3 * maxStatuses) {
		s.put(i, Status{State: Committed, CommitTS: i})
		s.put(i, Status{State: RolledBack}) // the first counts
	}
	if len(s.known) != maxStatuses || len(s.order) != maxStatuses {
		t.Fatal(len(s.known), len(s.order))
	}
	for i := range uint64(3 * maxStatuses) {
		got, ok := s.get(i)
		if ok != (i >= 2*maxStatuses) || ok && got.CommitTS != i {
			t.Fatal(i, got, ok)
		}
	}
}

// Many readers meet one lock: it is removed once at a time.
func TestOneSweepAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.answers = map[string][]any{"Check": {&checked{CommitVersion: ts(150)}}}
		tasks := task.New(t.Context())
		r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
		for range 10 {
			if _, err := r.ForRead(t.Context(), &router.Call{}, Reader{TS: ts(500)}, []Lock{lockOf("a", "p", 100, 3000)}); err != nil {
				t.Fatal(err)
			}
		}
		tasks.Refuse()
		if err := tasks.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(c.log) != 2 {
			t.Fatal(c.log)
		}
	})
}

func TestCancelEndsTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.answers = map[string][]any{"Check": {&checked{Error: &keyErr{TxnNotFound: &txnNotFound{}}}}}
		r := New(Config{Router: c, Clock: c, Tasks: task.New(t.Context()), Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancelCause(t.Context())
		over, done := errors.New("over"), make(chan error)
		go func() {
			_, err := r.ForWrite(ctx, &router.Call{}, 0, []Lock{lockOf("a", "p", 900, 3000)})
			done <- err
		}()
		time.AfterFunc(3*time.Millisecond, func() { cancel(over) })
		if err := <-done; !errors.Is(err, over) {
			t.Fatal(err)
		}
	})
}

func TestSharedLocks(t *testing.T) {
	got := FromProto(&lockInfo{Key: []byte("k"), LockType: kvrpcpb.Op_SharedLock, SharedLockInfos: []*lockInfo{
		{PrimaryLock: []byte("p"), LockVersion: 1, LockTtl: 10},
		{PrimaryLock: []byte("q"), LockVersion: 2, LockType: kvrpcpb.Op_SharedPessimisticLock, Key: []byte("k")},
	}})
	if len(got) != 2 || string(got[0].Key) != "k" || got[0].Pessimistic || !got[1].Pessimistic || got[1].StartTS != 2 {
		t.Fatalf("%+v", got)
	}
}
