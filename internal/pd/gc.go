package pd

import (
	"context"
	"math"
	"time"

	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-go/tikv/internal/codec"
)

// GCState is how far garbage collection may go and has gone in one keyspace, or outside
// of any where Keyspace is codec.NullKeyspaceID.
type GCState struct {
	Keyspace      uint32
	KeyspaceLevel bool   // the keyspace has safe points of its own
	TxnSafePoint  uint64 // what is older may not be read
	GCSafePoint   uint64 // what is older may be gone
	Barriers      []GCBarrier
}

// GCBarrier holds the transaction safe point back.
type GCBarrier struct {
	ID  string
	TS  uint64
	TTL time.Duration // what is left of it; Forever for no end
}

// Forever is the TTL of a barrier that never expires.
const Forever time.Duration = math.MaxInt64

// GCAdvance is what became of a wish to advance a safe point.
type GCAdvance struct {
	Old, New uint64
	Blocker  string // what held it back, in PD's words
}

// GCState returns the safe points that hold for a keyspace, or for the data outside of
// any where keyspaceID is codec.NullKeyspaceID.
func (c *Client) GCState(ctx context.Context, keyspaceID uint32) (txnSafePoint, gcSafePoint uint64, err error) {
	state, err := c.gcState(ctx, keyspaceID, false)
	return state.TxnSafePoint, state.GCSafePoint, err
}

// GCStateWithBarriers returns a keyspace's state with its own barriers; those of all
// keyspaces come with GCStates.
func (c *Client) GCStateWithBarriers(ctx context.Context, keyspaceID uint32) (GCState, error) {
	return c.gcState(ctx, keyspaceID, true)
}

func (c *Client) gcState(ctx context.Context, keyspaceID uint32, barriers bool) (GCState, error) {
	const op = "GetGCState"
	resp, err := ask(ctx, c, op, func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetGCStateResponse, error) {
		return pd.GetGCState(ctx, &pdpb.GetGCStateRequest{
			Header: c.header(), KeyspaceScope: scope(keyspaceID), ExcludeGcBarriers: !barriers,
		})
	})
	if err != nil {
		return GCState{}, err
	}
	if resp.GetGcState() == nil {
		return GCState{}, &Error{Op: op, Addr: c.Leader(), Kind: Rejected, Message: "answer without a state"}
	}
	return newGCState(resp.GetGcState()), nil
}

// GCStates returns the states of all keyspaces and of what is outside, and the barriers
// of all.
func (c *Client) GCStates(ctx context.Context) ([]GCState, []GCBarrier, error) {
	resp, err := ask(ctx, c, "GetAllKeyspacesGCStates", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.GetAllKeyspacesGCStatesResponse, error) {
		return pd.GetAllKeyspacesGCStates(ctx, &pdpb.GetAllKeyspacesGCStatesRequest{Header: c.header()})
	})
	if err != nil {
		return nil, nil, err
	}
	var states []GCState
	for _, s := range resp.GetGcStates() {
		states = append(states, newGCState(s))
	}
	return states, newBarriers(resp.GetGlobalGcBarriers()), nil
}

// SetGCBarrier sets a keyspace's barrier, whole seconds rounded up, or replaces one of
// the same id. PD refuses one below the transaction safe point.
func (c *Client) SetGCBarrier(ctx context.Context, keyspaceID uint32, id string, ts uint64, ttl time.Duration) (GCBarrier, error) {
	resp, err := ask(ctx, c, "SetGCBarrier", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.SetGCBarrierResponse, error) {
		return pd.SetGCBarrier(ctx, &pdpb.SetGCBarrierRequest{
			Header: c.header(), KeyspaceScope: scope(keyspaceID), BarrierId: id, BarrierTs: ts, TtlSeconds: ttlSeconds(ttl),
		})
	})
	return newBarrier(resp.GetNewBarrierInfo()), err
}

// DeleteGCBarrier removes a keyspace's barrier, and reports whether there was one.
func (c *Client) DeleteGCBarrier(ctx context.Context, keyspaceID uint32, id string) (bool, error) {
	resp, err := ask(ctx, c, "DeleteGCBarrier", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.DeleteGCBarrierResponse, error) {
		return pd.DeleteGCBarrier(ctx, &pdpb.DeleteGCBarrierRequest{Header: c.header(), KeyspaceScope: scope(keyspaceID), BarrierId: id})
	})
	return resp.GetDeletedBarrierInfo() != nil, err
}

