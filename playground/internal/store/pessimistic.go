package store

import (
	"context"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// addPessimistic lists the requests about pessimistic locks.
func (s *Store) addPessimistic(cs commands) {
	e := s.Txn
	add(cs, command{method: "KvPessimisticLock", kind: write},
		func(q *kvrpcpb.PessimisticLockRequest) inside {
			in := inside{keys: make([][]byte, len(q.Mutations))}
			for i, m := range q.Mutations {
				in.keys[i] = m.GetKey()
			}
			return in
		}, e.PessimisticLock,
		func(p *kvrpcpb.PessimisticLockResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_PessimisticLock{PessimisticLock: p}}
		})
	lock := cs.of(&kvrpcpb.PessimisticLockRequest{})
	lock.begin = func(ctx context.Context, _ *topology.Region, req any) (any, func(context.Context) any) {
		q := req.(*kvrpcpb.PessimisticLockRequest)
		answer, w := e.LockOrWait(ctx, place{s, lock, q.GetContext()}, q)
		if w == nil {
			return answer, nil
		}
		return nil, func(ctx context.Context) any { return w.Wait(ctx) }
	}
	add(cs, command{method: "KVPessimisticRollback", kind: write},
		func(q *kvrpcpb.PessimisticRollbackRequest) inside { return several(q.Keys) }, e.PessimisticRollback,
		func(p *kvrpcpb.PessimisticRollbackResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_PessimisticRollback{PessimisticRollback: p}}
		})
	add(cs, command{method: "GetLockWaitInfo", kind: local}, nothing,
		func(context.Context, keys.Range, *kvrpcpb.GetLockWaitInfoRequest) *kvrpcpb.GetLockWaitInfoResponse {
			return &kvrpcpb.GetLockWaitInfoResponse{Entries: e.LockWaits(s.ID)}
		}, nil)
}

// place is the region of a request that is resumed after it has waited.
type place struct {
	s   *Store
	c   *command
	ctx *kvrpcpb.Context
}

// Check returns the region error that the request would get now. The keys of a region
// whose version is the same are the same.
func (p place) Check() *errorpb.Error {
	r := p.s.Topology.ByID(p.ctx.GetRegionId())
	if r == nil || r.Peer(p.s.ID) == nil {
		return regionNotFound(p.ctx.GetRegionId())
	}
	if e := p.s.checkRegion(p.c, p.ctx, r); e != nil {
		return e
	}
	return frozen(r)
}

// Enter holds the region until leave.
func (p place) Enter() (leave func(), refused *errorpb.Error) {
	r, e := p.s.enter(p.c, p.ctx)
	if e == nil {
		if e = frozen(r); e != nil {
			r.Leave()
		}
	}
	if e != nil {
		return nil, e
	}
	r.Writes()
	return func() {
		r.Wrote()
		r.Leave()
	}, nil
}
