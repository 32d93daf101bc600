package txn

import (
	"bytes"
	"context"
	"math"
	"sort"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/lock"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
)

// pessimist is what a pessimistic transaction has locked in the cluster. It belongs to
// the call that the transaction's guard lets in alone. Which keys are locked is in the
// buffer (membuf.Locked), and of the statement under way in stage.
type pessimist struct {
	pessimism
	primary []byte // the key that all locks point to; nil: nothing is locked
	// asOf is the newest timestamp that the transaction has seen: its start, a for-update
	// timestamp, a commit that fair locking met. asked is when it was issued.
	asOf  uint64
	asked time.Time
	// unsure: a call has failed, and what it locked may still be there or come late.
	unsure bool
	shared bool // the same, of a call for shared locks
	// loose are keys that a call that failed may have locked, or may yet, in fair locking
	// above a commit that nobody has heard of, else at a timestamp above that of a later call.
	loose map[string]struct{}
	// freed is the largest timestamp up to which locks are being removed by freeing: one
	// that is taken at or below it meanwhile may go with them.
	freed   uint64
	freeing []<-chan struct{} // see awaitFreed

	stage *Stage
	// expected are the for-update timestamps of keys that were locked in fair mode. A
	// request that comes late may lock such a key anew above a commit that nobody has
	// heard of, so that the prewrite has to say which lock it means (TiKV src/storage/
	// txn/actions/prewrite.rs, check_lock).
	expected map[string]uint64
}

func (p *pessimist) expect(key string, asOf uint64) {
	if p.expected == nil {
		p.expected = make(map[string]uint64)
	}
	p.expected[key] = asOf
}

// awaitFreed waits until what is being removed is.
func (p *pessimist) awaitFreed(ctx context.Context) error {
	for _, done := range p.freeing {
		select {
		case <-done:
		case <-ctx.Done():
			return new(router.Call).Ended(ctx)
		}
	}
	p.freeing = nil
	return nil
}

// mayWrite waits where a call that failed may have left shared locks: a key that the
// transaction shares with others cannot be written (TiKV src/storage/txn/actions/
// prewrite.rs, prewrite_with_generation).
func (p *pessimist) mayWrite(ctx context.Context) error {
	if p == nil || !p.shared {
		return nil
	}
	return p.awaitFreed(ctx)
}

// pessimism is what the end of a pessimistic transaction takes. A program that has none
// does not link it.
type pessimism interface {
	prewrite(t *Txn, req *kvrpcpb.PrewriteRequest)
	committed(t *Txn)
	letGo(t *Txn) (done <-chan struct{})
}

// Pessimistic is the Options.Pessimism of a pessimistic transaction.
func Pessimistic() any { return pessimistic{} }

// pessimistic is the only pessimism.
type pessimistic struct{}

// holds reports whether anything was locked, or may have been by a call that failed, so that
// the transaction has to commit as a pessimistic one: another's prewrite may not meet a
// pessimistic lock of its own (TiKV src/storage/txn/actions/prewrite.rs, check_lock).
func (p *pessimist) holds() bool { return p != nil && (p.primary != nil || p.unsure) }

// locked reports whether the transaction holds key in the cluster.
func (t *Txn) locked(key []byte) bool {
	e, _ := t.buf.Get(key)
	return e.Flags&membuf.Locked != 0
}

// knows tells whether a key had a value when it was locked, of which e is the entry; known
// is false if it is not locked, or shared, so that it may not be written anyhow.
func (p *pessimist) knows(e membuf.Entry, key []byte) (exists, known bool) {
	if p == nil {
		return false, false
	}
	if g, ok := p.stage.grip(key); ok {
		return g.Exists, true
	}
	return e.Flags&membuf.HadValue != 0, e.Flags&(membuf.Locked|membuf.Shared) == membuf.Locked
}

// asOf is a view as of the newest timestamp that a pessimistic transaction has seen: what it
// holds locks on cannot have changed since.
func (t *Txn) asOf() *Snapshot { return t.e.Snapshot(t.pess.asOf, true, &t.opts.Read) }

// prewrite makes a prewrite that of a transaction which holds pessimistic locks.
// What it has locked must be locked still. What it wrote without a lock has to be as it
// was at the start, as in an optimistic transaction: TiKV would write it unchecked, which
// is right only for keys that another lock stands for (facts section 3.3,
// "pessimistic_actions"). Each mutation has its action: those without one are dropped.
func (pessimistic) prewrite(t *Txn, req *kvrpcpb.PrewriteRequest) {
	p := t.pess
	req.ForUpdateTs = p.asOf
	req.MinCommitTs = max(req.MinCommitTs, p.asOf+1)
	req.PessimisticActions = make([]kvrpcpb.PrewriteRequest_PessimisticAction, len(req.Mutations))
	for i, m := range req.Mutations {
		if !t.locked(m.Key) {
			req.PessimisticActions[i] = kvrpcpb.PrewriteRequest_DO_CONSTRAINT_CHECK
			continue
		}
		req.PessimisticActions[i] = kvrpcpb.PrewriteRequest_DO_PESSIMISTIC_CHECK
		if ts, ok := p.expected[string(m.Key)]; ok {
			req.ForUpdateTsConstraints = append(req.ForUpdateTsConstraints,
				&kvrpcpb.PrewriteRequest_ForUpdateTSConstraint{Index: uint32(i), ExpectedForUpdateTs: ts})
		}
	}
}

// revive gives locks that a pessimistic prewrite met a life again. TiKV tells such a
// prewrite that they are over, alive or not, for it takes the keys to be protected by
// others (prewrite.rs, lock_info); here they are not, and who lives is waited for. What
// is sure is the life that every client gives its locks at least.
func (t *Txn) revive(locks []lock.Lock) {
	if !t.pess.holds() {
		return
	}
	for i := range locks {
		if locks[i].TTL == 0 {
			locks[i].TTL = uint64(minTTL.Milliseconds())
		}
	}
}

// mayCommit refuses a commit in the middle of a statement: which of its locks the
// transaction is to keep is not known.
func (t *Txn) mayCommit(o CommitOptions) error {
	if t.pipe != nil {
		return t.pipe.mayCommit(o)
	}
	if t.pess != nil && t.pess.stage != nil {
		return &Misuse{"Commit", "is called before FairLock's Done or Cancel"}
	}
	return nil
}

// primaryOf is the index of the primary key among those that are left with locks: the one
// that all locks point to, or else the first.
func (p *pessimist) primaryOf(keys [][]byte) int {
	if !p.holds() {
		return 0
	}
	return sort.Search(len(keys), func(i int) bool { return bytes.Compare(keys[i], p.primary) >= 0 })
}

// decide comes before the commit record is written.
func (t *Txn) decide() {
	t.guard.cuttable(nil)
	t.beat.decide()
}

// committed lets go of what a transaction that has committed may have beside.
func (pessimistic) committed(t *Txn) {
	var keys [][]byte
	for key := range t.pess.loose {
		keys = append(keys, []byte(key))
	}
	t.unlock(keys, math.MaxUint64)
}
