package lock

import (
	"bytes"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// txn is a transaction whose locks were met, with those of one primary key.
type txn struct {
	start   uint64
	primary []byte
	locks   []Lock
	ttl     uint64 // the largest of the locks'; 0: resolve them alive or not
	settle  bool   // locks holds one that is not pessimistic

	judgement
	async *kvrpcpb.LockInfo // Alive: the primary lock, if of an asynchronous commit
	all   [][]byte          // every key of the transaction, if they are known
}

// judgement is what was found out about a transaction.
type judgement struct {
	status Status
	now    uint64 // the time by which it was judged
	fresh  bool   // just asked, so that the primary key has no lock of a transaction that is over
	orphan bool   // the transaction has another primary key by now
}

// left is how long a transaction that was alive lives on; 0 if that is not known.
func (t *txn) left() time.Duration {
	if t.now == 0 {
		return 0
	}
	return left(t.start, t.status.TTL, t.now)
}

// byTxn groups locks, in the order in which they came.
func byTxn(locks []Lock) []txn {
	if len(locks) == 1 {
		l := &locks[0]
		return []txn{{start: l.StartTS, primary: l.Primary, locks: locks, ttl: l.TTL, settle: !l.Pessimistic}}
	}
	var (
		txns  []txn
		index map[uint64][]int // by start timestamp: those of each primary key
	)
	for _, l := range locks {
		t := (*txn)(nil)
		for _, i := range index[l.StartTS] {
			if bytes.Equal(txns[i].primary, l.Primary) {
				t = &txns[i]
			}
		}
		if t == nil {
			if index == nil {
				index = make(map[uint64][]int, 1)
			}
			index[l.StartTS] = append(index[l.StartTS], len(txns))
			txns = append(txns, txn{start: l.StartTS, primary: l.Primary})
			t = &txns[len(txns)-1]
		}
		t.locks = append(t.locks, l)
		t.ttl = max(t.ttl, l.TTL)
		t.settle = t.settle || !l.Pessimistic
	}
	return txns
}
