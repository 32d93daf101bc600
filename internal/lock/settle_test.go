package lock

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/router"
	"github.com/tikv-go/tikv/internal/task"
)

// The transaction began at 100 ms; the clock stands at 1000 ms. However long its locks
// would live, it is over afterwards.
func TestSettle(t *testing.T) {
	const ask = "r2 Check p@100 caller=0 now=max rollback"
	for _, tt := range []struct {
		name    string
		others  []string
		answers map[string][]any
		log     string
		status  Status
		err     error
	}{{
		name:    "committed",
		others:  []string{"a", "x"},
		answers: map[string][]any{"Check": {&checked{CommitVersion: ts(150)}}},
		log: ask + `
r1 Resolve [a]@100 commit=150
r2 Resolve [x]@100 commit=150`,
		status: Status{State: Committed, CommitTS: ts(150)},
	}, {
		name:    "rolled back by the question",
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_TTLExpireRollback}}},
		log:     ask,
		status:  Status{State: RolledBack},
	}, {
		name:    "never written",
		answers: map[string][]any{"Check": {&checked{Action: kvrpcpb.Action_LockNotExistRollback}}},
		log:     ask,
		status:  Status{State: RolledBack},
	}, {
		name: "an asynchronous commit with all its locks, which would live on",
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 30000, LockInfo: async(120, "a", "x")}},
			"Secondaries": {held(140, "a"), held(130, "x")},
		},
		log: ask + `
r1 Secondaries [a]@100
r2 Secondaries [x]@100
r1 Resolve [a]@100 commit=140
r2 Resolve [x p]@100 commit=140`,
		status: Status{State: Committed, CommitTS: ts(140)},
	}, {
		name: "an asynchronous commit without one of its locks",
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 30000, LockInfo: async(120, "a", "x")}},
			"Secondaries": {held(140, "a"), &secondary{}},
		},
		log: ask + `
r1 Secondaries [a]@100
r2 Secondaries [x]@100
r1 Resolve [a]@100 commit=0
r2 Resolve [x p]@100 commit=0`,
		status: Status{State: RolledBack},
	}, {
		name: "an asynchronous commit that fell back",
		answers: map[string][]any{
			"Check":       {&checked{LockTtl: 30000, LockInfo: async(120, "a")}, &checked{Action: kvrpcpb.Action_TTLExpireRollback}},
			"Secondaries": {&secondary{Locks: []*lockInfo{{Key: []byte("a"), LockVersion: ts(100)}}}},
		},
		log: ask + `
r1 Secondaries [a]@100
` + "r2 Check p@100 caller=0 now=max rollback force" + `
r1 Resolve [a]@100 commit=0`,
		status: Status{State: RolledBack},
	}, {
		name:    "still alive",
		answers: map[string][]any{"Check": {&checked{LockTtl: 30000}}},
		log:     ask,
		err:     errAlive,
	}, {
		name:    "another primary key",
		answers: map[string][]any{"Check": {&checked{Error: &keyErr{PrimaryMismatch: &kvrpcpb.PrimaryMismatch{}}}}},
		log:     ask,
		err:     errMismatch,
	}, {
		name:    "its primary key is shared by others, and it committed there",
		answers: map[string][]any{"Check": {sharedPrimary}, "Secondaries": {&secondary{CommitTs: ts(150)}}},
		log:     ask + "\nr2 Secondaries [p]@100",
		status:  Status{State: Committed, CommitTS: ts(150)},
	}, {
		name:    "its primary key is shared by others, and it is rolled back there",
		answers: map[string][]any{"Check": {sharedPrimary}, "Secondaries": {&secondary{}}},
		log:     ask + "\nr2 Secondaries [p]@100",
		status:  Status{State: RolledBack},
	}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster()
				c.answers = tt.answers
				tasks := task.New(t.Context())
				r := New(Config{Router: c, Clock: c, Tasks: tasks, Logger: slog.New(slog.DiscardHandler)})
				var others [][]byte
				for _, k := range tt.others {
					others = append(others, []byte(k))
				}
				s, err := r.Settle(t.Context(), &router.Call{}, ts(100), []byte("p"), others)
				tasks.Refuse()
				if err := tasks.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !isRuled(err, tt.err) || s != tt.status {
					t.Errorf("%+v, %v", s, err)
				}
				if got := strings.Join(c.log, "\n"); got != tt.log {
					t.Errorf("sent\n%s\nwant\n%s", got, tt.log)
				}
				if tt.err != nil {
					return
				}
				// What is final is not asked for again.
				if again, err := r.Settle(t.Context(), &router.Call{}, ts(100), []byte("p"), nil); err != nil || again != s {
					t.Error(again, err)
				}
			})
		})
	}
}

// isRuled reports whether err is want, or a refusal that says so where TiKV's rules are
// broken.
func isRuled(err, want error) bool {
	var refused *router.Refused
	return errors.Is(err, want) || want != nil && errors.As(err, &refused) && strings.Contains(refused.Message, want.Error())
}
