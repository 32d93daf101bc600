package txn

import (
	"context"
	"math"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/internal/membuf"
	"github.com/tikv-go/tikv/internal/router"
)

// mutations are what a transaction sends to the cluster, in key order.
type mutations struct {
	keys   [][]byte
	values [][]byte
	ops    []kvrpcpb.Op
	// asserted are keys to be locked that must have no value: no operation says both.
	asserted [][]byte
}

// collect turns a buffer into mutations (facts section 3.2, "Op choice").
func collect(view membuf.View, n int) *mutations {
	m := &mutations{keys: make([][]byte, 0, n), values: make([][]byte, 0, n), ops: make([]kvrpcpb.Op, 0, n)}
	c := view.Scan(keys.Range{}, false)
	for e, ok := c.Next(); ok; e, ok = c.Next() {
		absent, locked := e.Flags&membuf.Absent != 0, e.Flags&membuf.Locked != 0
		switch {
		case e.Op == membuf.Put && absent:
			m.add(e, kvrpcpb.Op_Insert)
		case e.Op == membuf.Put:
			m.add(e, kvrpcpb.Op_Put)
		case absent && locked: // nothing to write: it was absent and is, but stays locked
			m.add(e, kvrpcpb.Op_Lock)
			m.asserted = append(m.asserted, e.Key)
		case absent:
			m.add(e, kvrpcpb.Op_CheckNotExists)
		case e.Op == membuf.Delete:
			m.add(e, kvrpcpb.Op_Del)
		case locked:
			m.add(e, kvrpcpb.Op_Lock)
		}
	}
	return m
}

func (m *mutations) add(e membuf.Entry, op kvrpcpb.Op) {
	m.keys, m.values, m.ops = append(m.keys, e.Key), append(m.values, e.Value), append(m.ops, op)
}

func (m *mutations) len() int { return len(m.keys) }

// size is the bytes of mutation i in a request.
func (m *mutations) size(i int) int { return len(m.keys[i]) + len(m.values[i]) }

// total is the bytes of all mutations.
func (m *mutations) total() (n int) {
	for i := range m.keys {
		n += m.size(i)
	}
	return n
}

// locks reports whether mutation i leaves a lock, and so has to be committed.
func (m *mutations) locks(i int) bool { return m.ops[i] != kvrpcpb.Op_CheckNotExists }

// primary is the first mutation that leaves a lock, or -1.
func (m *mutations) primary() int {
	for i := range m.ops {
		if m.locks(i) {
			return i
		}
	}
	return -1
}

// proto is mutations of one request.
func (m *mutations) proto(index []int) []*kvrpcpb.Mutation {
	all := make([]kvrpcpb.Mutation, len(index))
	out := make([]*kvrpcpb.Mutation, len(index))
	for i, j := range index {
		all[i] = kvrpcpb.Mutation{Op: m.ops[j], Key: m.keys[j], Value: m.values[j]}
		out[i] = &all[i]
	}
	return out
}

// locking returns those of the mutations that leave locks.
func (m *mutations) locking(index []int) []int {
	out := make([]int, 0, len(index))
	for _, i := range index {
		if m.locks(i) {
			out = append(out, i)
		}
	}
	return out
}

// batchBytes is the size that a batch of one request has at least before another is
// begun (client-go TxnCommitBatchSize).
const batchBytes = 16 << 10

// batches cuts groups of mutations into the batches of a prewrite.
func (m *mutations) batches(groups []router.Group) []router.Group {
	return cut(groups, batchBytes, m.size)
}

// keyBatches cuts groups of mutations into batches of keys alone.
func (m *mutations) keyBatches(groups []router.Group) []router.Group {
	return cut(groups, batchBytes, func(i int) int { return len(m.keys[i]) })
}

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

// checkAsserted refuses keys that are to be locked and to be absent and are present at
// the transaction's start. That nobody wrote them since is what locking them shows.
func (t *Txn) checkAsserted(ctx context.Context, op string, m *mutations) error {
	first := len(m.asserted)
	if err := t.snap.BatchGet(ctx, op, m.asserted, false, func(i int, _ Value) { first = min(first, i) }); err != nil {
		return err
	}
	if first < len(m.asserted) {
		return &Exists{Key: m.asserted[first]}
	}
	return nil
}
