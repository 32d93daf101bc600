package playground

import (
	"fmt"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
)

// Counts is how often things happened since the cluster was started.
type Counts struct {
	// Commits are transactions of whose primary key the commit was stored, by whichever
	// request; again committing one does not count. One of one-phase commit counts when
	// it is stored. One of async commit is decided for its client as soon as all its
	// keys are prewritten, but counts when its primary is committed, a moment later.
	// Rollbacks are transactions rolled back at their primary. Conflicts are write
	// conflicts that were answered.
	Commits, Rollbacks, Conflicts int
	// Splits are regions that were made, LeaderMoves changes of a region's leader,
	// Starts nodes started again after Stop, Dropped requests or answers that faults
	// lost.
	Splits, LeaderMoves, Starts, Dropped int
	// Merges are regions that ended in others.
	Merges int
	// Calls are the requests that reached a node, by method.
	Calls map[string]int
}

// Counts returns how often things happened.
func (c *Cluster) Counts() Counts {
	return Counts{
		Commits: int(c.counter.Commits.Load()), Rollbacks: int(c.counter.Rollbacks.Load()), Conflicts: int(c.counter.Conflicts.Load()),
		Splits: c.topo.Splits(), Merges: c.topo.Merges(), LeaderMoves: c.topo.Moves(), Starts: int(c.counter.Starts.Load()), Dropped: c.faults.Dropped(),
		Calls: c.counter.Calls(),
	}
}

// Lock is a transaction's lock of a key, as the lock column family has it. A Shared one
// may be there beside others of its key, each a Lock of its own.
type Lock struct {
	Key, Primary                      []byte
	StartTS, ForUpdateTS, MinCommitTS uint64
	TTL                               time.Duration
	Pessimistic, Shared, AsyncCommit  bool
	Secondaries                       [][]byte
}

// Locks returns the locks of the user keys in [start, end) (of the keyspace DEFAULT in
// APIV2), in order of keys and start timestamps, at one moment; an empty end is no bound.
// Bytes are the caller's.
func (c *Cluster) Locks(start, end []byte) []Lock {
	in := keys.Range{Start: c.api.regionKey(KeyTxn, start)}
	if len(end) > 0 {
		in.End = c.api.regionKey(KeyTxn, end)
	} else if p := c.api.prefix(KeyTxn); p != nil {
		in.End = keys.Encode(keys.PrefixEnd(p))
	}
	var all []Lock
	for _, l := range c.txn.Locks(in) {
		if l.LockType != kvrpcpb.Op_SharedLock {
			all = append(all, c.lock(l))
			continue
		}
		for _, h := range l.SharedLockInfos {
			held := c.lock(h)
			held.Shared = true
			all = append(all, held)
		}
	}
	return all
}

// Txns returns the start timestamps of the transactions that hold locks, of all keyspaces,
// in order.
func (c *Cluster) Txns() []uint64 {
	var all []uint64
	for _, l := range c.txn.Locks(keys.Range{}) {
		if l.LockType != kvrpcpb.Op_SharedLock {
			all = append(all, l.LockVersion)
		}
		for _, h := range l.SharedLockInfos {
			all = append(all, h.LockVersion)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *Cluster) lock(l *kvrpcpb.LockInfo) Lock {
	user := func(wire []byte) []byte { return slices.Clone(c.api.userKey(wire)) }
	lock := Lock{
		Key: user(l.Key), Primary: user(l.PrimaryLock),
		StartTS: l.LockVersion, ForUpdateTS: l.LockForUpdateTs, MinCommitTS: l.MinCommitTs,
		TTL:         time.Duration(l.LockTtl) * time.Millisecond,
		Pessimistic: l.LockType == kvrpcpb.Op_PessimisticLock, AsyncCommit: l.UseAsyncCommit,
	}
	for _, k := range l.Secondaries {
		lock.Secondaries = append(lock.Secondaries, user(k))
	}
	return lock
}

// Version is a record of the write column family.
type Version struct {
	Kind              WriteKind
	StartTS, CommitTS uint64
	Value             []byte // of a WritePut
}

// WriteKind is what a transaction did to a key.
type WriteKind uint8

// The kinds of TiKV. WriteLock is a key that was locked and not changed.
const (
	WritePut WriteKind = iota
	WriteDelete
	WriteLock
	WriteRollback
)

// Versions returns what transactions did to a user key (of the keyspace DEFAULT in
// APIV2), the newest first, at one moment. Bytes are the caller's. A record that is
// damaged is an error.
func (c *Cluster) Versions(key []byte) ([]Version, error) {
	info, err := c.txn.Versions(c.api.wireKey(KeyTxn, key))
	if err != nil {
		return nil, fmt.Errorf("playground: %w", err)
	}
	long := make(map[uint64][]byte)
	for _, v := range info.Values {
		long[v.StartTs] = v.Value
	}
	var all []Version
	for _, w := range info.Writes {
		v := Version{StartTS: w.StartTs, CommitTS: w.CommitTs}
		switch w.Type {
		case kvrpcpb.Op_Put:
			v.Kind, v.Value = WritePut, slices.Clone(w.ShortValue)
			if w.ShortValue == nil {
				v.Value = slices.Clone(long[w.StartTs])
			}
		case kvrpcpb.Op_Del:
			v.Kind = WriteDelete
		case kvrpcpb.Op_Lock:
			v.Kind = WriteLock
		case kvrpcpb.Op_Rollback:
			v.Kind = WriteRollback
		default:
			return nil, fmt.Errorf("playground: a write record of kind %v", w.Type)
		}
		all = append(all, v)
	}
	return all, nil
}