// SetGlobalGCBarrier sets a barrier of all keyspaces.
func (c *Client) SetGlobalGCBarrier(ctx context.Context, id string, ts uint64, ttl time.Duration) (GCBarrier, error) {
	resp, err := ask(ctx, c, "SetGlobalGCBarrier", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.SetGlobalGCBarrierResponse, error) {
		return pd.SetGlobalGCBarrier(ctx, &pdpb.SetGlobalGCBarrierRequest{Header: c.header(), BarrierId: id, BarrierTs: ts, TtlSeconds: ttlSeconds(ttl)})
	})
	return newBarrier(resp.GetNewBarrierInfo()), err
}

// DeleteGlobalGCBarrier removes a barrier of all keyspaces, and reports whether there was
// one.
func (c *Client) DeleteGlobalGCBarrier(ctx context.Context, id string) (bool, error) {
	resp, err := ask(ctx, c, "DeleteGlobalGCBarrier", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.DeleteGlobalGCBarrierResponse, error) {
		return pd.DeleteGlobalGCBarrier(ctx, &pdpb.DeleteGlobalGCBarrierRequest{Header: c.header(), BarrierId: id})
	})
	return resp.GetDeletedBarrierInfo() != nil, err
}

// AdvanceTxnSafePoint moves a keyspace's transaction safe point towards target, as far as
// barriers let it. PD refuses a target below it.
func (c *Client) AdvanceTxnSafePoint(ctx context.Context, keyspaceID uint32, target uint64) (GCAdvance, error) {
	resp, err := ask(ctx, c, "AdvanceTxnSafePoint", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.AdvanceTxnSafePointResponse, error) {
		return pd.AdvanceTxnSafePoint(ctx, &pdpb.AdvanceTxnSafePointRequest{Header: c.header(), KeyspaceScope: scope(keyspaceID), Target: target})
	})
	return GCAdvance{Old: resp.GetOldTxnSafePoint(), New: resp.GetNewTxnSafePoint(), Blocker: resp.GetBlockerDescription()}, err
}

// AdvanceGCSafePoint moves a keyspace's GC safe point to target. PD refuses one below it
// or above the transaction safe point.
func (c *Client) AdvanceGCSafePoint(ctx context.Context, keyspaceID uint32, target uint64) (GCAdvance, error) {
	resp, err := ask(ctx, c, "AdvanceGCSafePoint", func(ctx context.Context, pd pdpb.PDClient) (*pdpb.AdvanceGCSafePointResponse, error) {
		return pd.AdvanceGCSafePoint(ctx, &pdpb.AdvanceGCSafePointRequest{Header: c.header(), KeyspaceScope: scope(keyspaceID), Target: target})
	})
	return GCAdvance{Old: resp.GetOldGcSafePoint(), New: resp.GetNewGcSafePoint()}, err
}

func scope(keyspaceID uint32) *pdpb.KeyspaceScope {
	return &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: keyspaceID}}
}

func newGCState(s *pdpb.GCState) GCState {
	state := GCState{
		Keyspace: codec.NullKeyspaceID, KeyspaceLevel: s.GetIsKeyspaceLevelGc(),
		TxnSafePoint: s.GetTxnSafePoint(), GCSafePoint: s.GetGcSafePoint(), Barriers: newBarriers(s.GetGcBarriers()),
	}
	if id, ok := s.GetKeyspaceScope().GetKeyspace().(*pdpb.KeyspaceScope_KeyspaceId); ok {
		state.Keyspace = id.KeyspaceId
	}
	return state
}

// barrier is what both kinds have.
type barrier interface {
	GetBarrierId() string
	GetBarrierTs() uint64
	GetTtlSeconds() int64
}

func newBarrier[B barrier](b B) GCBarrier {
	ttl := Forever
	if s := b.GetTtlSeconds(); s <= int64(Forever/time.Second) {
		ttl = time.Duration(s) * time.Second
	}
	return GCBarrier{ID: b.GetBarrierId(), TS: b.GetBarrierTs(), TTL: ttl}
}

func newBarriers[B barrier](bs []B) (all []GCBarrier) {
	for _, b := range bs {
		all = append(all, newBarrier(b))
	}
	return all
}

// ttlSeconds is a TTL as PD has it, where the largest number stands for no end.
func ttlSeconds(ttl time.Duration) int64 {
	if ttl == Forever {
		return math.MaxInt64
	}
	s := int64(ttl / time.Second)
	if ttl%time.Second > 0 {
		s++
	}
	return s
}
