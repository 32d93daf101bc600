package mvcc

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// flush START PRIMARY GENERATION mutation... Options: ttl level.
func (s *script) flush(a *args) string {
	req := &kvrpcpb.FlushRequest{Context: a.context(), StartTs: a.ts(), PrimaryKey: a.key(), Generation: a.ts(),
		LockTtl: a.num("ttl"), AssertionLevel: kvrpcpb.AssertionLevel(a.num("level"))}
	as := &kvrpcpb.PrewriteRequest{}
	for len(a.words) > 0 {
		s.mutation(as, a.next())
	}
	req.Mutations = as.Mutations
	return showErrors(s.e.Flush(s.Context(), s.bounds, req).Errors)
}

// buffer START key...
func (s *script) buffer(a *args) string {
	resp := s.e.BufferBatchGet(s.Context(), s.bounds, &kvrpcpb.BufferBatchGetRequest{Version: a.ts(), Keys: a.rest()})
	if resp.Error != nil {
		return showError(resp.Error)
	}
	return showPairs(resp.Pairs)
}

// held KEY: its lock.
func (s *script) held(a *args) string {
	enc := keys.Encode(a.key())
	var all []string
	for _, l := range s.e.Locks(keys.Range{Start: enc, End: keys.Next(enc)}) {
		all = append(all, showLock(l))
	}
	return strings.Join(all, " ")
}

// broadcast START COMMIT
func (s *script) broadcast(a *args) string {
	s.e.BroadcastTxnStatus(s.Context(), &kvrpcpb.BroadcastTxnStatusRequest{
		TxnStatus: []*kvrpcpb.TxnStatus{{StartTs: a.ts(), CommitTs: a.ts()}}})
	return "ok"
}

// ended tells how the transactions ended that did since it was last asked.
func (s *script) endings(*args) string {
	var all []string
	for _, committed := range s.ended {
		all = append(all, map[bool]string{true: "committed", false: "rolledback"}[committed])
	}
	s.ended = nil
	return strings.Join(all, " ")
}

