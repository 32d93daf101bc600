package pdserver

import (
	"context"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/playground/internal/topology"
)

// operators are PD's changes of regions, one for each (PD: pkg/schedule/operator/
// operator_controller.go). What one does to its region is done at once; it runs on for as
// long as operators are said to take, as if the news of it came late, and is then
// remembered for a while.
type operators struct {
	now   func() time.Time
	known func(region uint64) *topology.Region

	mu    sync.Mutex
	takes time.Duration
	all   map[uint64]*operator // by region
}

// operator is a change of a region.
type operator struct {
	desc, kind string
	group      string // of a scatter
	epoch      epoch  // of the region before
	after      uint64 // the region's conf version that it leads to
	status     pdpb.OperatorStatus
	begun      time.Time
	ended      time.Time // once it does not run
	takes      time.Duration
}

type epoch struct{ conf, version uint64 }

func epochOf(r *topology.Region) epoch {
	e := r.Meta.GetRegionEpoch()
	return epoch{e.GetConfVer(), e.GetVersion()}
}

const (
	remembered  = 10 * time.Minute // PD: operatorStatusRemainTime
	scatterDesc = "scatter-region"
	splitDesc   = "region-splitter"
)

// add begins an operator whose work is done: the region is what it leads to.
func (o *operators) add(op operator, r *topology.Region) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op.begun, op.takes, op.status = o.now(), o.takes, pdpb.OperatorStatus_RUNNING
	op.after = epochOf(r).conf
	if o.all == nil {
		o.all = make(map[uint64]*operator)
	}
	o.all[r.ID()] = &op
	o.settle(r.ID())
}

// get returns a region's operator as it is now, and false without one.
func (o *operators) get(region uint64) (operator, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(region)
	if op := o.all[region]; op != nil {
		return *op, true
	}
	return operator{}, false
}

// finish ends a region's operator: somebody has reported that its work is done (PD:
// Dispatch).
func (o *operators) finish(region uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(region)
	if op := o.all[region]; op != nil && op.status == pdpb.OperatorStatus_RUNNING {
		op.status, op.ended = pdpb.OperatorStatus_SUCCESS, o.now()
	}
}

// settle ends an operator whose time has come, or whose region another change has
// overtaken (PD: checkStaleOperator), and forgets one that ended long ago. Callers hold
// the lock.
func (o *operators) settle(region uint64) {
	op, now := o.all[region], o.now()
	if op == nil {
		return
	}
	if op.status == pdpb.OperatorStatus_RUNNING {
		due := op.begun.Add(op.takes)
		switch r := o.known(region); {
		case !now.Before(due):
			op.status, op.ended = pdpb.OperatorStatus_SUCCESS, due
		case r == nil || epochOf(r).conf > op.after:
			op.status, op.ended = pdpb.OperatorStatus_CANCEL, now
		}
	}
	if op.status != pdpb.OperatorStatus_RUNNING && now.Sub(op.ended) >= remembered {
		delete(o.all, region)
	}
}

// SetOperatorTime lets operators that begin from now on run for a time.
func (pd *PD) SetOperatorTime(d time.Duration) {
	pd.operators.mu.Lock()
	defer pd.operators.mu.Unlock()
	pd.operators.takes = d
}

// GetOperator tells how a region's operator is; one that ended long ago is forgotten, and
// clients take it for done.
func (m *Member) GetOperator(_ context.Context, req *pdpb.GetOperatorRequest) (*pdpb.GetOperatorResponse, error) {
	op, ok := m.pd.operators.get(req.GetRegionId())
	if !ok {
		return &pdpb.GetOperatorResponse{Header: m.pd.refusal(pdpb.ErrorType_REGION_NOT_FOUND, "Not Found")}, nil
	}
	return &pdpb.GetOperatorResponse{
		Header: m.pd.header(), RegionId: req.GetRegionId(), Desc: []byte(op.desc), Kind: []byte(op.kind), Status: op.status,
	}, nil
}
