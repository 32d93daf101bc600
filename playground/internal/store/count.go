package store

import (
	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// The key modes of faults, as playground.KeyMode numbers them.
const (
	modeTxn uint8 = iota + 1
	modeRaw
)

// call describes a request to the faults.
func (s *Store) call(c *command, req any) *fault.Call {
	call := &fault.Call{Method: c.name(req), Node: fault.Node{Kind: fault.Store, ID: s.ID}, StartTS: startTS(req)}
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

// before looks at what a request is about to do; count counts it once it is done.
func (s *Store) before(req any) bool { return false }

func (s *Store) count(before bool, req, answer any) {}

func regionNotFound(id uint64) *errorpb.Error { return fault.RegionError(fault.RegionNotFound, id, 0) }

// words is a region error without a kind.
func words(text string) *errorpb.Error { return &errorpb.Error{Message: text} }
