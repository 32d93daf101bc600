package lockwait

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/deadlock"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// Seat is where the cluster's deadlocks are detected: at the leader of the region that
// holds the least key, for as long as that region stays as it is (TiKV src/server/
// lock_manager/deadlock.rs, RoleChangeNotifier).
type Seat struct {
	Region, Store, Term, ConfVer, Version uint64
}

// Detector knows which transaction waits for which, over all stores, and finds circles
// (same file, DetectTable). What it knows is lost when its seat changes; without one it
// finds nothing, and waits in a circle end by their timeouts.
type Detector struct {
	seat func() Seat

	mu    sync.Mutex
	at    Seat
	waits map[uint64]map[uint64]*edge // by waiting transaction, by holder
}

// edge is that a transaction waits for another, on one or more keys.
type edge struct {
	keys []waitKey // the first is the one that is reported
	tag  []byte
	seen time.Time
}

type waitKey struct {
	hash uint64
	key  []byte
}

// edgeLife is how long an edge lasts that is not asserted again: as long as a wait can
// last.
const edgeLife = MaxWait

// NewDetector returns a detector that knows nothing. A seat at store 0 is none.
func NewDetector(seat func() Seat) *Detector {
	return &Detector{seat: seat, waits: make(map[uint64]map[uint64]*edge)}
}

// sit reports whether there is a detector now, and forgets what another one knew.
func (d *Detector) sit() bool {
	if now := d.seat(); now != d.at {
		d.at = now
		clear(d.waits)
	}
	return d.at.Store != 0
}

// holders are the transactions that have a lock: of a shared one there are several (TiKV
// components/txn_types/src/lock.rs, LockInfoExt::iter_locks).
func holders(l *kvrpcpb.LockInfo) []uint64 {
	if l.LockType != kvrpcpb.Op_SharedLock {
		return []uint64{l.LockVersion}
	}
	all := make([]uint64, len(l.SharedLockInfos))
	for i, h := range l.SharedLockInfos {
		all[i] = h.LockVersion
	}
	return all
}

// detect takes up that a transaction waits for the holders of a key, unless that closes
// a circle: then it returns the deadlock, having taken up those holders that come before
// the one in the circle (handle_detect_locally).
func (d *Detector) detect(w *Waiter, now time.Time) *kvrpcpb.Deadlock {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.sit() {
		return nil
	}
	for _, holder := range holders(w.lock) {
		if found := d.waitFor(w, holder, now); found != nil {
			return found
		}
	}
	return nil
}

// waitFor is detect for one holder.
func (d *Detector) waitFor(w *Waiter, holder uint64, now time.Time) *kvrpcpb.Deadlock {
	txn := w.StartTS
	if e := d.waits[txn][holder]; e != nil { // was no circle before, is none now
		if !slices.ContainsFunc(e.keys, func(k waitKey) bool { return k.hash == w.hash }) {
			e.keys = append(e.keys, waitKey{w.hash, w.Key})
		}
		e.seen, e.tag = now, w.Tag
		return nil
	}
	if chain := d.path(holder, txn, now); chain != nil {
		last := chain[len(chain)-1]
		return &kvrpcpb.Deadlock{
			LockTs: holder, LockKey: w.Key, DeadlockKeyHash: last.KeyHash,
			WaitChain: append(chain, w.entry(holder)),
		}
	}
	if d.waits[txn] == nil {
		d.waits[txn] = make(map[uint64]*edge)
	}
	d.waits[txn][holder] = &edge{keys: []waitKey{{w.hash, w.Key}}, tag: w.Tag, seen: now}
	return nil
}

// path is a chain of waits from one transaction to another, nil when there is none
// (do_detect, generate_wait_chain). Edges that it meets too old it removes.
func (d *Detector) path(from, to uint64, now time.Time) []*deadlock.WaitForEntry {
	before := map[uint64]uint64{from: 0}
	for stack := []uint64{from}; len(stack) > 0; {
		txn := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		edges := d.waits[txn]
		maps.DeleteFunc(edges, func(_ uint64, e *edge) bool { return now.Sub(e.seen) >= edgeLife })
		if len(edges) == 0 {
			delete(d.waits, txn)
			continue
		}
		for _, holder := range slices.Sorted(maps.Keys(edges)) {
			if holder == to {
				return d.chain(before, txn, to)
			}
			if _, met := before[holder]; !met {
				before[holder] = txn
				stack = append(stack, holder)
			}
		}
	}
	return nil
}

// chain lists the waits that lead to txn, and its own for holder last.
func (d *Detector) chain(before map[uint64]uint64, txn, holder uint64) []*deadlock.WaitForEntry {
	var chain []*deadlock.WaitForEntry
	for ; txn != 0; txn, holder = before[txn], txn {
		e := d.waits[txn][holder]
		chain = append(chain, &deadlock.WaitForEntry{
			Txn: txn, WaitForTxn: holder, KeyHash: e.keys[0].hash, Key: e.keys[0].key, ResourceGroupTag: e.tag,
		})
	}
	slices.Reverse(chain)
	return chain
}

// forget takes back that a transaction waits for the holders of a key
// (clean_up_wait_for).
func (d *Detector) forget(w *Waiter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.sit() {
		return
	}
	for _, holder := range holders(w.lock) {
		d.forgetWait(w, holder)
	}
}

func (d *Detector) forgetWait(w *Waiter, holder uint64) {
	txn := w.StartTS
	e := d.waits[txn][holder]
	if e == nil {
		return
	}
	e.keys = slices.DeleteFunc(e.keys, func(k waitKey) bool { return k.hash == w.hash })
	if len(e.keys) > 0 {
		return
	}
	if delete(d.waits[txn], holder); len(d.waits[txn]) == 0 {
		delete(d.waits, txn)
	}
}

// edges is how many pairs of a waiter and a holder are known.
func (d *Detector) edges() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, holders := range d.waits {
		n += len(holders)
	}
	return n
}
