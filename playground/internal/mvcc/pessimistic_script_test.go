package mvcc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// pessimistic START FORUPDATE PRIMARY key[!absent]... Options: ttl min values exist
// onlyif force.
func (s *script) pessimisticLock(a *args) string {
	req := &kvrpcpb.PessimisticLockRequest{Context: a.context(), StartVersion: a.ts(), ForUpdateTs: a.ts(), PrimaryLock: a.key(),
		LockTtl: a.num("ttl"), MinCommitTs: a.num("min"), ReturnValues: a.has("values"), CheckExistence: a.has("exist"),
		LockOnlyIfExists: a.has("onlyif"), WaitTimeout: -1}
	if a.has("force") {
		req.WakeUpMode = kvrpcpb.PessimisticLockWakeUpMode_WakeUpModeForceLock
	}
	for len(a.words) > 0 {
		m := &kvrpcpb.Mutation{Op: kvrpcpb.Op_PessimisticLock}
		key, absent := strings.CutSuffix(a.next(), "!absent")
		key, shared := strings.CutSuffix(key, "!shared")
		m.Key = []byte(key)
		if absent {
			m.Assertion = kvrpcpb.Assertion_NotExist
		}
		if shared {
			m.Op = kvrpcpb.Op_SharedPessimisticLock
		}
		req.Mutations = append(req.Mutations, m)
	}
	resp := s.e.PessimisticLock(s.Context(), s.bounds, req)
	text := showErrors(resp.Errors)
	for i, absent := range resp.NotFounds {
		switch {
		case absent:
			text += " absent"
		case len(resp.Values) > 0:
			text += " =" + showValue(resp.Values[i])
		default:
			text += " exists"
		}
	}
	for _, r := range resp.Results {
		text += fmt.Sprintf(" %s", strings.TrimPrefix(r.Type.String(), "LockResult"))
		if r.Existence {
			text += " =" + showValue(r.Value)
		}
		if r.LockedWithConflictTs != 0 {
			text += "@" + showTS(r.LockedWithConflictTs)
		}
	}
	return text
}

// unlock START FORUPDATE [key...]
func (s *script) pessimisticRollback(a *args) string {
	resp := s.e.PessimisticRollback(s.Context(), s.bounds, &kvrpcpb.PessimisticRollbackRequest{StartVersion: a.ts(), ForUpdateTs: a.ts(), Keys: a.rest()})
	return showErrors(resp.Errors)
}

func TestPessimisticRules(t *testing.T) {
	for _, c := range []struct{ rule, script string }{
		{"lock, prewrite, commit", `
			prewrite 5 a put:a=0 => ok
			commit 5 6 a => ok
			pessimistic 10 11 a a b ttl=3000 values => ok =0 absent
			scanlock 20 => [a:PessimisticLock@10,ttl=3000,fut=11 b:PessimisticLock@10/a,ttl=3000,fut=11]
			get a 20 => =0
			prewrite 10 a put:a=1@check put:b=1@check put:c=1 fut=11 ttl=4000 => ok
			commit 10 30 a b c => ok
			scan 30 => [a=1 b=1 c=1]`},
		{"PessimisticLock is all or nothing", `
			pessimistic 10 10 b b => ok
			pessimistic 20 20 a a b c => locked(b:PessimisticLock@10,fut=10)
			records a => 
			prewrite 30 d put:d=1 => ok
			commit 30 40 d => ok
			pessimistic 20 20 a a d => conflict(PessimisticRetry,d@20,by 30-40)
			records a => 
			pessimistic 50 50 x x y force => abort(Other("multiple)
			pessimistic 50 50 x x onlyif => abort(LockIfExistsFailed)
			pessimistic 50 50 x x!shared => abort(Other("mismatch)`},
		{"PessimisticLock conflict", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			pessimistic 15 19 a a => conflict(PessimisticRetry,a@15,by 10-20)
			pessimistic 15 20 a a exist => ok exists
			unlock 15 20 a => ok
			# of any type
			rollback 30 a => ok
			pessimistic 25 29 a a => conflict(PessimisticRetry,a@25,by 30-30)
			# force mode: locked at the newer version, with its value
			pessimistic 15 17 a a force => ok LockedWithConflict =1@30
			scanlock 50 => [a:PessimisticLock@15,fut=30]
			# a repeat of it
			pessimistic 15 17 a a force => ok LockedWithConflict =1@30
			unlock 15 30 a => ok
			pessimistic 15 17 a a!absent force => conflict(PessimisticRetry,a@15,by 30-30)
			pessimistic 15 40 a a!absent force => exists(a)
			rollback 50 b => ok
			pessimistic 41 42 b b force values onlyif => conflict(PessimisticRetry,b@41,by 50-50)
			pessimistic 41 60 b b force values onlyif => ok Normal
			records b => 50:Rollback@50
			prewrite 70 c put:c=1 ttl=1 => ok
			pessimistic 80 80 c c force => locked(c:Put@70,ttl=1) Failed`},
		{"PessimisticLock of a rolled-back transaction", `
			rollback 10 a => ok
			pessimistic 10 10 a a => abort(PessimisticLockRolledBack)
			prewrite 20 a put:a=1 => ok
			commit 20 30 a => ok
			pessimistic 10 30 a a => abort(PessimisticLockRolledBack)
			status a 30 rollback => LockNotExistRollback
			pessimistic 30 40 a a => abort(PessimisticLockRolledBack)
			prewrite 40 b put:b=1 => ok
			pessimistic 40 40 b b => abort(LockTypeNotMatch)`},
		{"repeated PessimisticLock", `
			pessimistic 10 10 a a ttl=5 => ok
			pessimistic 10 10 a a ttl=9 => ok
			scanlock 20 => [a:PessimisticLock@10,ttl=5,fut=10]
			pessimistic 10 11 a a ttl=9 min=12 => ok
			scanlock 20 => [a:PessimisticLock@10,ttl=9,min=12,fut=11]
			pessimistic 10 9 a a ttl=99 exist => ok absent
			scanlock 20 => [a:PessimisticLock@10,ttl=9,min=12,fut=11]`},
		{"reads hidden in PessimisticLock", `
			pessimistic 10 10 a a => ok
			maxts => 0
			pessimistic 10 11 a a exist => ok absent
			maxts => 11
			pessimistic 10 12 a a values => ok absent
			maxts => 12
			pessimistic 10 13 a b!absent => ok
			maxts => 13`},
		{"PessimisticRollback", `
			pessimistic 10 10 a a b c => ok
			pessimistic 10 20 a d => ok
			pessimistic 11 11 e e => ok
			prewrite 10 a put:a=1@check fut=10 => ok
			unlock 10 15 a b d x e => ok
			scanlock 20 => [a:Put@10,fut=10 c:PessimisticLock@10/a,fut=10 d:PessimisticLock@10/a,fut=20 e:PessimisticLock@11,fut=11]
			records b => 
			unlock 10 19 => ok
			scanlock 20 => [a:Put@10,fut=10 d:PessimisticLock@10/a,fut=20 e:PessimisticLock@11,fut=11]`},
	} {
		t.Run(c.rule, func(t *testing.T) { newScript(t).run(c.script) })
	}
}