func TestAsyncCommitRules(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		{"least commit timestamp: after start", `
			prewrite 10 a put:a=1 async => ok min=11
			held a => a:Put@10,min=11,async[]`},
		// prewrite.rs, test_async_commit_prewrite_min_commit_ts
		{"least commit timestamp: after every read, unless nothing is written", `
			get z 41 => absent
			prewrite 10 a cne:a min=11 async => ok min=11
			maxts => 41
			prewrite 42 a cne:a min=43 async => ok min=43
			maxts => 42
			prewrite 10 a put:a=1 async maxcommit=50 => ok min=43
			prewrite 44 b cne:b async => ok min=45
			prewrite 44 b put:b=1 async => ok min=45
			prewrite 44 c put:c=1 async fut=45 => ok min=46
			prewrite 44 d put:d=1 async fut=45 min=47 => ok min=47
			prewrite 44 e insert:e=1 async => ok min=45
			maxts => 44`},
		{"the latest read raises nothing", `
			get z max => absent
			maxts => 0
			prewrite 10 a put:a=1 async => ok min=11`},
		{"a stale read raises nothing", `
			get z 40 stale => absent
			prewrite 10 a put:a=1 async => ok min=11`},
		{"the answer has the largest of the keys", `
			pessimistic 10 10 a a min=30 => ok
			prewrite 10 a put:a=1@check put:c=1 fut=10 async secondaries=c => ok min=30
			held a => a:Put@10,min=30,fut=10,async["c"]
			held c => c:Put@10/a,min=11,fut=10,async[]`},
		{"an own pessimistic lock that a reader pushed", `
			pessimistic 10 10 a a min=11 => ok
			status a 10 caller=20 now=20 => MinCommitTSPushed a:PessimisticLock@10,min=21,fut=10
			prewrite 10 a put:a=1@check fut=10 1pc => ok 1pc=21`},
		{"only the primary has the secondaries", `
			prewrite 10 b put:a=1 put:b=1 put:c=1 async secondaries=a,c => ok min=11
			held a => a:Put@10/b,min=11,async[]
			held b => b:Put@10,min=11,async["a" "c"]
			held c => c:Put@10/b,min=11,async[]`},
		{"secondaries without async commit are ignored", `
			prewrite 10 a put:a=1 secondaries=b => ok
			held a => a:Put@10`},
		// test_async_commit_prewrite_check_max_commit_ts
		{"commit timestamp too large", `
			get z 42 => absent
			prewrite 10 a put:a=1 async secondaries=b maxcommit=40 => ok
			held a => a:Put@10
			prewrite 11 c put:c=1 put:d=1 1pc maxcommit=42 => ok
			held c => c:Put@11
			held d => d:Put@11/c
			commit 11 50 c d => ok
			get d 42 => absent
			prewrite 12 e put:e=1 async maxcommit=43 => ok min=43
			prewrite 13 f put:f=1 async 1pc maxcommit=42 => ok
			held f => f:Put@13`},
		// write_lock, fallback_1pc_locks: what was calculated before stays
		{"too large for a later key", `
			pessimistic 10 10 a b min=30 => ok
			prewrite 10 a put:a=1 put:b=2@check fut=10 async secondaries=b maxcommit=20 => ok
			held a => a:Put@10,min=11,fut=10,async["b"]
			held b => b:Put@10/a,min=30,fut=10
			pessimistic 11 11 c d min=30 => ok
			prewrite 11 c put:c=1 put:d=2@check fut=11 1pc maxcommit=20 => ok
			held c => c:Put@11,min=12,fut=11
			held d => d:Put@11/c,min=30,fut=11
			commit 11 30 c d => ok
			get c 30 => =1`},
		{"repeated prewrite", `
			prewrite 10 a put:a=1 async secondaries=b => ok min=11
			get z 50 => absent
			prewrite 10 a put:a=1 async secondaries=b => ok min=11
			# one that fell back makes the repetition fall back, with the keys after it
			prewrite 20 c put:c=1 => ok
			prewrite 20 c put:c=1 put:d=1 async secondaries=d => ok
			held d => d:Put@20/c
			prewrite 30 e put:e=1 => ok
			prewrite 30 e put:f=1 put:e=1 1pc => ok
			held f => f:Put@30/e,min=51`},
		// test_repeated_prewrite_commit_ts_too_large
		{"repeated prewrite of a committed transaction, too large now", `
			pessimistic 5 10 k1 k1 => ok
			prewrite 5 k1 put:k1=v1@check fut=10 min=15 async secondaries=k2 => ok min=15
			prewrite 5 k1 put:k2=v2 fut=10 min=15 maxcommit=20 async => ok min=15
			commit 5 18 k1 k2 => ok
			get z 50 => absent
			prewrite 5 k1 put:k2=v2 fut=10 min=15 maxcommit=20 async => ok min=18
			records k2 => 18:Put@5=v2`},
		// process_write: a transaction that is known as committed need not say "retry"
		{"late prewrite of a committed transaction", `
			pessimistic 5 5 a a => ok
			prewrite 5 a put:a=1@check put:b=1 fut=5 => ok
			commit 5 9 a b => ok
			prewrite 5 a put:b=1 fut=5 async => ok min=9
			records b => 9:Put@5=1
			broadcast 6 9 => ok
			prewrite 6 a put:b=2 fut=6 => abort(PessimisticLockNotFound/NonLockKeyConflict)`},
		{"foreign locks", `
			prewrite 5 b put:b=1 => ok
			prewrite 10 a put:a=1 put:b=1 async secondaries=b => locked(b:Put@5) min=11
			records a => 
			prewrite 10 a put:a=1 put:b=1 1pc => locked(b:Put@5)
			records a =>`},
		{"commit", `
			prewrite 10 a put:a=1 put:b=1 min=15 async secondaries=b => ok min=15
			commit 10 14 a => expired(a@10,14<15)
			commit 10 15 b => ok
			ended => 
			commit 10 15 a => ok
			ended => committed
			commit 10 15 a => ok
			ended => 
			records a => 15:Put@10=1`},
		{"reads meet the locks", `
			prewrite 5 a put:a=0 => ok
			commit 5 6 a => ok
			prewrite 10 a put:a=1 put:b=1 min=15 async secondaries=b => ok min=15
			get a 14 => =0
			get a 15 => locked(a:Put@10,min=15,async["b"])
			# the latest value of the primary key may be the lock's
			get a max => locked(a:Put@10,min=15,async["b"])
			get a 15 bypass=10 => =0
			get a 15 access=10 => =1
			batchget 15 a b => [locked(a:Put@10,min=15,async["b"]) locked(b:Put@10/a,min=15,async[])]
			scan 15 => [locked(a:Put@10,min=15,async["b"]) locked(b:Put@10/a,min=15,async[])]
			scanlock 20 => [a:Put@10,min=15,async["b"] b:Put@10/a,min=15,async[]]`},
		{"status of a primary", `
			prewrite 5s a put:a=1 put:b=1 ttl=1000 async secondaries=b => ok min=5s+1
			status a 5s now=max caller=5s+9 => NoAction a:Put@5s,ttl=1000,min=5s+1,async["b"]
			status a 5s now=9s caller=max => NoAction a:Put@5s,ttl=1000,min=5s+1,async["b"]
			status a 5s now=5s+9 caller=5s+8 force => MinCommitTSPushed a:Put@5s,ttl=1000,min=5s+9,async["b"]
			status a 5s now=9s force => TTLExpireRollback
			ended => rolledback
			records a => 5s:Rollback@5s=p
			commit 5s 9s b => ok`},
		{"rollback by who knows", `
			prewrite 10 a put:a=1 put:b=1 ttl=1000 async secondaries=b => ok min=11
			rollback 10 a b => ok
			ended => rolledback
			records a => 10:Rollback@10=p
			records b => 10:Rollback@10
			prewrite 10 a put:a=1 async => conflict(SelfRolledBack,a@10,by 10-10)`},
		{"recovery: all keys are prewritten", `
			prewrite 10 a put:a=1 put:b=1 async secondaries=b,c => ok min=11
			prewrite 10 a put:c=1 min=13 async => ok min=13
			secondary 10 b c => [b:Put@10/a,min=11,async[] c:Put@10/a,min=13,async[]] commit=0
			resolve 10 13 a => ok
			ended => committed
			resolve 10 13 b c => ok
			ended =>
			get c 13 => =1`},
		{"recovery: a key is missing", `
			prewrite 10 a put:a=1 async secondaries=b => ok min=11
			secondary 10 b => [] commit=0
			records b => 10:Rollback@10=p
			maxts => 10
			prewrite 10 a put:b=1 async => conflict(SelfRolledBack,b@10,by 10-10)
			resolve 10 0 => ok
			ended => rolledback
			records a => 10:Rollback@10=p`},
		{"recovery: a key is committed", `
			prewrite 10 a put:a=1 put:b=1 async secondaries=b => ok min=11
			commit 10 11 b => ok
			secondary 10 b => [] commit=11
			secondary 10 b => [] commit=11`},
		{"recovery: a key fell back", `
			get z 40 => absent
			prewrite 10 a put:a=1 async secondaries=b maxcommit=50 => ok min=41
			prewrite 10 a put:b=1 async maxcommit=30 => ok
			secondary 10 b => [b:Put@10/a] commit=0
			status a 10 now=9s force => TTLExpireRollback`},
		{"recovery: a pessimistic lock", `
			pessimistic 10 10 a b => ok
			secondary 10 b => [] commit=0
			records b => 10:Rollback@10=p
			pessimistic 10 10 a b => abort(PessimisticLockRolledBack)`},
		// TiKV txn.rs, mark_rollback_on_mismatching_lock; commit.rs
		{"a commit falls onto a rollback", `
			prewrite 10 a put:a=1 async => ok min=11
			# 15 finds the lock of 10 and is rolled back: the commit must remember it
			status a 15 rollback => LockNotExistRollback
			secondary 16 a => [] commit=0
			held a => a:Put@10,min=11,async[]
			records a => lock:Put@10 16:Rollback@16=p 15:Rollback@15=p
			commit 10 16 a => ok
			records a => 16:Put@10=1+R 15:Rollback@15=p
			get a 16 => =1
			prewrite 16 a put:a=2 => conflict(SelfRolledBack,a@16,by 10-16)
			status a 16 => NoAction
			secondary 16 a => [] commit=0`},
		{"a rollback falls onto a commit", `
			prewrite 10 a put:a=1 async min=20 => ok min=20
			commit 10 20 a => ok
			prewrite 30 a put:a=3 async => ok min=31
			commit 30 31 a => ok
			status a 20 rollback => LockNotExistRollback
			records a => 31:Put@30=3 20:Put@10=1+R+F31
			get a 25 => =1
			prewrite 20 a put:a=2 async => conflict(Optimistic,a@20,by 30-31)
			rollback 20 a => ok`},
		{"a resolved region counts its primaries", `
			prewrite 10 a put:a=1 async => ok min=11
			prewrite 20 b put:b=1 => ok
			resolve 0 10=11 20=0 => ok
			ended => committed rolledback`},
	} {
		t.Run(test.name, func(t *testing.T) { newScript(t).run(test.script) })
	}
}

