package tikv

import (
	"github.com/pingcap/kvproto/pkg/tikvpb"

	"github.com/tikv-go/tikv/internal/codec"
)

// trait is what the any-request calls have to know of a method.
type trait uint8

const (
	reads     trait = 1 << iota // changes nothing: it is resent after a lost answer
	txnKeys                     // may carry transactional keys
	rawKeys                     // may carry raw keys
	atStore                     // a call to a store, about no region
	atTiFlash                   // of TiFlash alone: TiKV's handlers panic, or there are none
)

// rpcMethods has the methods of TiKV's service that servers serve. The others are between
// stores, or gone: rpcNotServed has them.
var rpcMethods = map[string]trait{
	"KvGet":                       reads | txnKeys,
	"KvScan":                      reads | txnKeys,
	"KvBatchGet":                  reads | txnKeys,
	"KvBufferBatchGet":            reads | txnKeys,
	"KvScanLock":                  reads | txnKeys,
	"MvccGetByKey":                reads | txnKeys,
	"MvccGetByStartTs":            reads | txnKeys,
	"Coprocessor":                 reads | txnKeys,
	"CoprocessorStream":           reads | txnKeys,
	"KvPrewrite":                  txnKeys,
	"KvPessimisticLock":           txnKeys,
	"KVPessimisticRollback":       txnKeys,
	"KvTxnHeartBeat":              txnKeys,
	"KvCheckTxnStatus":            txnKeys,
	"KvCheckSecondaryLocks":       txnKeys,
	"KvCommit":                    txnKeys,
	"KvCleanup":                   txnKeys,
	"KvBatchRollback":             txnKeys,
	"KvResolveLock":               txnKeys,
	"KvFlush":                     txnKeys,
	"KvDeleteRange":               txnKeys,
	"KvPrepareFlashbackToVersion": txnKeys,
	"KvFlashbackToVersion":        txnKeys,

	"RawGet":            reads | rawKeys,
	"RawBatchGet":       reads | rawKeys,
	"RawScan":           reads | rawKeys,
	"RawBatchScan":      reads | rawKeys,
	"RawGetKeyTTL":      reads | rawKeys,
	"RawChecksum":       reads | rawKeys,
	"RawCoprocessor":    rawKeys, // the plug-in may write
	"RawPut":            rawKeys,
	"RawBatchPut":       rawKeys,
	"RawDelete":         rawKeys,
	"RawBatchDelete":    rawKeys,
	"RawDeleteRange":    rawKeys,
	"RawCompareAndSwap": rawKeys,

	"SplitRegion":        txnKeys | rawKeys,
	"UnsafeDestroyRange": txnKeys | atStore,
	"GetStoreSafeTS":     reads | txnKeys | atStore,
	"GetLockWaitInfo":    reads | txnKeys | atStore,
	"GetLockWaitHistory": reads | txnKeys | atStore,
	"GetHealthFeedback":  reads | atStore,
	"BroadcastTxnStatus": atStore,
	"Compact":            atStore,

	"BatchCoprocessor":       reads | txnKeys | atStore | atTiFlash,
	"DispatchMPPTask":        txnKeys | atStore | atTiFlash,
	"CancelMPPTask":          atStore | atTiFlash,
	"EstablishMPPConnection": atStore | atTiFlash,
	"IsAlive":                reads | atStore | atTiFlash,
	"ReportMPPTaskStatus":    atStore | atTiFlash,
	"GetTiFlashSystemTable":  reads | atStore | atTiFlash,
	"GetEstimateTiCICount":   reads | txnKeys | atStore | atTiFlash,
}

// has reports whether all of the traits are there.
func (t trait) has(all trait) bool { return t&all == all }

// takes reports whether keys of the mode may be in a request.
func (t trait) takes(m KeyMode) bool {
	return m == KeyTxn && t.has(txnKeys) || m == KeyRaw && t.has(rawKeys)
}

// service is the prefix of the methods' full names.
const service = "/tikvpb.Tikv/"

// methodOf finds the method that a function calls.
func methodOf(op string, stream bool, call func(tikvpb.TikvClient)) (string, trait, error) {
	var s stub
	call(&s)
	name := s.method
	if name == "" || s.stream != stream {
		return "", 0, &ArgumentError{Op: op, Arg: "method", Reason: "calls no such method of TiKV's service"}
	}
	t, ok := rpcMethods[name]
	if !ok {
		return "", 0, &unsupportedError{op, "no server serves " + name + " to clients"}
	}
	return name, t, nil
}

// codec is that of the keys of a mode.
func (m KeyMode) codec(e *engine) codec.Codec {
	if m == KeyRaw {
		return e.raw
	}
	return e.txn
}
