package transport

import (
	"context"
	"errors"

	"google.golang.org/grpc/metadata"
)

// forwardKey is the metadata that asks a store to pass on a call, or all of a stream of
// batched commands, to another store (TiKV src/server/mod.rs, get_target_address, and
// forward_unary and forward_duplex in src/server/service/kv.rs).
const forwardKey = "tikv-forwarded-host"

// ErrNotForwarded is the cause of errors of calls that no store passes on to another.
var ErrNotForwarded = errors.New("no store passes this on to another")

// notForwarded are the commands that a store answers itself, whatever the metadata says:
// those about a store, and those that TiKV's macros leave out.
var notForwarded = [...]string{
	"UnsafeDestroyRange", "RegisterLockObserver", "CheckLockObserver", "RemoveLockObserver", "PhysicalScanLock",
	"GetStoreSafeTS", "GetLockWaitInfo", "GetLockWaitHistory", "Compact",
	"DispatchMPPTask", "CancelMPPTask", "IsAlive", "ReportMPPTaskStatus", "GetTiFlashSystemTable", "GetEstimateTiCICount",
}

// key is the endpoint's name in the pool. What is forwarded by a store has a connection
// and streams of its own, for each store that it goes to.
func (to Target) key() string {
	key := to.Addr
	if to.Forward != "" {
		key += " for " + to.Forward
	}
	if to.lane > 0 {
		key += laneKey(to.lane)
	}
	return key
}

// outgoing is ctx with what the endpoint's calls carry.
func (e *endpoint) outgoing(ctx context.Context) context.Context {
	if e.to.Forward == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, forwardKey, e.to.Forward)
}
