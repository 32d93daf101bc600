package store

import (
	"github.com/pingcap/kvproto/pkg/errorpb"

	"github.com/tikv-go/tikv/playground/internal/fault"
)

// call describes a request to the faults.
func (s *Store) call(c *command, req any) *fault.Call {
	call := &fault.Call{Method: c.name(req), Node: fault.Node{Kind: fault.Store, ID: s.ID}}
	if q, ok := req.(request); ok {
		call.Region = q.GetContext().GetRegionId()
	}
	return call
}

// before looks at what a request is about to do; count counts it once it is done.
func (s *Store) before(req any) bool { return false }

func (s *Store) count(before bool, req, answer any) {}

func regionNotFound(id uint64) *errorpb.Error { return fault.RegionError(fault.RegionNotFound, id, 0) }

// words is a region error without a kind.
func words(text string) *errorpb.Error { return &errorpb.Error{Message: text} }