func TestOnePhaseRules(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		// test_prewrite_1pc
		{"no lock is stored", `
			prewrite 10 a put:a=1 del:b lock:c 1pc => ok 1pc=11
			records a => 11:Put@10=1
			records b => 11:Del@10
			records c => 11:Lock@10
			ended => committed
			get a 11 => =1
			get a 10 => absent`},
		{"long values", `
			prewrite 10 a put:a=x*300 1pc => ok 1pc=11
			get a 11 => =x*300`},
		{"after every read", `
			get a 40 => absent
			prewrite 10 a put:a=1 1pc => ok 1pc=41
			get a 40 => absent
			get a 41 => =1
			get a max => =1`},
		{"the timestamp is of all keys", `
			pessimistic 10 10 a b min=30 => ok
			prewrite 10 a put:a=1 put:b=2@check fut=10 1pc => ok 1pc=30
			records a => 30:Put@10=1
			records b => 30:Put@10=2`},
		{"with async commit asked for, too", `
			prewrite 10 a put:a=1 put:b=1 async secondaries=b 1pc => ok min=11 1pc=11
			records a => 11:Put@10=1`},
		// test_prewrite_pessimsitic_1pc
		{"own pessimistic locks disappear", `
			pessimistic 10 12 a a b => ok
			prewrite 10 a put:a=1@check put:b=1@check put:c=1 fut=12 1pc => ok 1pc=13
			records a => 13:Put@10=1
			records b => 13:Put@10=1
			records c => 13:Put@10=1
			scanlock 20 => []`},
		{"own pessimistic locks stay in a fallback", `
			get z 50 => absent
			pessimistic 10 12 a a => ok
			prewrite 10 a put:a=1@check fut=12 1pc maxcommit=50 => ok
			held a => a:Put@10,fut=12`},
		{"conflicts", `
			prewrite 10 a put:a=1 1pc => ok 1pc=11
			prewrite 10 b put:b=1 put:a=2 1pc => ok 1pc=11
			records b => 
			prewrite 9 b put:b=1 put:a=2 1pc => conflict(Optimistic,a@9,by 10-11)
			records b => 
			prewrite 12 b insert:a=2 put:b=2 1pc => exists(a)
			ended => committed`},
		{"only a check", `
			prewrite 10 a cne:a 1pc => ok 1pc=11
			ended => `},
		{"nothing at all", `
			prewrite 10 a 1pc async => ok`},
		// test_repeated_pessimistic_prewrite_1pc
		{"repeated", `
			pessimistic 5 5 k2 k1 k2 => ok
			pessimistic 5 15 k2 k3 => ok
			prewrite 5 k2 put:k1=v1@check put:k2=v2@check put:k3=v3@check fut=15 1pc => ok 1pc=16
			prewrite 5 k2 put:k1=v1@check put:k2=v2@check put:k3=v3@check fut=15 1pc => ok 1pc=16
			ended => committed
			records k1 => 16:Put@5=v1`},
		{"repeated, other keys changed since", `
			prewrite 5 a put:a=1 put:b=1 1pc => ok 1pc=6
			prewrite 10 a put:a=2 1pc => ok 1pc=11
			prewrite 5 a put:a=1 put:b=1 1pc => ok 1pc=6
			records a => 11:Put@10=2 6:Put@5=1`},
		{"a rolled back transaction", `
			status a 10 rollback now=10 => LockNotExistRollback
			prewrite 10 a put:a=1 1pc => conflict(SelfRolledBack,a@10,by 10-10)
			prewrite 5 b put:a=1 1pc => conflict(Optimistic,a@5,by 10-10)`},
	} {
		t.Run(test.name, func(t *testing.T) { newScript(t).run(test.script) })
	}
}

