package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/pingcap/kvproto/pkg/coprocessor"
	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/copr"
	"github.com/tikv-go/tikv/playground/internal/topology"
)

// addFlashback lists the two requests of a flashback: the first closes the region for all
// others, the second writes and opens it (TiKV src/server/service/kv.rs, future_prepare_
// flashback_to_version and future_flashback_to_version).
func (s *Store) addFlashback(cs commands) {
	e := s.Txn
	add(cs, command{method: "KvPrepareFlashbackToVersion", kind: write, flashback: true},
		func(q *kvrpcpb.PrepareFlashbackToVersionRequest) inside { return seek(q.StartKey) }, e.PrepareFlashback,
		func(p *kvrpcpb.PrepareFlashbackToVersionResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_PrepareFlashbackToVersion{PrepareFlashbackToVersion: p}}
		})
	prepare := cs.of(&kvrpcpb.PrepareFlashbackToVersionRequest{})
	prepare.begin = func(_ context.Context, _ *topology.Region, req any) (any, func(context.Context) any) {
		q := req.(*kvrpcpb.PrepareFlashbackToVersionRequest)
		return nil, func(ctx context.Context) any { return s.prepareFlashback(ctx, prepare, q) }
	}
	add(cs, command{method: "KvFlashbackToVersion", kind: write, flashback: true},
		func(q *kvrpcpb.FlashbackToVersionRequest) inside { return seek(q.StartKey) },
		func(ctx context.Context, in keys.Range, q *kvrpcpb.FlashbackToVersionRequest) *kvrpcpb.FlashbackToVersionResponse {
			return e.Flashback(ctx, in, true, q)
		},
		func(p *kvrpcpb.FlashbackToVersionResponse) *batchResponse {
			return &batchResponse{Cmd: &tikvpb.BatchCommandsResponse_Response_FlashbackToVersion{FlashbackToVersion: p}}
		})
	execute := cs.of(&kvrpcpb.FlashbackToVersionRequest{})
	execute.begin = func(ctx context.Context, r *topology.Region, req any) (any, func(context.Context) any) {
		q := req.(*kvrpcpb.FlashbackToVersionRequest)
		return s.flashback(ctx, execute, q, r)
	}
}

// prepareFlashback closes the region and writes there what holds its resolved timestamp
// back. One that is closed already is closed anew.
func (s *Store) prepareFlashback(ctx context.Context, c *command, q *kvrpcpb.PrepareFlashbackToVersionRequest) any {
	if e := s.setFlashback(c, q.GetContext(), q.GetStartTs()); e != nil {
		return c.refuse(e)
	}
	r, e := s.enter(c, q.GetContext())
	if e != nil {
		return c.refuse(e)
	}
	defer r.Leave()
	r.Writes()
	defer r.Wrote()
	return c.run(ctx, r.Range(), q)
}

// flashback writes, and opens the region if that succeeded.
func (s *Store) flashback(ctx context.Context, c *command, q *kvrpcpb.FlashbackToVersionRequest, r *topology.Region) (any, func(context.Context) any) {
	_, closed := r.FlashbackTS()
	p := s.Txn.Flashback(ctx, r.Range(), closed, q)
	if p.RegionError != nil || p.Error != "" {
		return p, nil
	}
	return nil, func(context.Context) any {
		if e := s.setFlashback(c, q.GetContext(), 0); e != nil {
			return c.refuse(e)
		}
		return p
	}
}

