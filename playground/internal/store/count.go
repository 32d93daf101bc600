package store

import (
	"bytes"
	"slices"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/fault"
)

// The key modes of faults, as playground.KeyMode numbers them.
const (
	modeTxn uint8 = iota + 1
	modeRaw
)

// call describes a request to the faults.
func (s *Store) call(c *command, req any) *fault.Call {
	call := &fault.Call{Method: c.name(), Node: fault.Node{Kind: fault.Store, ID: s.ID}, StartTS: startTS(req)}
	if q, ok := req.(request); ok {
		call.Region = q.GetContext().GetRegionId()
	}
	if c.kind != local {
		if call.Mode = modeTxn; c.raw {
			call.Mode = modeRaw
		}
		call.Keys = func() [][]byte { return s.userKeys(c.inside(req)) }
	}
	return call
}

// userKeys are the keys that a request names, without what API V2 puts before them.
func (s *Store) userKeys(in inside) [][]byte {
	var all [][]byte
	for _, list := range [][][]byte{in.keys, in.seeks} {
		for _, k := range list {
			all = append(all, s.UserKey(k))
		}
	}
	for _, r := range in.ranges {
		all = append(all, s.UserKey(r.Start))
	}
	return all
}

// startTS is the timestamp by which a transactional request names its transaction.
func startTS(req any) uint64 {
	switch q := req.(type) {
	case interface{ GetStartVersion() uint64 }:
		return q.GetStartVersion()
	case interface{ GetLockTs() uint64 }:
		return q.GetLockTs()
	case interface{ GetVersion() uint64 }:
		return q.GetVersion()
	}
	return 0
}

// before tells whether a request is about to decide a transaction: whether one of its
// keys is locked by the transaction as its primary.
func (s *Store) before(req any) bool {
	switch q := req.(type) {
	case *kvrpcpb.CommitRequest:
		return s.holdsPrimary(q.Keys, q.StartVersion)
	case *kvrpcpb.BatchRollbackRequest:
		return s.holdsPrimary(q.Keys, q.StartVersion)
	}
	return false
}

func (s *Store) holdsPrimary(all [][]byte, startTS uint64) bool {
	for _, key := range all {
		enc := keys.Encode(key)
		for _, l := range s.Txn.Locks(keys.Range{Start: enc, End: keys.Next(enc)}) {
			if l.LockVersion == startTS && bytes.Equal(l.PrimaryLock, key) {
				return true
			}
		}
	}
	return false
}

// count counts a request that was answered; deciding is what before said of it.
func (s *Store) count(deciding bool, req, answer any) {
	switch p := answer.(type) {
	case *kvrpcpb.CommitResponse:
		if deciding && p.Error == nil {
			s.Counter.Commits.Add(1)
		}
	case *kvrpcpb.BatchRollbackResponse:
		if deciding && p.Error == nil {
			s.Counter.Rollbacks.Add(1)
		}
	case *kvrpcpb.CheckTxnStatusResponse:
		switch p.Action {
		case kvrpcpb.Action_TTLExpireRollback, kvrpcpb.Action_LockNotExistRollback:
			s.Counter.Rollbacks.Add(1)
		}
	case *kvrpcpb.PrewriteResponse:
		if p.OnePcCommitTs != 0 && !req.(*kvrpcpb.PrewriteRequest).GetContext().GetIsRetryRequest() {
			s.Counter.Commits.Add(1)
		}
		if slices.ContainsFunc(p.Errors, func(e *kvrpcpb.KeyError) bool { return e.Conflict != nil }) {
			s.Counter.Conflicts.Add(1)
		}
	}
}

func regionNotFound(id uint64) *errorpb.Error { return fault.RegionError(fault.RegionNotFound, id, 0) }

// words is a region error without a kind.
func words(text string) *errorpb.Error { return &errorpb.Error{Message: text} }
