package mvcc

import (
	"context"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

// work counts what a reader does (TiKV components/tikv_kv/src/stats.rs, Statistics, what
// write_scan_detail tells of it). Each look at a key's records begins with a move to where
// they are, as TiKV's do on a new key. Two of its moves differ: it may come back to a key
// that it has left, and it jumps over records without values by their pointers, which ours
// do not have (codec.go, lastChange).
type work struct {
	moves int // among write records: to a key's records, and on to each of the next
	found int // values that a read returned
	size  int // of those, with their encoded keys
}

func (w *work) add(o work) {
	w.moves, w.found, w.size = w.moves+o.moves, w.found+o.found, w.size+o.size
}

func (w *work) tell(d *kvrpcpb.ScanDetailV2) {
	d.TotalVersions, d.ProcessedVersions, d.ProcessedVersionsSize = uint64(w.moves), uint64(w.found), uint64(w.size)
}

// details are the messages of one answer. What has no meaning here, blocks of files, a log
// of Raft, a pool of threads, stays 0, and there are messages nevertheless, as in TiKV.
// Neither asks for record_time_stat or record_scan_stat.
type details struct {
	all    kvrpcpb.ExecDetailsV2
	scan   kvrpcpb.ScanDetailV2
	time   kvrpcpb.TimeDetailV2
	ru     kvrpcpb.RUV2
	inputs kvrpcpb.ExecutorInputs
}

func newDetails() *details {
	d := new(details)
	d.ru.ExecutorInputs = &d.inputs
	d.all = kvrpcpb.ExecDetailsV2{ScanDetailV2: &d.scan, TimeDetailV2: &d.time, RuV2: &d.ru}
	return d
}

// details tells what the view has read so far. of is how many keys a batch asked for, -1
// of a request for one (TiKV src/server/service/kv.rs, future_get and future_batch_get;
// components/tracker/src/lib.rs). The rest of the times is the caller's.
func (v *view) details(e *Engine, of int) *kvrpcpb.ExecDetailsV2 {
	d := newDetails()
	v.tell(&d.scan)
	d.time.ProcessWallTimeNs = uint64(e.since(v.began))
	if of < 0 {
		d.ru.StorageProcessedKeysGet = 1
	} else {
		d.ru.StorageProcessedKeysBatchGet = uint64(of)
	}
	return &d.all
}

// effort is an Engine for one request, and what the commands that it runs take (TiKV
// components/tracker/src/lib.rs, RequestMetrics).
type effort struct {
	*Engine
	work
	bytes     int           // of the keys and values that they are to write
	latched   time.Duration // the last one's wait for its latches
	processed time.Duration // what the last one took from then on
	waited    time.Duration // for another transaction's lock
}

func (e *Engine) effort() *effort { return &effort{Engine: e} }

// details tells what was done so far (TiKV src/server/service/kv.rs, txn_command_future:
// also of a request that failed).
func (f *effort) details() *kvrpcpb.ExecDetailsV2 {
	d := newDetails()
	f.tell(&d.scan)
	d.time.ProcessWallTimeNs = uint64(f.processed)
	d.ru.RaftstoreStoreWriteTriggerWbBytes = uint64(f.bytes)
	d.all.WriteDetail = &kvrpcpb.WriteDetail{
		LatchWaitNanos: uint64(f.latched), ProcessNanos: uint64(f.processed), PessimisticLockWaitNanos: uint64(f.waited),
	}
	return &d.all
}

// values counts the bytes of what a prewrite is to write, apart from the keys, which run
// counts (TiKV src/storage/txn/commands/prewrite.rs, write_bytes).
func (f *effort) values(muts []mutation) {
	for _, m := range muts {
		switch m.op {
		case kvrpcpb.Op_Put, kvrpcpb.Op_Insert:
			f.bytes += len(m.value)
		case kvrpcpb.Op_CheckNotExists:
			f.bytes -= len(m.enc)
		}
	}
}

// update runs a command of a request that does not tell what it took.
func (e *Engine) update(ctx context.Context, startTS uint64, ks []key, command func(*change) error) error {
	return e.effort().update(ctx, startTS, ks, command)
}

func (e *Engine) now() time.Time {
	if e.cfg.Now == nil {
		return time.Time{}
	}
	return e.cfg.Now()
}

func (e *Engine) since(t time.Time) time.Duration { return max(0, e.now().Sub(t)) }
