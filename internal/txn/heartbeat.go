package txn

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
)

const (
	// beatEvery is the time between two heartbeats, beatTTL how long a lock lives
	// after one.
	beatEvery = 10 * time.Second
	beatTTL   = 20 * time.Second
	lateBeat  = 50 * time.Millisecond
	// maxUptime is the age at which a transaction that does not end is given up.
	maxUptime = time.Hour
	// maxMissed is how many heartbeats in a row may fail.
	maxMissed = 10
)

// heartbeat keeps the primary lock of a transaction alive, from when it is there until the
// transaction has ended. Between two beats there is a timer and no goroutine; most
// transactions end before the first is due.
type heartbeat struct {
	mu      sync.Mutex
	timer   *time.Timer
	key     []byte // the primary key; nil: nothing beats
	now     *pulse // the beat under way
	missed  int
	deaf    bool // what becomes of the lock says nothing any more
	stopped bool
}

// pulse is one beat.
type pulse struct {
	key    []byte
	cancel context.CancelFunc
	began  time.Time
}

// firstBeat is when the first beat is due of a lock that was written with a TTL, whose
// answer may have taken long: when early is left of its life. One that is late spares those
// who end at once.
func (t *Txn) firstBeat(ttl uint64, early time.Duration) time.Duration {
	return max(lateBeat, time.Duration(ttl)*time.Millisecond-t.uptime()-early)
}

// start makes the first beat due after d, unless it beats for that key already.
func (h *heartbeat) start(t *Txn, key []byte, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || h.key != nil && bytes.Equal(h.key, key) {
		return
	}
	h.cut()
	if h.key, h.missed = key, 0; t.pess == nil {
		h.key = bytes.Clone(key)
	}
	if h.timer == nil {
		h.timer = time.AfterFunc(d, t.beatDue)
	} else {
		h.timer.Reset(d)
	}
}

// cut ends the beat that is due or under way. h.mu is held.
func (h *heartbeat) cut() {
	if h.key = nil; h.timer != nil {
		h.timer.Stop()
	}
	if h.now != nil {
		h.now.cancel()
		h.now = nil
	}
}

// pause stops beating, until the next start.
func (h *heartbeat) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut()
}

// drop is pause if the primary key is among keys.
func (h *heartbeat) drop(keys [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		if h.key != nil && bytes.Equal(key, h.key) {
			h.cut()
		}
	}
}

// decide comes before the commit record is written: from now on the primary lock may be
// gone because the transaction has committed.
func (h *heartbeat) decide() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf = true
}

// stop stops beating for good.
func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	h.cut()
}

// begin starts the beat that is due; nil: there is nothing to do.
func (h *heartbeat) begin(ctx context.Context) (context.Context, *pulse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.key == nil || h.now != nil {
		return ctx, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	h.now = &pulse{h.key, cancel, time.Now()}
	return ctx, h.now
}

// end is the end of a beat, for a lock that is gone or was not reached. It makes the next
// one due, or reports that there is none, as the transaction has failed. One that was cut
// says nothing.
func (h *heartbeat) end(p *pulse, gone, failed bool) (over bool) {
	p.cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now != p {
		return false
	}
	h.now = nil
	if h.missed++; !failed {
		h.missed = 0
	}
	if gone || h.missed > maxMissed {
		h.key = nil
		return !h.deaf
	}
	h.timer.Reset(max(lateBeat, beatEvery-time.Since(p.began))) // the lock lives from when it began
	return false
}

// beatDue is called by the timer.
func (t *Txn) beatDue() {
	t.e.tasks.Go("heartbeat", func(ctx context.Context) {
		ctx, p := t.beat.begin(ctx)
		switch {
		case p == nil:
			return
		case t.forsaken():
			t.Abandon(End{Fate: RolledBack, Err: ErrDropped})
			return
		case t.uptime() >= t.maxUptime():
			if t.beat.end(p, true, false) {
				t.fail("it is older than " + t.maxUptime().String() + ", and its locks are kept alive no longer")
			}
			return
		}
		gone, err := t.sendBeat(ctx, p.key)
		if err != nil && ctx.Err() == nil {
			t.e.log.LogAttrs(ctx, slog.LevelWarn, "heartbeat failed", slog.Uint64("start_ts", t.StartTS()), slog.Any("error", err))
		}
		if !t.beat.end(p, gone, err != nil) {
			return
		}
		if gone {
			t.fail("its primary lock is gone: it was not kept alive in time")
		} else {
			t.fail("its primary lock could not be kept alive")
		}
	})
}

// maxUptime is how old the transaction may become.
func (t *Txn) maxUptime() time.Duration {
	if t.pipe != nil {
		return maxAge
	}
	return maxUptime
}

func (t *Txn) sendBeat(ctx context.Context, key []byte) (gone bool, err error) {
	if t.pipe != nil {
		return t.pipe.beat(ctx, key)
	}
	return t.sendHeartbeat(ctx, key, 0)
}

// sendHeartbeat reports gone if the lock is not there any more. minCommitTS, which is for
// locks that were flushed, is a timestamp that the transaction does not commit before.
func (t *Txn) sendHeartbeat(ctx context.Context, key []byte, minCommitTS uint64) (gone bool, err error) {
	o := t.opts.Read.CallOptions
	o.RetryFor = beatEvery
	call := t.e.call(ctx, "heartbeat", o)
	call.Timeout = beatEvery / 2
	req := &kvrpcpb.TxnHeartBeatRequest{
		Context:       &kvrpcpb.Context{},
		PrimaryLock:   key,
		StartVersion:  t.StartTS(),
		AdviseLockTtl: uint64((t.uptime() + beatTTL).Milliseconds()),
		MinCommitTs:   minCommitTS,
	}
	resp, err := sendKey[*kvrpcpb.TxnHeartBeatResponse](ctx, t.e, call, key, req)
	if err != nil {
		return false, err
	}
	switch ke := resp.GetError(); {
	case ke == nil:
		return false, nil
	case ke.GetTxnNotFound() != nil, ke.GetTxnLockNotFound() != nil, ke.GetPrimaryMismatch() != nil:
		return true, nil
	default:
		return false, keyError(call, t.StartTS(), ke)
	}
}
