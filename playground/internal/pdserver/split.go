package pdserver

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// ScatterRegion scatters regions, or, in the old form of the call, one, of which PD may
// hear here for the first time.
func (m *Member) ScatterRegion(ctx context.Context, req *pdpb.ScatterRegionRequest) (*pdpb.ScatterRegionResponse, error) {
	if ids := req.GetRegionsId(); len(ids) > 0 {
		percent, failed, err := m.scatter(ctx, ids, req.GetGroup(), req.GetRetryLimit())
		if err != nil {
			return nil, err
		}
		return &pdpb.ScatterRegionResponse{Header: m.pd.header(), FinishedPercentage: percent, FailedRegionsId: failed}, nil
	}
	//lint:ignore SA1019 PD still serves it
	r := m.pd.Topology.PD().ByID(req.GetRegionId())
	if r == nil && req.GetRegion() != nil {
		r = m.pd.Topology.ByID(req.GetRegion().GetId())
	}
	if r == nil {
		return &pdpb.ScatterRegionResponse{Header: m.pd.refusal(pdpb.ErrorType_REGION_NOT_FOUND, "region %d not found")}, nil // as PD has it
	}
	if err := m.pd.scatterer.scatter(r, req.GetGroup()); err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return &pdpb.ScatterRegionResponse{Header: m.pd.header(), FinishedPercentage: 100}, nil
}

// scatter scatters regions, and tells how many of a hundred are, and which are not (PD:
// server/grpc_service.go, scatterRegions; region_scatterer.go, ScatterRegionsByID).
func (m *Member) scatter(ctx context.Context, ids []uint64, group string, retries uint64) (percent uint64, failed []uint64, err error) {
	var todo []uint64
	done := 0
	for _, id := range ids {
		switch r := m.pd.Topology.PD().ByID(id); {
		case r == nil && len(ids) == 1:
			return 0, nil, status.Error(codes.Unknown, errRegionNotFound(id).Error())
		case r == nil && !slices.Contains(failed, id):
			failed = append(failed, id)
		case r != nil && !slices.Contains(todo, id):
			todo = append(todo, id)
		}
	}
	if len(todo) == 0 {
		return 0, nil, status.Error(codes.Unknown, errEmptyRegion.Error())
	}
	for try := uint64(0); ; try++ {
		todo = slices.DeleteFunc(todo, func(id uint64) bool {
			r := m.pd.Topology.PD().ByID(id)
			if r == nil || m.pd.scatterer.scatter(r, group) != nil {
				return false
			}
			done++
			return true
		})
		if len(todo) == 0 || try >= min(retries, maxRetries) || !m.pause(ctx, try) {
			break
		}
	}
	failed = append(failed, todo...)
	slices.Sort(failed)
	return uint64(100 - 100*len(failed)/(done+len(failed))), failed, nil
}

const (
	maxRetries = 30
	firstPause = 100 * time.Millisecond
	maxPause   = time.Minute
)

// pause waits before another try, ever longer, unless the call ends.
func (m *Member) pause(ctx context.Context, try uint64) bool {
	d := maxPause
	if try < 10 { // 100 ms doubled ten times are more
		d = min(maxPause, firstPause<<try)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-m.life(ctx).Done():
	}
	return false
}

// SplitRegions splits regions at keys, region keys, and answers with the regions that
// begin there and did not before.
func (m *Member) SplitRegions(ctx context.Context, req *pdpb.SplitRegionsRequest) (*pdpb.SplitRegionsResponse, error) {
	percent, ids := m.split(ctx, req.GetSplitKeys(), req.GetRetryLimit())
	return &pdpb.SplitRegionsResponse{Header: m.pd.header(), FinishedPercentage: percent, RegionsId: ids}, nil
}

// SplitAndScatterRegions splits, and scatters the regions that result.
func (m *Member) SplitAndScatterRegions(ctx context.Context, req *pdpb.SplitAndScatterRegionsRequest) (*pdpb.SplitAndScatterRegionsResponse, error) {
	split, ids := m.split(ctx, req.GetSplitKeys(), req.GetRetryLimit())
	if len(ids) == 0 {
		return nil, status.Error(codes.Unknown, errEmptyRegion.Error())
	}
	scattered, _, err := m.scatter(ctx, ids, req.GetGroup(), req.GetRetryLimit())
	if err != nil {
		return nil, err
	}
	return &pdpb.SplitAndScatterRegionsResponse{
		Header: m.pd.header(), RegionsId: ids, SplitFinishedPercentage: split, ScatterFinishedPercentage: scattered,
	}, nil
}

// split splits at the keys where no region begins, and tells at how many of a hundred a
// region begins now that did not (PD: pkg/schedule/splitter/region_splitter.go).
func (m *Member) split(ctx context.Context, at [][]byte, retries uint64) (percent uint64, ids []uint64) {
	if len(at) == 0 {
		return 0, nil
	}
	left := at
	for try := uint64(0); ; try++ {
		var begun []uint64
		left, begun = m.splitOnce(left)
		ids = append(ids, begun...)
		if len(left) == 0 || try >= retries || !m.pause(ctx, try) {
			break
		}
	}
	slices.Sort(ids)
	return uint64(100 - len(left)*100/len(at)), slices.Compact(ids)
}

// splitOnce splits each region at its keys; left are those that no region came to begin
// at.
func (m *Member) splitOnce(at [][]byte) (left [][]byte, begun []uint64) {
	split := make(map[string]bool)
	sorted := slices.Clone(at)
	slices.SortFunc(sorted, bytes.Compare)
	for len(sorted) > 0 {
		r := m.pd.Topology.PD().ByKey(sorted[0])
		n := 1
		for r != nil && n < len(sorted) && r.Range().Contains(sorted[n]) {
			n++
		}
		var inside [][]byte
		for _, key := range slices.CompactFunc(slices.Clone(sorted[:n]), bytes.Equal) {
			if r != nil && !bytes.Equal(key, r.Meta.StartKey) {
				inside = append(inside, key)
			}
		}
		sorted = sorted[n:]
		parts, err := m.splitRegion(r, inside)
		if err != nil {
			continue
		}
		for _, p := range parts[1:] {
			split[string(p.Meta.StartKey)] = true
			begun = append(begun, p.ID())
		}
	}
	for _, key := range at {
		if !split[string(key)] {
			left = append(left, key)
		}
	}
	return left, begun
}

// splitRegion lets a region that is well be split, by an operator.
func (m *Member) splitRegion(r *topology.Region, at [][]byte) ([]*topology.Region, error) {
	switch {
	case r == nil || len(at) == 0:
		return nil, errEmptyRegion
	case !m.pd.replicated(r) || r.Leader == nil:
		return nil, fmt.Errorf("region %d is not well", r.ID())
	}
	if op, ok := m.pd.operators.get(r.ID()); ok && op.status == pdpb.OperatorStatus_RUNNING {
		return nil, fmt.Errorf("the operator of region %d already exist", r.ID())
	}
	parts, err := m.pd.Topology.Split(r.ID(), at)
	if err == nil {
		m.pd.operators.add(operator{desc: splitDesc, kind: "split", epoch: epochOf(r)}, parts[len(parts)-1])
	}
	return parts, err
}
