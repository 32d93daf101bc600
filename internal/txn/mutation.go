package txn

import (
	"context"
	"math"
	"sort"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
)

// mutations are what a transaction sends to the cluster, in key order.
type mutations struct {
	keys [][]byte
	all  []*kvrpcpb.Mutation
	// held are the keys that are left with locks, and so have to be committed: all, or all
	// but those that are only checked.
	held [][]byte
	// wanted are keys to be locked that must have no value: no operation says both.
	wanted   [][]byte
	absent   [][]byte // the same, of keys that are locked with others
	bytes    int      // of keys and values
	keyBytes int      // of keys
	asserts  bool     // one has an assertion
	shared   bool     // one is a shared lock
}

// fewMutations is how many need no memory of their own.
const fewMutations = 4

// few is the memory of few mutations.
type few struct {
	keys [fewMutations][]byte
	all  [fewMutations]*kvrpcpb.Mutation
	each [fewMutations]kvrpcpb.Mutation
}

// more is the memory of more mutations, kept for the next commit. Not so their keys:
// these are needed when it is over.
type more struct {
	all  []*kvrpcpb.Mutation
	each []kvrpcpb.Mutation
}

// moreKept is how many mutations are kept memory for.
const moreKept = 4096

// take returns room for n mutations.
func (r *more) take(n int) ([]*kvrpcpb.Mutation, []kvrpcpb.Mutation) {
	if cap(r.each) < n {
		r.all, r.each = make([]*kvrpcpb.Mutation, 0, n), make([]kvrpcpb.Mutation, n)
	}
	r.each = r.each[:n]
	return r.all[:0], r.each
}

func (e *Engine) takeMore() *more {
	if r, _ := e.mores.Get().(*more); r != nil {
		return r
	}
	return &more{}
}

// giveMore takes back what nobody refers to any more.
func (e *Engine) giveMore(r *more) {
	if r == nil || cap(r.each) > moreKept {
		return
	}
	clear(r.each)
	e.mores.Put(r)
}

// collect turns a buffer of n entries into mutations (facts section 3.2, "Op choice"), of a
// transaction that holds locks if pessimistic is set. They lie in few if
// that is enough, or else in more.
func (m *mutations) collect(view membuf.View, n int, pessimistic bool, few *few, more *more) {
	m.keys, m.all = few.keys[:0], few.all[:0]
	each := few.each[:]
	if n > fewMutations {
		m.keys = make([][]byte, 0, n)
		m.all, each = more.take(n)
	}
	checked := 0
	c := view.Scan(keys.Range{}, false)
	for e, ok := c.Next(); ok; e, ok = c.Next() {
		if pessimistic && e.Flags&membuf.Absent != 0 {
			if e.Flags&membuf.Shared != 0 {
				m.absent = append(m.absent, e.Key)
			}
			e.Flags = checkable(e.Flags)
		}
		op, ok := opOf(e)
		if !ok {
			continue
		}
		if op == kvrpcpb.Op_CheckNotExists {
			checked++
		}
		m.shared = m.shared || op == kvrpcpb.Op_SharedLock
		if op == kvrpcpb.Op_Lock && e.Flags&membuf.Absent != 0 {
			m.wanted = append(m.wanted, e.Key)
		}
		mut := &each[len(m.all)]
		mut.Op, mut.Key, mut.Value, mut.Assertion = op, e.Key, e.Value, assertionOf(e)
		m.asserts = m.asserts || mut.Assertion != kvrpcpb.Assertion_None
		m.keys, m.all = append(m.keys, e.Key), append(m.all, mut)
		m.keyBytes += len(e.Key)
		m.bytes += len(e.Key) + len(e.Value)
	}
	if m.held = m.keys; checked > 0 {
		m.held = make([][]byte, 0, len(m.keys)-checked)
		for i, key := range m.keys {
			if m.locks(i) {
				m.held = append(m.held, key)
			}
		}
	}
}

// checkable is what a pessimistic transaction claims of a key. What it has locked is known
// to be absent, or the lock would have failed. Nothing can be checked without a lock:
// CheckNotExists is refused (TiKV src/storage/txn/actions/prewrite.rs, from_mutation).
func checkable(f membuf.Flags) membuf.Flags {
	if f&membuf.Locked != 0 {
		return f &^ membuf.Absent
	}
	return f | membuf.Locked
}

// opOf is what an entry asks of the cluster; false: nothing.
func opOf(e membuf.Entry) (kvrpcpb.Op, bool) {
	absent, locked := e.Flags&membuf.Absent != 0, e.Flags&membuf.Locked != 0
	switch {
	case e.Flags&membuf.Shared != 0: // and not written
		return kvrpcpb.Op_SharedLock, true
	case e.Op == membuf.Put && absent:
		return kvrpcpb.Op_Insert, true
	case e.Op == membuf.Put:
		return kvrpcpb.Op_Put, true
	case absent && locked: // nothing to write: it was absent and is, but stays locked
		return kvrpcpb.Op_Lock, true
	case absent:
		return kvrpcpb.Op_CheckNotExists, true
	case e.Op == membuf.Delete:
		return kvrpcpb.Op_Del, true
	}
	return kvrpcpb.Op_Lock, locked
}

// assertionOf is what the entry's first write said of the key.
func assertionOf(e membuf.Entry) kvrpcpb.Assertion {
	switch {
	case e.Flags&(membuf.AssertExists|membuf.AssertAbsent) == membuf.AssertExists|membuf.AssertAbsent: // nothing can be said any more
	case e.Flags&membuf.AssertExists != 0:
		return kvrpcpb.Assertion_Exist
	case e.Flags&membuf.AssertAbsent != 0:
		return kvrpcpb.Assertion_NotExist
	}
	return kvrpcpb.Assertion_None
}

// locks reports whether mutation i leaves a lock.
func (m *mutations) locks(i int) bool { return m.all[i].Op != kvrpcpb.Op_CheckNotExists }

// size is the bytes of mutation i in a request.
func (m *mutations) size(i int) int { return len(m.keys[i]) + len(m.all[i].Value) }

// heldFrom is the index in held of the first key at or behind mutation i.
func (m *mutations) heldFrom(i int) int {
	switch {
	case len(m.held) == len(m.keys):
		return i
	case i == len(m.keys):
		return len(m.held)
	}
	key := string(m.keys[i])
	return sort.Search(len(m.held), func(j int) bool { return string(m.held[j]) >= key })
}

// batchBytes is the size that a batch of one request has at least before another is
// begun (client-go TxnCommitBatchSize).
const batchBytes = 16 << 10

// The life of a lock that nobody prolongs: longer where writing all of them takes
// longer (client-go txnkv/transaction/2pc.go, txnLockTTL).
const (
	minTTL   = 3 * time.Second
	maxTTL   = 20 * time.Second
	ttlPerMB = 6 * time.Second // times the square root of the size in MiB
)

func lockTTL(size int) time.Duration {
	if size < batchBytes {
		return minTTL
	}
	mb := float64(size) / (1 << 20)
	return min(max(time.Duration(float64(ttlPerMB)*math.Sqrt(mb)), minTTL), maxTTL)
}

// checkWanted refuses keys that are to be locked and to be absent and are present in a
// view. That nobody wrote them since is what locking them shows.
func checkWanted(ctx context.Context, op string, in *Snapshot, wanted [][]byte) error {
	first := len(wanted)
	if err := in.BatchGet(ctx, op, wanted, false, func(i int, _ Value) { first = min(first, i) }); err != nil {
		return err
	}
	if first < len(wanted) {
		return &Exists{Key: wanted[first]}
	}
	return nil
}