// setFlashback closes the request's region at a timestamp, or opens it. Of the epoch the
// conf version counts too (components/raftstore/src/store/util.rs, admin_cmd_epoch_lookup).
func (s *Store) setFlashback(c *command, ctx *kvrpcpb.Context, startTS uint64) *errorpb.Error {
	err := s.Topology.Flashback(ctx.GetRegionId(), startTS, func(r *topology.Region) error {
		if r.Peer(s.ID) == nil {
			return refused{regionNotFound(r.ID())}
		}
		if e := s.checkRegion(c, ctx, r); e != nil {
			return refused{e}
		}
		if ctx.GetRegionEpoch().GetConfVer() != r.Meta.RegionEpoch.GetConfVer() {
			return refused{s.epochNotMatch(ctx.RegionEpoch, r)}
		}
		return nil
	})
	var no refused
	switch {
	case errors.As(err, &no):
		return no.region
	case err != nil && s.Topology.ByID(ctx.GetRegionId()) == nil:
		return regionNotFound(ctx.GetRegionId())
	case err != nil:
		return words(err.Error())
	}
	return nil
}

// checkFlashback keeps everything but a flashback itself out of a region that is closed
// for one, and reads that see nothing of it (components/raftstore/src/store/util.rs,
// check_flashback_state; src/server/raftkv/mod.rs, async_snapshot).
func (s *Store) checkFlashback(c *command, req any, r *topology.Region) *errorpb.Error {
	began, is := r.FlashbackTS()
	if !is || c.flashback {
		return nil
	}
	if q, ok := req.(*coprocessor.Request); ok && q.Tp == copr.Checksum {
		return nil // for backups (src/coprocessor/endpoint.rs)
	}
	if ts := readTS(req); ts != 0 && ts < began {
		return nil
	}
	return flashingBack(r)
}

// flashingBack is the error for a region that is closed, nil for another.
func flashingBack(r *topology.Region) *errorpb.Error {
	began, is := r.FlashbackTS()
	if !is {
		return nil
	}
	return &errorpb.Error{
		Message:             fmt.Sprintf("region %d is in the flashback progress with start_ts %d", r.ID(), began),
		FlashbackInProgress: &errorpb.FlashbackInProgress{RegionId: r.ID(), FlashbackStartTs: began},
	}
}

// checkMerging keeps writes out of a region that is being merged into another, and reads
// that ask its leader for an index. The leader reads on, under a lease which is not renewed
// but lasts longer than merges do (components/raftstore/src/store/peer.rs, propose_normal,
// pre_read_index, maybe_renew_leader_lease).
func (s *Store) checkMerging(c *command, ctx *kvrpcpb.Context, r *topology.Region) *errorpb.Error {
	switch {
	case r.Into == nil:
	case c.kind != read:
		return merging(r)
	case ctx.GetReplicaRead() && !c.leader && !ctx.GetStaleRead():
		const reason = "can not read index due to merge"
		return &errorpb.Error{
			Message:           fmt.Sprintf("read index not ready, reason %s, region %d", reason, r.ID()),
			ReadIndexNotReady: &errorpb.ReadIndexNotReady{Reason: reason, RegionId: r.ID()},
		}
	}
	return nil
}

// merging is the error for a write to a region that is being merged, nil for another.
func merging(r *topology.Region) *errorpb.Error {
	if r.Into == nil {
		return nil
	}
	return &errorpb.Error{
		Message:               fmt.Sprintf("%d peer in merging mode, can't do proposal", r.ID()),
		ProposalInMergingMode: &errorpb.ProposalInMergingMode{RegionId: r.ID()},
	}
}

// frozen is the error for a write to a region that must stay as it is, nil for another.
func frozen(r *topology.Region) *errorpb.Error {
	if e := flashingBack(r); e != nil {
		return e
	}
	return merging(r)
}

// readTS is the timestamp that a request reads at, 0 for one that does not say so to its
// region (src/storage/mod.rs, prepare_snap_ctx and scan).
func readTS(req any) uint64 {
	switch q := req.(type) {
	case *kvrpcpb.GetRequest:
		return q.Version
	case *kvrpcpb.BatchGetRequest:
		return q.Version
	case *kvrpcpb.ScanRequest:
		return q.Version
	case *kvrpcpb.BufferBatchGetRequest:
		return q.Version
	case *coprocessor.Request:
		return copr.StartTS(q)
	}
	return 0
}
