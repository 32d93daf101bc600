package store

import (
	"slices"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"

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
	for _, list := range [][][]byte{in.keys, in.seeks, in.named} {
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
	case interface{ GetStartTs() uint64 }:
		return q.GetStartTs()
	}
	return 0
}

// count counts what was answered. Commits and rollbacks are counted where they are
// stored.
func (s *Store) count(answer any) {
	p, ok := answer.(*kvrpcpb.PrewriteResponse)
	if ok && slices.ContainsFunc(p.Errors, func(e *kvrpcpb.KeyError) bool { return e.Conflict != nil }) {
		s.Counter.Conflicts.Add(1)
	}
}

func regionNotFound(id uint64) *errorpb.Error { return fault.RegionError(fault.RegionNotFound, id, 0) }

// words is a region error without a kind.
func words(text string) *errorpb.Error { return &errorpb.Error{Message: text} }
