package mvcc

import (
	"testing"

	"github.com/tikv-go/tikv/internal/keys"
)

// The cases are named by the row of the list of server rules that they test, the list
// that this package was written from.
func TestRules(t *testing.T) {
	for _, c := range []struct{ rule, script string }{
		{"two phases", `
			prewrite 10 a put:a=1 put:b=x*400 ttl=3000 size=2 => ok
			records a => lock:Put@10
			records b => lock:Put@10 value@10=x*400
			get a 9 => absent
			get a 10 => locked(a:Put@10,ttl=3000)
			get b 15 => locked(b:Put@10/a,ttl=3000)
			commit 10 20 a => ok
			commit 10 20 b => ok
			records a => 20:Put@10=1
			records b => 20:Put@10 value@10=x*400
			get a 19 => absent
			get a 20 => =1
			get b 30 => =x*400
			get b 30 committs => =x*400@20
			prewrite 30 a del:a lock:b => ok
			commit 30 40 a b => ok
			get a 39 => =1
			get a 40 => absent
			get b 40 => =x*400
			get b 40 committs => =x*400@20`},
		{"short values are part of the record", `
			prewrite 10 a put:a=x*255 put:b=y*256 => ok
			records a => lock:Put@10
			records b => lock:Put@10 value@10=y*256
			commit 10 20 a b => ok
			records a => 20:Put@10=x*255
			batchget 20 a b => [a=x*255 b=y*256]`},
		{"empty values", `
			prewrite 10 a put:a= => ok
			commit 10 20 a => ok
			get a 20 => =
			batchget 20 a b => [a=]`},
		{"optimistic conflict", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			prewrite 15 a put:a=2 => conflict(Optimistic,a@15,by 10-20)
			prewrite 20 a put:a=2 => ok
			rollback 20 a => ok
			# a newer record of any kind: a Lock, a Rollback
			prewrite 30 b lock:b => ok
			commit 30 40 b => ok
			prewrite 35 b put:b=2 => conflict(Optimistic,b@35,by 30-40)
			rollback 50 c => ok
			prewrite 45 c put:c=2 => conflict(Optimistic,c@45,by 50-50)
			# a rollback of this very transaction
			prewrite 50 c put:c=2 => conflict(SelfRolledBack,c@50,by 50-50)`},
		{"optimistic conflict: the flag of an overlapped rollback", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			status a 20 rollback => LockNotExistRollback
			records a => 20:Put@10=1+R+F0
			prewrite 20 a put:a=2 => conflict(SelfRolledBack,a@20,by 10-20)
			get a 20 => =1`},
		{"optimistic conflict: no check of many mutations without a record in their span", `
			prewrite 10 k put:k!exist put:l put:m put:n put:o put:p put:q put:r put:s put:t put:u put:v put:w level=1 => ok
			rollback 10 k l m n o p q r s t u v w => ok
			prewrite 10 k put:k put:l put:m put:n put:o put:p put:q put:r put:s put:t put:u put:v put:w => conflict(SelfRolledBack,k@10,by 10-10)`},
		{"foreign locks in prewrite", `
			prewrite 10 a put:a=1 ttl=5 => ok
			prewrite 11 b put:b=1 ttl=6 => ok
			prewrite 20 c put:a=2 put:c=2 put:b=2 => locked(a:Put@10,ttl=5) locked(b:Put@11,ttl=6)
			records c => 
			# any other error ends the request with that one
			prewrite 5 c put:c=1 => ok
			commit 5 30 c => ok
			prewrite 20 c put:a=2 put:c=2 put:b=2 => conflict(Optimistic,c@20,by 5-30)`},
		{"repeated prewrite", `
			prewrite 10 a put:a=1 put:b=1 => ok
			prewrite 10 a put:a=1 async 1pc => ok
			commit 10 20 a b => ok
			# already committed: success, with the commit timestamp
			prewrite 10 a put:a=1 => ok
			prewrite 10 a put:a=1 async => ok min=20
			prewrite 10 a put:a=1 async 1pc => ok min=20 1pc=20
			records a => 20:Put@10=1
			# seen behind a foreign lock
			prewrite 30 b put:b=3 => ok
			prewrite 10 a put:b=1 => ok
			records b => lock:Put@30 20:Put@10=1`},
		{"reads hidden in writes", `
			prewrite 10 a put:a=1 => ok
			maxts => 0
			prewrite 11 b insert:b=1 => ok
			maxts => 11
			prewrite 12 c cne:c => ok
			maxts => 12
			secondary 10 a => [a:Put@10] commit=0
			maxts => 12
			secondary 13 d => [] commit=0
			maxts => 13
			status a 10 caller=14 now=13 => NoAction a:Put@10
			maxts => 14
			status a 10 caller=max now=max => TTLExpireRollback
			maxts => 14`},
		{"insert and check-not-exists", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			prewrite 30 b put:b=1 insert:a=2 => exists(a)
			records b => 
			prewrite 30 b put:b=1 cne:a => exists(a)
			prewrite 30 b put:b=1 cne:c => ok
			records c => 
			rollback 30 b => ok
			# below Lock and Rollback records
			prewrite 40 a lock:a => ok
			commit 40 45 a => ok
			prewrite 50 a insert:a=2 => exists(a)
			prewrite 50 a del:a => ok
			commit 50 55 a => ok
			prewrite 60 a lock:a => ok
			commit 60 65 a => ok
			prewrite 70 a insert:a=2 => ok
			commit 70 75 a => ok
			get a 75 => =2`},
		{"assertions", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			prewrite 30 a put:a=2!absent level=1 => assertion(a,NotExist,10-20)
			prewrite 30 a put:a=2!absent level=0 => ok
			rollback 30 a => ok
			prewrite 31 a put:a=2!exist level=2 => ok
			rollback 31 a => ok
			prewrite 32 b put:b=2!exist level=2 => assertion(b,Exist,0-0)
			prewrite 33 b put:b=2!absent level=2 => ok
			rollback 33 b => ok
			# hidden by another error, except foreign locks, which it hides
			prewrite 34 c put:c=1 => ok
			prewrite 35 b put:b=2!exist put:c=2 level=2 => assertion(b,Exist,0-0)
			prewrite 10 b put:a=2 put:b=2!exist level=2 => ok
			prewrite 15 b put:b=2!exist put:a=2 level=2 => conflict(Optimistic,b@15,by 33-33)
			# the newest record is no version
			prewrite 40 a lock:a => ok
			commit 40 41 a => ok
			prewrite 50 a put:a=2!absent level=1 => assertion(a,NotExist,10-20)
			prewrite 50 a del:a => ok
			commit 50 51 a => ok
			prewrite 60 a put:a=2!exist level=1 => assertion(a,Exist,50-51)`},
		{"assertions: not loaded", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			prewrite 30 a put:a=1!absent fut=30 level=1 => ok
			rollback 30 a => ok
			prewrite 31 a put:a=1!absent fut=31 level=2 => assertion(a,NotExist,10-20)
			rollback 32 a => ok
			prewrite 32 a put:a=1!absent fut=32 level=2 => conflict(SelfRolledBack,a@32,by 32-32)`},
		{"commit", `
			prewrite 10 a put:a=1 put:b=1 min=15 => ok
			commit 10 10 a => abort(InvalidTxnTso)
			commit 10 9 a => abort(InvalidTxnTso)
			commit 10 14 a => expired(a@10,14<15)
			commit 10 15 a => ok
			# a commit record exists: success, whatever the timestamp
			commit 10 99 a => ok
			records a => 15:Put@10=1
			commit 11 20 a => locknotfound(a)
			# one failing key: nothing is written
			commit 10 20 b nothing => locknotfound(nothing)
			records b => lock:Put@10
			rollback 10 b => ok
			commit 10 20 b => locknotfound(b)
			# a pessimistic lock is removed
			lock p 30 p kind=S fut=30 => ok
			commit 30 40 p => ok
			records p => `},
		{"batch rollback", `
			prewrite 10 a put:a=x*400 put:b=1 ttl=1000000 => ok
			rollback 10 a b => ok
			records a => 10:Rollback@10=p
			records b => 10:Rollback@10
			rollback 10 a b => ok
			prewrite 20 a put:a=1 => ok
			commit 20 30 a => ok
			rollback 20 a => abort(Committed)
			# no lock, no record: a late prewrite fails
			rollback 40 c => ok
			prewrite 40 c put:c=1 => conflict(SelfRolledBack,c@40,by 40-40)
			# also async-commit locks
			lock d 50 d async ttl=1000000 => ok
			rollback 50 d => ok
			records d => 50:Rollback@50=p`},
		{"rollback records: collapsed unless protected", `
			rollback 10 a => ok
			rollback 20 a => ok
			records a => 20:Rollback@20
			prewrite 30 z put:a=1 => ok
			rollback 30 a => ok
			records a => 30:Rollback@30
			prewrite 40 a put:a=1 => ok
			rollback 40 a => ok
			records a => 40:Rollback@40=p
			rollback 50 a => ok
			records a => 50:Rollback@50 40:Rollback@40=p
			status a 60 rollback => LockNotExistRollback
			records a => 60:Rollback@60=p 50:Rollback@50 40:Rollback@40=p`},
		{"rollback at an occupied timestamp", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			# unprotected: left out
			rollback 20 a => ok
			records a => 20:Put@10=1
			prewrite 30 a put:a=3 => ok
			commit 30 40 a => ok
			# protected: a flag, with the next version as the fence
			status a 20 rollback => LockNotExistRollback
			records a => 40:Put@30=3 20:Put@10=1+R+F40
			status a 20 => NoAction
			rollback 20 a => ok
			prewrite 20 a put:a=2 => conflict(Optimistic,a@20,by 30-40)
			get a 25 => =1
			get a 45 => =3
			scan 25 => [a=1]
			scan 25 start=b reverse => [a=1]`},
		{"rollback at an occupied timestamp: remembered by an async-commit lock", `
			lock a 10 a async min=11 value=v => ok
			lock b 10 a async min=30 value=v => ok
			lock c 10 a min=11 value=v => ok
			status a 20 rollback => LockNotExistRollback
			status b 20 rollback => LockNotExistRollback
			status c 20 rollback => LockNotExistRollback
			secondary 21 a => [] commit=0
			commit 10 20 a => ok
			records a => 21:Rollback@21=p 20:Put@10=v+R
			get a 20 => =v
			prewrite 20 a put:a=1 => conflict(Optimistic,a@20,by 21-21)
			commit 10 30 b => ok
			records b => 30:Put@10=v 20:Rollback@20=p`},
		{"expiry", `
			prewrite 5s a put:a=1 ttl=1000 => ok
			status a 5s now=6s+9 => NoAction a:Put@5s,ttl=1000
			status a 5s now=7s => TTLExpireRollback
			records a => 5s:Rollback@5s=p
			status a 5s now=7s => NoAction
			prewrite 8s a put:a=1 ttl=100000 => ok
			status a 8s now=max => TTLExpireRollback
			lock b 9s b async ttl=1 => ok
			status b 9s now=max => NoAction b:Put@9s,ttl=1,async[]`},
		{"status of a prewritten primary: async commit", `
			lock a 5s a async ttl=1 min=6s secondaries=b,c value=v => ok
			status a 5s now=100s caller=99s => NoAction a:Put@5s,ttl=1,min=6s,async["b" "c"]
			status a 5s now=100s caller=99s force => TTLExpireRollback
			records a => 5s:Rollback@5s=p`},
		{"status of a pessimistic primary", `
			lock a 5s a kind=S fut=5s ttl=1000 => ok
			status a 5s now=6s => NoAction a:PessimisticLock@5s,ttl=1000,fut=5s
			status a 5s now=7s resolving => TTLExpirePessimisticRollback
			records a => 
			lock a 5s a kind=S fut=5s ttl=1000 => ok
			status a 5s now=7s => TTLExpireRollback
			records a => 5s:Rollback@5s=p
			# one taken in spite of a conflict may be a late copy
			lock a 5s a kind=S fut=6s ttl=1000 conflict => ok
			status a 5s now=6s => NoAction
			records a => 5s:Rollback@5s=p
			lock b 5s b kind=S fut=6s ttl=1000 conflict => ok
			status b 5s now=6s => NoAction b:PessimisticLock@5s,ttl=1000,fut=6s`},
		{"pushing min_commit_ts", `
			prewrite 5s a put:a=1 put:b=1 ttl=9000 min=5s+1 => ok
			prewrite 5s+2 c put:c=1 ttl=9000 => ok
			status a 5s caller=5s now=6s => MinCommitTSPushed a:Put@5s,ttl=9000,min=5s+1
			status a 5s caller=6s now=6s => MinCommitTSPushed a:Put@5s,ttl=9000,min=6s+1
			status a 5s caller=6s+5 now=7s => MinCommitTSPushed a:Put@5s,ttl=9000,min=7s
			status a 5s caller=0 now=7s => NoAction a:Put@5s,ttl=9000,min=7s
			status a 5s caller=max now=7s => MinCommitTSPushed a:Put@5s,ttl=9000,min=7s
			# one that knows no least commit timestamp
			status c 5s+2 caller=6s now=6s => NoAction c:Put@5s+2,ttl=9000
			# secondaries are not touched: the reader names the transaction
			get a 6s+9 => absent
			get b 6s+9 => locked(b:Put@5s/a,ttl=9000,min=5s+1)
			get b 6s+9 bypass=5s => absent
			commit 5s 6s+9 a => expired(a@5s,6s+9<7s)
			commit 5s 7s a => ok`},
		{"status without a lock", `
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			status a 10 rollback now=30 => NoAction committed=20
			rollback 11 a => ok
			status a 11 => NoAction
			status a 12 => txnnotfound(a@12)
			status a 12 rollback resolving => LockNotExistDoNothing
			status a 12 => txnnotfound(a@12)
			status a 12 rollback => LockNotExistRollback
			status a 12 => NoAction
			prewrite 12 a put:a=1 => conflict(Optimistic,a@12,by 10-20)
			# another transaction's lock is none
			prewrite 30 b put:b=1 => ok
			status b 31 rollback => LockNotExistRollback
			records b => lock:Put@30 31:Rollback@31=p`},
		{"verify_is_primary", `
			prewrite 5s a put:b=1 ttl=1 => ok
			status b 5s now=9s verify => mismatch(b:Put@5s/a,ttl=1)
			lock c 5s a kind=S fut=5s ttl=9000 => ok
			status c 5s now=5s verify resolving => mismatch(c:PessimisticLock@5s/a,ttl=9000,fut=5s)
			status c 5s now=5s verify => txnnotfound(c@5s)
			records c => lock:PessimisticLock@5s
			status c 5s now=5s verify rollback => LockNotExistRollback
			records c => 5s:Rollback@5s=p
			status b 5s now=9s => TTLExpireRollback`},
		{"check secondary locks", `
			prewrite 10 z put:a=1 put:b=1 put:c=1 => ok
			secondary 10 a b => [a:Put@10/z b:Put@10/z] commit=0
			commit 10 20 b => ok
			secondary 10 a b c => [] commit=20
			# nothing there: the call decides, protected
			secondary 10 a d c => [] commit=0
			records d => 10:Rollback@10=p
			rollback 30 d => ok
			records d => 30:Rollback@30 10:Rollback@10=p
			# it stops at the first
			secondary 10 e f => [] commit=0
			records f => 
			# a pessimistic lock is removed
			lock p 10 z kind=S fut=10 => ok
			secondary 10 p => [] commit=0
			records p => 10:Rollback@10=p
			# an unprotected rollback before it is collapsed
			rollback 8 g => ok
			secondary 10 g => [] commit=0
			records g => 10:Rollback@10=p`},
		{"resolve with keys", `
			prewrite 10 a put:a=1 put:b=1 put:c=1 => ok
			resolve 10 20 a => ok
			resolve 10 0 b => ok
			resolve 10 20 c b => locknotfound(b)
			resolve 10 0 a => abort(Committed)
			records c => lock:Put@10`},
		{"resolve a region", `
			prewrite 10 a put:a=1 put:b=1 => ok
			prewrite 11 c put:c=1 => ok
			prewrite 12 d put:d=1 => ok
			lock p 10 a kind=S fut=10 => ok
			resolve 10 9 => abort(InvalidTxnTso)
			resolve 10 20 => ok
			records a => 20:Put@10=1
			records b => 20:Put@10=1
			records p => 
			resolve 0 11=21 12=0 13=9 => ok
			records c => 21:Put@11=1
			records d => 12:Rollback@12=p
			scanlock max => []`},
		{"heartbeat", `
			prewrite 10 a put:a=1 put:b=1 ttl=100 => ok
			heartbeat a 10 200 => ttl=200
			heartbeat a 10 150 => ttl=200
			heartbeat b 10 300 => ttl=300
			lock p 10 p kind=S fut=10 ttl=5 => ok
			heartbeat p 10 6 => ttl=6
			heartbeat a 11 200 => txnnotfound(a@11)
			heartbeat x 10 200 => txnnotfound(x@10)`},
		{"SI read versus a lock", `
			prewrite 10 a put:a=0 put:b=0 put:c=0 put:d=0 => ok
			commit 10 11 a b c d => ok
			prewrite 20 a put:a=1 lock:b del:c put:d=x*400 min=25 => ok
			get a 19 => =0
			get a 24 => =0
			get a 25 => locked(a:Put@20,min=25)
			get b 30 => =0
			get c 30 => locked(c:Del@20/a,min=25)
			get a 30 bypass=19,20 => =0
			get a 30 access=20 => =1
			get c 30 access=20 => absent
			get d 30 access=20 => =x*400
			get a 30 access=20 committs => locked(a:Put@20,min=25)
			lock b 20 b kind=S fut=20 => ok
			get b 30 => =0
			batchget 30 a b c => [locked(a:Put@20,min=25) b=0 locked(c:Del@20/a,min=25)]
			batchget 30 a c d access=20 => [a=1 d=x*400]
			scan 30 => [locked(a:Put@20,min=25) b=0 locked(c:Del@20/a,min=25) locked(d:Put@20/a,min=25)]
			scan 30 access=20 => [a=1 b=0 d=x*400]
			scan 30 start=z access=20 reverse keys => [d= b= a=]
			scan 30 start=z bypass=20 reverse limit=2 => [d=0 c=0]`},
		{"read at the maximum timestamp", `
			prewrite 10 a put:a=0 put:b=0 => ok
			commit 10 11 a b => ok
			prewrite 20 a put:a=1 put:b=1 => ok
			get a max => =0
			get b max => locked(b:Put@20/a)
			get a max replica => =0
			maxts => 0
			rollback 20 a b => ok
			lock a 30 a async => ok
			get a max => locked(a:Put@30,async[])`},
		{"reads raise max_ts", `
			get a 10 => absent
			maxts => 10
			get a 9 => absent
			get a 20 stale => absent
			maxts => 10
			batchget 11 a => []
			maxts => 11
			scan 12 => []
			maxts => 12
			scanlock 13 => []
			maxts => 13`},
		{"isolation levels", `
			prewrite 10 a put:a=0 => ok
			commit 10 11 a => ok
			prewrite 20 a put:a=1 => ok
			get a 30 rc => =0
			scan 30 rc => [a=0]
			get a 15 rccheck => conflict(RcCheckTs,a@15,by 20-0)
			scan 15 rccheck => conflict(RcCheckTs,a@15,by 20-0)
			get a 15 rccheck bypass=20 => =0
			commit 20 21 a => ok
			get a 21 rccheck => =1
			get b 5 rccheck => absent
			lock c 5 c kind=L => ok
			get c 9 rccheck => absent`},
		{"scan", `
			prewrite 10 a put:a=1 put:b=2 put:c=x*400 put:d=4 => ok
			commit 10 20 a b c d => ok
			prewrite 30 b del:b put:e=5 put:a=6 => ok
			commit 30 40 b e a => ok
			scan 19 => []
			scan 20 => [a=1 b=2 c=x*400 d=4]
			scan 40 => [a=6 c=x*400 d=4 e=5]
			scan 40 reverse => []
			scan 40 start=z reverse => [e=5 d=4 c=x*400 a=6]
			scan 40 start=d end=b reverse => [c=x*400]
			scan 20 start=b end=d => [b=2 c=x*400]
			scan 20 start=b limit=1 => [b=2]
			scan 40 keys => [a= c= d= e=]
			scan 40 sample=2 => [a=6 d=4]
			scan 40 sample=3 limit=1 => [a=6]
			prewrite 50 f put:f=1 => ok
			prewrite 51 0 put:0=1 => ok
			scan 60 start=e => [e=5 locked(f:Put@50)]
			scan 60 end=b => [locked(0:Put@51) a=6]
			scan 60 start=z end=e reverse => [locked(f:Put@50) e=5]`},
		{"scan locks", `
			prewrite 10 a put:a=1 put:c=1 => ok
			prewrite 20 b put:b=1 => ok
			lock d 15 d kind=S fut=15 => ok
			scanlock 20 => [a:Put@10 b:Put@20 c:Put@10/a d:PessimisticLock@15,fut=15]
			scanlock 19 => [a:Put@10 c:Put@10/a d:PessimisticLock@15,fut=15]
			scanlock 20 limit=2 => [a:Put@10 b:Put@20]
			scanlock 20 start=b end=d => [b:Put@20 c:Put@10/a]`},
		{"delete range", `
			prewrite 10 a put:a=x*400 put:b=1 put:c=1 => ok
			commit 10 20 a b => ok
			destroy a c notify => .
			get b 20 => =1
			destroy b b => .invalid delete range command
			destroy b a => .invalid delete range command
			destroy a b => .
			records a => 
			destroy b z everywhere => .
			records b => 
			records c => `},
		{"pessimistic prewrite, unlocked key", `
			prewrite 10 a put:a=1 => ok
			commit 10 40 a => ok
			# no check, unless it is a retry
			prewrite 20 b put:a=2 fut=30 => ok
			rollback 20 a => ok
			prewrite 21 b put:a=2 fut=30 retry => abort(PessimisticLockNotFound/NonLockKeyConflict)
			prewrite 22 b put:a=2 fut=40 retry => ok
			rollback 22 a => ok
			prewrite 23 b put:a=2@constraint fut=50 => conflict(LazyUniquenessCheck,a@23,by 10-40)
			prewrite 41 b insert:a=2@constraint fut=50 => exists(a)
			prewrite 24 b cne:a fut=50 => abort(Other("cannot)
			# a newer rollback is none
			rollback 60 c => ok
			prewrite 50 b put:c=2 fut=55 retry => ok`},
		{"pessimistic prewrite, locked key", `
			# amended, if nothing is newer than the transaction
			prewrite 10 a put:a=1 => ok
			commit 10 20 a => ok
			prewrite 30 a put:a=3@check fut=30 => ok
			rollback 30 a => ok
			prewrite 15 a put:a=3@check fut=30 => abort(PessimisticLockNotFound/LockMissingAmendFail)
			# another's lock
			prewrite 40 a put:a=4 => ok
			prewrite 50 a put:a=5@check fut=50 => abort(PessimisticLockNotFound/LockTsMismatch)
			prewrite 50 a put:a=5 fut=50 => locked(a:Put@40)
			prewrite 60 b put:b=1 ttl=500 => ok
			prewrite 61 c put:b=1 fut=61 => locked(b:Put@60)
			# its own is overwritten and keeps the larger of everything
			lock c 70 c kind=S fut=75 ttl=100 min=80 => ok
			prewrite 70 c put:c=1@check@fut:74 fut=70 => abort(PessimisticLockNotFound/LockForUpdateTsMismatch)
			prewrite 70 c put:c=1@check@fut:75 fut=70 ttl=50 => ok
			scanlock 70 start=c => [c:Put@70,ttl=100,min=80,fut=75]
			# already committed
			commit 70 90 c => ok
			prewrite 70 c put:c=1@check fut=70 1pc => ok 1pc=90
			# an optimistic one over a pessimistic lock
			lock d 70 d kind=S fut=75 => ok
			prewrite 70 d put:d=1 => abort(LockTypeNotMatch)`},
		{"shared locks are refused", `
			prewrite 10 a shared:a => abort(Other("mismatch)`},
	} {
		t.Run(c.rule, func(t *testing.T) { newScript(t).run(c.script) })
	}
}

func TestBounds(t *testing.T) {
	s := newScript(t)
	s.run(`
		prewrite 10 a put:a=1 put:b=1 put:c=1 put:d=1 => ok
		prewrite 11 e put:e=1 => ok
		commit 11 12 e => ok`)
	s.bounds = keys.Range{Start: keys.Encode([]byte("b")), End: keys.Encode([]byte("d"))}
	s.run(`
		scanlock 20 => [b:Put@10/a c:Put@10/a]
		scanlock 20 start=a end=c => [b:Put@10/a]
		resolve 10 20 => ok
		scan 20 => abort(InvalidReqRange)
		scan 20 start=a end=c => abort(InvalidReqRange)
		scan 20 start=b end=e => abort(InvalidReqRange)
		scan 20 start=b end=d => [b=1 c=1]
		scan 20 start=b => [b=1 c=1]
		scan 20 start=d reverse => [c=1 b=1]
		destroy a e => .`)
	s.bounds = keys.Range{}
	s.run(`
		scan 20 => [locked(a:Put@10) locked(d:Put@10/a) e=1]`)
}