func TestFlushRules(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		// flush.rs, test_flush
		{"flush", `
			flush 1 k 1 put:k=v => ok
			held k => k:Put@1,min=2
			commit 1 2 k => ok
			get k 2 => =v`},
		{"no generation", `
			flush 1 k 0 put:k=v => abort(Other("generation)`},
		// test_write_conflict
		{"conflicts", `
			flush 1 k 1 put:k=v => ok
			flush 2 k 2 put:k=v => locked(k:Put@1,min=2)
			pessimistic 2 2 k k => locked(k:Put@1,min=2)
			prewrite 2 k put:k=v => locked(k:Put@1,min=2)
			commit 1 5 k => ok
			flush 3 k 1 put:k=v => conflict(Optimistic,k@3,by 1-5)
			pessimistic 6 6 k k => ok
			flush 6 k 1 put:k=v => abort(LockTypeNotMatch)
			flush 7 k 1 put:k=v => locked(k:PessimisticLock@6,fut=6)`},
		// test_flush_overwrite, test_flush_out_of_order
		{"the largest generation wins", `
			flush 1 k 2 put:k=2 => ok
			flush 1 k 1 put:k=1 => ok
			flush 1 k 2 put:k=again => ok
			buffer 1 k => [k=2]
			flush 1 k 3 del:k => ok
			buffer 1 k => [k=]
			flush 1 k 4 put:k=x*300 => ok
			commit 1 2 k => ok
			get k 3 => =x*300`},
		// test_flushed_existence_check
		{"an insertion of what an earlier flush put", `
			flush 1 k 1 put:k=1 => ok
			flush 1 k 2 insert:k=2 => exists(k)
			flush 1 k 2 del:k => ok
			flush 1 k 3 insert:k=3 => ok
			buffer 1 k => [k=3]`},
		// test_flush_overwrite_assertion
		{"only the first flush asserts", `
			flush 1 k 1 put:k=1!absent level=2 => ok
			flush 1 k 2 put:k=2!exist level=2 => ok
			flush 1 j 2 put:j=2!exist level=2 => assertion(j,Exist,0-0)`},
		{"the buffer is the transaction's own", `
			prewrite 1 c put:c=0 1pc => ok 1pc=2
			flush 10 a 1 put:a=1 put:b=x*300 => ok
			flush 11 d 1 put:d=1 => ok
			buffer 10 d b c a b => [a=1 b=x*300]
			maxts => 10`},
		{"rolled back is rolled back", `
			flush 10 a 1 put:a=1 put:b=1 => ok
			resolve 10 0 => ok
			ended => rolledback
			records b => 10:Rollback@10=p
			flush 10 a 2 put:b=2 => conflict(SelfRolledBack,b@10,by 10-10)`},
		{"late copy after commit", `
			flush 10 a 1 put:a=1 => ok
			commit 10 20 a => ok
			flush 10 a 1 put:a=1 => ok
			records a => 20:Put@10=1`},
		// txn_heart_beat.rs
		{"heartbeat and readers push the least commit timestamp", `
			flush 10 a 1 put:a=1 ttl=5 => ok
			heartbeat a 10 9 min=15 => ttl=9
			status a 10 caller=14 now=14 => MinCommitTSPushed a:Put@10,ttl=9,min=15
			status a 10 caller=20 now=20 => MinCommitTSPushed a:Put@10,ttl=9,min=21
			heartbeat a 10 1 min=15 => ttl=9
			held a => a:Put@10,ttl=9,min=21
			prewrite 11 b put:b=1 => ok
			heartbeat b 11 1 min=15 => ttl=1
			held b => b:Put@11,ttl=1`},
	} {
		t.Run(test.name, func(t *testing.T) { newScript(t).run(test.script) })
	}
}

// gated is an engine whose Apply waits until it is let go on.
type gated struct {
	storage.Engine
	gate chan struct{}
}

func (g *gated) Apply(b *storage.Batch) error {
	<-g.gate
	return g.Engine.Apply(b)
}

// Between their calculation and the end of the write the locks of async commit and of
// one-phase commit are visible to reads.
func TestLocksInMemory(t *testing.T) {
	const async = `a:Put@10,min=11,async["b"]`
	for _, test := range []struct{ name, prewrite, during, after string }{
		{"async commit", `prewrite 10 a put:a=1 put:b=1 lock:c async secondaries=b => ok min=11`, `
			get a 10 => absent
			get a 11 => locked(` + async + `)
			get a max => locked(` + async + `)
			get a 11 rc => absent
			get a 11 rccheck => conflict(RcCheckTs,a@11,by 10-0)
			get a 11 bypass=10 => absent
			# it is not committed, whoever says so
			get a 11 access=10 => locked(` + async + `)
			get c 11 => absent
			get d 11 => absent
			batchget 11 d a b => locked(` + async + `)
			batchget 10 d a b => []
			scan 11 => locked(` + async + `)
			scan 11 start=b => locked(b:Put@10/a,min=11,async[])
			scan 11 start=b end=a reverse => locked(` + async + `)
			scan 11 start=c => []
			scan 10 => []
			scanlock 9 => []
			scanlock 10 => locked(` + async + `)
			buffer 11 a => locked(` + async + `)
			get a 11 bypass=10 replica => locked(` + async + `)
			get a 10 replica => absent
			get a 11 stale => locked(` + async + `)
			records a => `, `
			get a 11 access=10 => =1
			held a => a:Put@10,min=11,async["b"]
			held c => c:Lock@10/a,min=11,async[]`},
		{"one phase", `prewrite 10 a put:a=1 put:b=1 1pc => ok 1pc=11`, `
			get a 10 => absent
			get a 11 => locked(a:Put@10,min=11)
			get a max => locked(a:Put@10,min=11)
			get a max replica => locked(a:Put@10,min=11)
			records a => `, `
			get a 11 => =1
			get a 10 => absent`},
		{"two phases", `prewrite 10 a put:a=1 => ok`, `
			get a 11 => absent`, `
			get a 11 => locked(a:Put@10)`},
		{"a fallback's are gone", `prewrite 10 a put:a=1 put:b=1 put:c=1 min=20 1pc maxcommit=19 => ok`, `
			get a 30 => absent`, `
			get a 30 => locked(a:Put@10,min=20)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				g := &gated{s.store, make(chan struct{})}
				s.e.store = g
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.run(test.prewrite)
				}()
				synctest.Wait()
				func() {
					defer close(g.gate)
					s.run(test.during)
				}()
				<-done
				s.run(test.after)
				if n := s.e.manager.inMemory.Load(); n != 0 || len(s.e.manager.locks) != 0 {
					t.Errorf("%d locks are left in memory", n)
				}
			})
		})
	}
}

// A prewrite that fails leaves no lock in memory.
func TestFailedPrewriteLeavesNoLockInMemory(t *testing.T) {
	s := newScript(t)
	s.run(`prewrite 5 b put:b=1 => ok`)
	s.e.store = failing{s.store}
	s.run(`
		prewrite 10 a put:a=1 async => abort(Other("no)
		prewrite 10 a put:a=1 1pc => abort(Other("no)
		prewrite 10 a put:a=1 put:b=1 1pc => locked(b:Put@5)
		prewrite 10 a put:a=1 put:a=2 async => abort(Other("no)
		get a 20 => absent`)
	if n := s.e.manager.inMemory.Load(); n != 0 || len(s.e.manager.locks) != 0 {
		t.Errorf("%d locks are left in memory", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	release, err := s.e.latches.Acquire(t.Context(), keyOf([]byte("a")).enc)
	if err != nil {
		t.Fatal(err)
	}
	resp := s.e.Prewrite(ctx, s.bounds, &kvrpcpb.PrewriteRequest{StartVersion: 10, UseAsyncCommit: true,
		Mutations: []*kvrpcpb.Mutation{{Key: []byte("a")}}})
	release()
	if len(resp.Errors) != 1 || s.e.manager.inMemory.Load() != 0 {
		t.Errorf("%v, %d locks are left in memory", resp, s.e.manager.inMemory.Load())
	}
}

// Every store has its own MaxTS; a replica read asks that of the leader.
func TestManagers(t *testing.T) {
	s := newScript(t)
	one, two := NewManager(), NewManager()
	leader := func(region uint64) *Manager { return one }
	first, second := s.e.On(one, leader), s.e.On(two, leader)
	s.e = second
	s.run(`
		get a 20 => absent
		maxts => 20`)
	s.e = first
	s.run(`
		maxts => 0
		prewrite 10 a put:a=1 1pc => ok 1pc=11`)
	s.e = second
	s.run(`get a 30 replica => =1`)
	s.e = first
	s.run(`
		maxts => 30
		prewrite 12 a put:a=2 1pc => ok 1pc=31`)
	s.e = second
	s.run(`get a 40 replica stale => =2`)
	if one.MaxTS() != 30 {
		t.Errorf("a stale read raised it to %d", one.MaxTS())
	}
}

func TestStatusCache(t *testing.T) {
	var c statusCache
	for ts := range uint64(statusCacheSize + 2) {
		c.add(ts, ts+1)
		c.add(ts, ts+1)
	}
	for ts, want := range map[uint64]bool{0: false, 1: false, 2: true, statusCacheSize + 1: true, statusCacheSize + 2: false} {
		if c.has(ts) != want {
			t.Errorf("%d: %v", ts, !want)
		}
	}
	if len(c.commitTS) != statusCacheSize || len(c.order) != statusCacheSize {
		t.Error(len(c.commitTS), len(c.order))
	}
}
